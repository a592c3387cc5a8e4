"""Asking an engine for one piece of work, as a request that wants nothing else."""

from __future__ import annotations

from qwen_allinone.engine import Engine, Ticket
from qwen_allinone.engine.request import Work


def submit(engine: Engine, work: Work, deadline: float | None = None) -> Ticket:
    """Admit a request, submit `work` and give the place back when it has ended."""
    permit = engine.admit(deadline)
    try:
        ticket = engine.submit(work, permit=permit)
    except Exception as error:
        permit.__exit__(type(error), error, None)
        raise
    ticket.future.add_done_callback(lambda _: permit.__exit__(None, None, None))
    return ticket
