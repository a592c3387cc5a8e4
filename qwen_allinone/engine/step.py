"""One step of the engine: schedule -> forward -> sample -> deliver."""

from __future__ import annotations

import time
from collections.abc import Sequence

from torch import Tensor

from qwen_allinone.engine.request import FinishReason, Result, Ticket, Work
from qwen_allinone.engine.scheduler import Planned, Running, Scheduler
from qwen_allinone.engine.slots import SlotTable
from qwen_allinone.model.attention import Chunk
from qwen_allinone.model.kv import KVCache
from qwen_allinone.model.qwen2 import Qwen2


def step(model: Qwen2, cache: KVCache, scheduler: Scheduler) -> None:
    """One forward pass over what the running requests need next."""
    plan = scheduler.schedule()
    if not plan:
        return
    hidden = model.forward([planned.chunk for planned in plan], cache)
    for planned in plan:
        scheduler.computed(planned)
    due = [row for row, planned in enumerate(plan) if planned.complete]
    logits = _sample_rows(model, hidden, [plan[row] for row in due], due)
    for row in due:
        _deliver(scheduler, plan[row].running, logits[row])


def _sample_rows(model: Qwen2, hidden: Tensor, due: list[Planned], rows: list[int]) -> dict[int, Tensor]:
    """Logits of the requests that are due, by row: all of the vocabulary in one product, labels on their own."""
    wanted = {row: planned.running.ticket.work.wanted_ids for row, planned in zip(rows, due, strict=True)}
    free = [row for row in rows if wanted[row] is None]
    out = {row: model.logits_of(hidden[row], ids) for row, ids in wanted.items() if ids is not None}
    if free:
        out.update(zip(free, model.logits(hidden[free]), strict=True))
    return out


def _deliver(scheduler: Scheduler, running: Running, logits: Tensor) -> None:
    ticket = running.ticket
    if not ticket.first_token:
        ticket.first_token = time.monotonic()
    reason: FinishReason | None = ticket.work.accept(logits)
    if reason is None:
        scheduler.rewind(running)
        return
    result = ticket.result(reason)  # before the request leaves the running ones: if this raises, it fails with them
    scheduler.remove(running)
    ticket.finish(result)


def compute_first(works: Sequence[Work], model: Qwen2, cache: KVCache, scheduler: Scheduler) -> list[Result]:
    """The results of `works`, before there are any other requests."""
    tickets = [Ticket(work) for work in works]
    for ticket in tickets:
        scheduler.submit(ticket)
    while not all(ticket.future.done() for ticket in tickets):
        step(model, cache, scheduler)
    return [ticket.future.result() for ticket in tickets]


def compute_prefix(prefix: Sequence[int], model: Qwen2, cache: KVCache, slots: SlotTable) -> None:
    """Compute a fixed beginning in a slot and keep a copy. One longer than the budget is not worth keeping."""
    slot = slots.acquire(prefix, len(prefix)) if len(prefix) <= model.context else None
    if slot is None:
        return
    rest = prefix[len(slot.tokens) :]
    model.forward([Chunk(slot.index, len(slot.tokens), rest)], cache)
    slot.tokens.extend(rest)
    slots.remember_prefix(slot)
    slots.release(slot)
