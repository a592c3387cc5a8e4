"""What the routes answer with."""

from __future__ import annotations

from dataclasses import dataclass, field

from qwen_allinone.http.disconnects import Disconnects
from qwen_allinone.service import Service
from qwen_allinone.state import Sessions


@dataclass(frozen=True)
class Backend:
    """Handed to every `register`. `model_name` is what clients call the model; streams ping every `ping_s` seconds."""

    service: Service
    sessions: Sessions
    model_name: str
    ping_s: float
    disconnects: Disconnects = field(default_factory=Disconnects)
