"""What an engine is given: its sizes, and what a loader hands over."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from qwen_allinone.engine.work import Result, Work
from qwen_allinone.model.qwen2 import Qwen2

T = TypeVar("T")

# Computes work before anybody is admitted.
Compute = Callable[[Sequence[Work]], list[Result]]


@dataclass(frozen=True)
class Loaded(Generic[T]):
    """A model, the prompt prefixes to compute once, those of adapters by their names, and what the log calls it.

    `publish` makes what requests need beside the model, once the prefixes are there; it may have work computed. The
    engine shows the two together, see Permit.published. It must not hold the model: a failed request's traceback may
    hold it, and a model must be gone before the next is loaded.
    """

    model: Qwen2
    publish: Callable[[Compute], T]
    prefixes: Sequence[Sequence[int]] = ()
    adapted_prefixes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    title: str = "model"


@dataclass(frozen=True)
class Capacity:
    """Sizes of one engine, in compute threads, requests and tokens (see the settings of the same names), and the
    callers' shares of its slots; who is not named has 1. `caller_slots`: percent of the slots one may have. `drafts`:
    whether to make them where they pay."""

    threads: int = 1
    slots: int = 8
    kv_tokens: int = 4096
    step_tokens: int = 256
    share_tokens: int = 16
    caller_slots: int = 87
    max_waiting: int = 32
    shares: Mapping[str, int] = field(default_factory=dict)
    drafts: bool = False
