"""One step of the engine: schedule -> forward -> read -> deliver."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from qwen_allinone.engine.scheduler import Planned, Scheduler
from qwen_allinone.engine.slots import SlotTable
from qwen_allinone.engine.ticket import Ticket
from qwen_allinone.engine.work import Result, Work
from qwen_allinone.model.attention import Chunk
from qwen_allinone.model.kv import KVCache
from qwen_allinone.model.qwen2 import Qwen2

# A row of logits is a whole vocabulary: so many are made at a time.
_MOST_ROWS = 64


def step(model: Qwen2, cache: KVCache, scheduler: Scheduler) -> None:
    """One forward pass over what the running requests need next."""
    plan = scheduler.schedule()
    if not plan:
        return
    hidden = model.forward([planned.chunk for planned in plan], cache)
    for planned, logits in _logits(model, plan, hidden):
        planned.ended = planned.work.read(logits)
    scheduler.deliver(plan)


def _logits(model: Qwen2, plan: Sequence[Planned], hidden: Tensor) -> Iterator[tuple[Planned, Tensor]]:
    """The logits of the rows `hidden` that the chunks of `plan` want, each with whose they are.

    Those who want the whole vocabulary have it in common products of at most _MOST_ROWS rows, unless one alone wants
    more rows: it gets them in several parts.
    """
    group: list[tuple[Planned, slice]] = []
    end = grouped = 0
    for planned in plan:
        begin, end = end, end + len(planned.chunk.wanted)
        ids = planned.work.wanted_ids
        if ids is not None and end > begin:
            yield planned, model.logits_of(hidden[begin:end], ids)
        elif ids is None:
            for first in range(begin, end, _MOST_ROWS):
                rows = slice(first, min(first + _MOST_ROWS, end))
                if grouped + rows.stop - rows.start > _MOST_ROWS:
                    yield from _together(model, group, hidden)
                    group, grouped = [], 0
                group.append((planned, rows))
                grouped += rows.stop - rows.start
    yield from _together(model, group, hidden)


def _together(model: Qwen2, group: Sequence[tuple[Planned, slice]], hidden: Tensor) -> Iterator[tuple[Planned, Tensor]]:
    """One product over the vocabulary for all rows of `group`."""
    if not group:
        return
    wanted = [row for _, rows in group for row in range(rows.start, rows.stop)]
    logits, end = model.logits(hidden[wanted]), 0
    for planned, rows in group:
        begin, end = end, end + rows.stop - rows.start
        yield planned, logits[begin:end]


def compute_first(works: Sequence[Work], model: Qwen2, cache: KVCache, scheduler: Scheduler) -> list[Result]:
    """The results of `works`, before there are any other requests."""
    tickets = [Ticket(work) for work in works]
    for ticket in tickets:
        scheduler.submit(ticket)
    while not all(ticket.future.done() for ticket in tickets):
        step(model, cache, scheduler)
    return [ticket.future.result() for ticket in tickets]


def compute_prefix(prefix: Sequence[int], model: Qwen2, cache: KVCache, slots: SlotTable) -> None:
    """Compute a prompt prefix in a slot and keep a copy. One longer than the budget is not worth keeping."""
    slot = slots.acquire(prefix, len(prefix)) if len(prefix) <= model.context else None
    if slot is None:
        return
    rest = prefix[len(slot.tokens) :]
    model.forward([Chunk(slot.index, len(slot.tokens), rest, wants_last=False)], cache)
    slot.tokens.extend(rest)
    slots.remember_prefix(slot)
    slots.release(slot)
