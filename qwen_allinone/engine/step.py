"""One step of the engine: schedule -> forward -> read -> deliver."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor

from qwen_allinone.engine.failure import is_out_of_memory
from qwen_allinone.engine.scheduler import Planned, Scheduler
from qwen_allinone.engine.slots import SlotTable
from qwen_allinone.engine.ticket import Ticket
from qwen_allinone.engine.work import Result, Work
from qwen_allinone.model.attention import Chunk
from qwen_allinone.model.kv import KVCache
from qwen_allinone.model.qwen2 import Qwen2

# A row of logits is a whole vocabulary: so many are made at a time. A step with drafts has fewer: no draft is cut.
_MOST_ROWS = 64


def step(model: Qwen2, cache: KVCache, scheduler: Scheduler) -> None:
    """One forward pass over what the running requests need next."""
    plan = scheduler.schedule()
    if not plan:
        return
    hidden = model.forward([planned.chunk for planned in plan], cache)
    _read(model, plan, hidden)
    failed = [planned.failed for planned in plan if planned.failed]
    if len(failed) == len(plan):  # nobody else is spared: as if the model had raised
        raise failed[0]
    scheduler.deliver(plan)


def _read(model: Qwen2, plan: Sequence[Planned], hidden: Tensor) -> None:
    """Hand each work the logits of the rows of `hidden` that its chunk wants, in order, or the rows themselves."""
    everything: list[tuple[Planned, int]] = []  # rows that want the whole vocabulary
    end = 0
    for planned in plan:
        begin, end = end, end + len(planned.chunk.wanted)
        if planned.work.wants_states:
            if end > begin:
                _hand(planned, hidden[begin:end])
        elif planned.work.wanted_ids is None:
            everything += [(planned, row) for row in range(begin, end)]
        elif end > begin:
            if planned.work.weigh:
                planned.work.weigh(model.logits(hidden[begin:end]))
            _hand(planned, model.logits_of(hidden[begin:end], planned.work.wanted_ids))
    for first in range(0, len(everything), _MOST_ROWS):
        part = everything[first : first + _MOST_ROWS]
        logits = model.logits(hidden[[row for _, row in part]])
        for planned, rows in itertools.groupby(range(len(part)), key=lambda row: part[row][0]):
            _hand(planned, logits[list(rows)])


def _hand(planned: Planned, rows: Tensor) -> None:
    """Have the work read its rows; if that raises, it fails alone, unless there is no memory for anybody."""
    try:
        planned.ended = planned.work.read(rows)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        planned.failed = error


def compute_first(works: Sequence[Work], model: Qwen2, cache: KVCache, scheduler: Scheduler) -> list[Result]:
    """The results of `works`, before there are any other requests."""
    tickets = [Ticket(work) for work in works]
    for ticket in tickets:
        scheduler.submit(ticket)
    while not all(ticket.future.done() for ticket in tickets):
        step(model, cache, scheduler)
    return [ticket.future.result() for ticket in tickets]


def compute_prefix(
    prefix: Sequence[int], model: Qwen2, cache: KVCache, slots: SlotTable, adapter: str | None = None
) -> None:
    """Compute a prompt prefix in a slot and keep a copy. One longer than the budget is not worth keeping."""
    slot = slots.acquire(prefix, len(prefix), adapter=adapter) if len(prefix) <= model.context else None
    if slot is None:
        return
    rest = prefix[len(slot.tokens) :]
    model.forward([Chunk(slot.index, len(slot.tokens), rest, wants_last=0, adapter=adapter)], cache)
    slot.tokens.extend(rest)
    slots.remember_prefix(slot)
    slots.release(slot)
