"""What the routes answer with."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

from qwen_allinone.errors import UnknownModel
from qwen_allinone.http.disconnects import Disconnects
from qwen_allinone.service import How, Memories, Service
from qwen_allinone.state import Corrections, Responses, Sessions, SqliteBatches


@dataclass(frozen=True)
class Batches:
    """Where batches are kept, and how who works them off in this worker is told of a new one."""

    store: SqliteBatches
    wake: Callable[[], None]


@dataclass(frozen=True)
class PromptBench:
    """Where prompts are edited. `in_force`: the folder of the tasks that are served; `prompts`: the one where new
    folders go, which the next reload takes; `editors` may edit, None: everybody; `how` label tasks are fitted."""

    in_force: Path
    prompts: Path
    editors: Collection[str] | None
    how: How


@dataclass(frozen=True)
class Backend:
    """Handed to every `register`. `model_names` is what clients call the model, its own name first; streams ping every
    `ping_s` seconds. `corrections`: None where answers are not kept for feedback; `batches`: None where none
    are worked off."""

    service: Service
    sessions: Sessions
    responses: Responses
    memories: Memories | None  # None: nothing is remembered
    remembers_completions: bool  # chat completions with a user, that do not say whether they want memory
    model_names: tuple[str, ...]
    ping_s: float
    corrections: Corrections | None = None
    batches: Batches | None = None
    prompt_bench: PromptBench | None = None  # None: prompts are not edited here
    disconnects: Disconnects = field(default_factory=Disconnects)

    @property
    def model_name(self) -> str:
        """The model's own."""
        return self.model_names[0]

    def check_model(self, asked_for: str) -> None:
        """Raises UnknownModel unless it is a name of the model there is."""
        if asked_for not in self.model_names:
            raise UnknownModel(asked_for, self.model_names)
