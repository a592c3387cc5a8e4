"""Engines: one that is never started, and asking one for one piece of work, as a request that wants nothing else."""

from __future__ import annotations

import math
from typing import Any

from qwen_allinone.engine import Capacity, Engine, Loaded, Ticket, Work


def submit(engine: Engine, work: Work, deadline: float = math.inf) -> Ticket:
    """Admit a request, submit `work` and give the place back when it has ended."""
    permit = engine.admit(deadline)
    try:
        ticket = engine.submit(work, permit=permit)
    except Exception as error:
        permit.__exit__(type(error), error, None)
        raise
    ticket.future.add_done_callback(lambda _: permit.__exit__(None, None, None))
    return ticket


def idle_engine() -> Engine[Any]:
    """An engine that is never started."""

    def load() -> Loaded[Any]:
        raise AssertionError("it was started")

    return Engine(load, Capacity())
