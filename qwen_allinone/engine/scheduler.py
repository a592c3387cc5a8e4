"""Decides what the next step computes: who gets a slot, and how many of whose tokens."""

from __future__ import annotations

import bisect
import threading
import time
from dataclasses import dataclass

from qwen_allinone.engine.deciding import Decide
from qwen_allinone.engine.request import Ticket, Work
from qwen_allinone.engine.slots import Slot, SlotTable, shared
from qwen_allinone.errors import Cancelled, DeadlineExceeded, EmptyInput, InputTooLong, QaioError
from qwen_allinone.model.attention import Chunk

# Stands among a slot's tokens for one that is in no sequence: it equals no token.
_BRANCHED = -1


@dataclass(eq=False)
class Running:
    """A request that has a slot."""

    ticket: Ticket
    slot: Slot

    @property
    def missing(self) -> int:
        """Tokens still to be computed before the next logits."""
        return len(self.ticket.work.tokens) - len(self.slot.tokens)


@dataclass(frozen=True)
class Planned:
    """One request's share of a step. `complete`: after it the request's logits are due."""

    running: Running
    chunk: Chunk

    @property
    def complete(self) -> bool:
        return self.chunk.end == len(self.running.ticket.work.tokens)


class Scheduler:
    """The waiting line and the running set. `submit` and `abandon` are for any thread, the rest for the engine's.

    The line is as long as those who are admitted make it, see Admission.
    """

    def __init__(self, slots: SlotTable, *, step_tokens: int, longest: int) -> None:
        self._slots = slots
        self._step_tokens = step_tokens
        self._longest = longest
        self._waiting: list[Ticket] = []
        self._running: list[Running] = []
        self._changed = threading.Condition()
        self._closed: Exception | None = None

    def submit(self, ticket: Ticket) -> None:
        """Queue a request, before those whose place is behind its own.

        Raises:
            EmptyInput: there is no token to compute.
            InputTooLong: it could never fit a slot.
        """
        if not ticket.work.tokens:
            raise EmptyInput()
        if ticket.work.most_tokens > self._longest:
            raise InputTooLong(f"输入加回复最多 {self._longest} 个 token，请缩短输入")
        with self._changed:
            if self._closed:
                raise self._closed
            bisect.insort(self._waiting, ticket, key=lambda waiting: waiting.place)
            self._changed.notify()

    def wait_for_work(self, timeout: float) -> bool:
        """Block until something is to be computed; False after `timeout` seconds without."""
        with self._changed:
            return self._changed.wait_for(lambda: bool(self._waiting or self._running), timeout)

    def schedule(self) -> list[Planned]:
        """End what was given up, admit what fits, and plan one step of at most `step_tokens` tokens."""
        self._drop_given_up()
        self._admit()
        # One token each for those that decode, then prompts in order of arrival: replies do not stall.
        by_need = sorted(self._running, key=lambda running: running.missing > 1)
        budget = self._step_tokens
        plan = []
        for running in by_need:
            count = min(running.missing, budget)
            if count == 0:
                break
            budget -= count
            start = len(running.slot.tokens)
            work = running.ticket.work
            branches = work.branches(start, start + count) if isinstance(work, Decide) else None
            tokens = work.tokens[start : start + count]
            plan.append(Planned(running, Chunk(running.slot.index, start, tokens, branches)))
        return plan

    def computed(self, planned: Planned) -> None:
        """Note that the chunk's keys and values are in the slot."""
        chunk, slot = planned.chunk, planned.running.slot
        sequence = chunk.tokens[: max(len(_sequence(planned.running.ticket.work)) - chunk.start, 0)]
        slot.tokens.extend(sequence)
        slot.tokens.extend([_BRANCHED] * (len(chunk.tokens) - len(sequence)))

    def rewind(self, running: Running) -> None:
        """After the request changed its mind about `tokens`, keep what is still their beginning."""
        sequence, slot = _sequence(running.ticket.work), running.slot
        common = min(len(slot.tokens), len(sequence) - 1)
        if slot.tokens[:common] != sequence[:common]:  # seldom: a reply only ever grows
            common = shared(slot.tokens, sequence)
        del slot.tokens[common:]

    def remove(self, running: Running) -> None:
        """The request has ended well or was given up: its slot keeps what it holds."""
        self._running.remove(running)
        self._slots.release(running.slot)

    def fail_running(self, error: QaioError) -> int:
        """End all running requests with `error`, forget their slots; returns how many there were."""
        failed, self._running = self._running, []
        for running in failed:
            self._slots.forget(running.slot)
            running.ticket.fail(error)
        return len(failed)

    def close(self, error: QaioError) -> None:
        """End everything with `error` and refuse what comes later with it."""
        self.abandon(error)
        self.fail_running(error)

    def abandon(self, error: QaioError) -> None:
        """The same from any thread, even while a step is computed: nobody waits any more, slots stay as they are."""
        with self._changed:
            self._closed = error
            waiting, self._waiting = self._waiting, []
            left = [*waiting, *(running.ticket for running in list(self._running))]
        for ticket in left:
            ticket.cancel()
            ticket.fail(error)

    def forget_idle(self) -> None:
        """Give back the memory of what finished requests left in their slots."""
        self._slots.forget_idle()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        return len(self._running)

    def _drop_given_up(self) -> None:
        now = time.monotonic()
        for running in list(self._running):
            error = _given_up(running.ticket, now)
            if error:
                self.remove(running)
                running.ticket.fail(error)
        with self._changed:
            ended = [(ticket, error) for ticket in self._waiting if (error := _given_up(ticket, now))]
            for ticket, _ in ended:
                self._waiting.remove(ticket)
        for ticket, error in ended:
            ticket.fail(error)

    def _admit(self) -> None:
        """First come, first served: a long request at the head is waited for, not overtaken."""
        while (ticket := self._head()) is not None:
            slot = self._slots.acquire(_sequence(ticket.work), ticket.work.most_tokens)
            if slot is None:
                return
            ticket.admitted = time.monotonic()
            ticket.reused = len(slot.tokens)
            with self._changed:
                if ticket not in self._waiting:  # abandoned meanwhile
                    self._slots.release(slot)
                    return
                self._waiting.remove(ticket)
                self._running.append(Running(ticket, slot))

    def _head(self) -> Ticket | None:
        with self._changed:
            return self._waiting[0] if self._waiting else None


def _sequence(work: Work) -> list[int]:
    """What of a work's tokens, from the first, is one sequence: only that can be shared with other requests."""
    return work.sequence if isinstance(work, Decide) else work.tokens


def _given_up(ticket: Ticket, now: float) -> QaioError | None:
    if ticket.cancelled:
        return Cancelled()
    return DeadlineExceeded() if ticket.expired(now) else None
