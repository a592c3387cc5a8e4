"""What an engine is given, and what it says of itself."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from qwen_allinone.engine.request import Result, Work
from qwen_allinone.model.qwen2 import Qwen2


class Status(enum.StrEnum):
    """What the engine is doing; requests are taken in READY only. After STUCK the process must be replaced."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    STUCK = "stuck"
    FAILED = "failed"
    STOPPED = "stopped"


def _ignore(_: Sequence[Result]) -> None:
    pass


@dataclass(frozen=True)
class Loaded:
    """What a loader gives the engine: the model, prompt beginnings to compute once, and what the log calls it.

    `first` is computed before anybody is admitted, and `learn` is told the results.
    """

    model: Qwen2
    prefixes: Sequence[Sequence[int]] = ()
    title: str = "model"
    first: Sequence[Work] = ()
    learn: Callable[[Sequence[Result]], None] = _ignore


Loader = Callable[[], Loaded]


@dataclass(frozen=True)
class Limits:
    """Sizes of one engine, in compute threads, requests and tokens (see the settings of the same names)."""

    threads: int = 1
    slots: int = 8
    kv_tokens: int = 4096
    step_tokens: int = 256
    max_waiting: int = 32
