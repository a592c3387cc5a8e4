"""What the routes answer with."""

from __future__ import annotations

from dataclasses import dataclass, field

from qwen_allinone.errors import UnknownModel
from qwen_allinone.http.disconnects import Disconnects
from qwen_allinone.service import Service
from qwen_allinone.state import Responses, Sessions


@dataclass(frozen=True)
class Backend:
    """Handed to every `register`. `model_names` is what clients call the model, its own name first; streams ping every
    `ping_s` seconds."""

    service: Service
    sessions: Sessions
    responses: Responses
    model_names: tuple[str, ...]
    ping_s: float
    disconnects: Disconnects = field(default_factory=Disconnects)

    @property
    def model_name(self) -> str:
        """The model's own."""
        return self.model_names[0]

    def check_model(self, asked_for: str) -> None:
        """Raises UnknownModel unless it is a name of the model there is."""
        if asked_for not in self.model_names:
            raise UnknownModel(asked_for, self.model_names)
