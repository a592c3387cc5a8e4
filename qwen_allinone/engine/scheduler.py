"""Decides what the next step computes: who gets a slot, and how many of whose tokens."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from qwen_allinone.engine.drafts import MOST_ROWS, Drafting
from qwen_allinone.engine.slots import Slot, SlotTable, common_prefix
from qwen_allinone.engine.ticket import Ticket
from qwen_allinone.engine.work import FinishReason, Work
from qwen_allinone.errors import Cancelled, DeadlineExceeded, EmptyInput, EngineFailed, InputTooLong, QaioError
from qwen_allinone.model.attention import Chunk
from qwen_allinone.wording import said

log = logging.getLogger(__name__)

# Marks the keys and values of tokens that are in no sequence; equal to no token, it never matches a prefix.
_NO_TOKEN = -1
# Steps for which a prompt may be passed over for shorter ones.
_PATIENCE = 8
# Callers are about so long after their last work.
_ABOUT_S = 1.0
# So many shares may be saved, and computed at once.
_SAVED = 4


@dataclass(eq=False)
class Running:
    """A request that has a slot. `passed_over`: steps that computed nothing of its prompt, one after the other."""

    ticket: Ticket
    slot: Slot
    passed_over: int = 0


@dataclass(eq=False)
class Planned:
    """One request's share of a step. `complete`: none of the work's tokens are left to compute after it.

    `sequence` is the work's as it was planned; reading may make it longer. `ended` is what reading the logits said,
    `failed` what it raised.
    """

    running: Running
    work: Work
    chunk: Chunk
    complete: bool
    sequence: list[int]
    ended: FinishReason | None = None
    failed: Exception | None = None


class Scheduler:
    """The waiting line and the running set. `submit` and `abandon` are for any thread, the rest for the engine's.

    The line is as long as those who are admitted make it, see Admission. While several callers wait, slots go to them
    in proportion to their `shares`; who is not named has 1.
    """

    def __init__(
        self,
        slots: SlotTable,
        *,
        step_tokens: int,
        longest: int,
        share_tokens: int = 16,
        shares: Mapping[str, int] = MappingProxyType({}),
        drafting: Drafting | None = None,
    ) -> None:
        """`drafting`: what drafts cost, None for a scheduler that wants none.

        `share_tokens`: what a step computes of one caller's prompts while others are about; what he does not need of
        that he may have later, as in deficit round robin (Shreedhar and Varghese, SIGCOMM 1995), up to a few shares.

        Another's label waits for the end of such a step, and of one more; another's reply for each of its tokens. A
        step of one token takes about as long as a dozen more do, so sixteen make it twice as long, or a little more.
        """
        self._slots = slots
        self._portions = shares
        self._drafting = drafting if drafting and drafting.pays else None
        self._step_tokens = step_tokens
        self._share_tokens = min(share_tokens, step_tokens)
        self._longest = longest
        self._waiting: list[Ticket] = []
        self._running: list[Running] = []
        self._about = dict[str | None, float]()  # when a step last had anything of a caller
        self._saved = dict[str | None, int]()  # tokens of prompts that each who is about may have now
        self._changed = threading.Condition()
        self._closed: Exception | None = None

    def submit(self, ticket: Ticket) -> None:
        """Queue a request; whose turn it is, `_head` says.

        Raises:
            EmptyInput: there is no token to compute.
            InputTooLong: it could never fit a slot.
        """
        if not ticket.work.tokens:
            raise EmptyInput()
        if ticket.work.most_tokens > self._longest:
            raise InputTooLong(said("more_than_context", longest=self._longest))
        # From here on `future.cancel()` does nothing: a future that ended twice would take a whole step with it.
        ticket.future.set_running_or_notify_cancel()
        with self._changed:
            if self._closed:
                raise self._closed
            self._waiting.append(ticket)
            self._changed.notify()

    def wait_for_work(self, timeout: float) -> bool:
        """Block until something is to be computed; False if there is nothing after at most `timeout` seconds."""
        with self._changed:
            if not (self._waiting or self._running):
                self._changed.wait(timeout)
            return bool(self._waiting or self._running)

    def wake(self) -> None:
        """End `wait_for_work` now."""
        with self._changed:
            self._changed.notify()

    def schedule(self) -> list[Planned]:
        """End what was given up, start what fits, and plan one step of at most `step_tokens` tokens."""
        now = time.monotonic()
        given_up = [r for r in self._running if r.ticket.cancelled or now >= r.ticket.deadline]
        for running in given_up:
            self._remove(running)
            running.ticket.fail(_why(running.ticket))
        if self._waiting:
            self._drop_late(now)
            self._start_waiting()
        # One token each for those that decode, then prompts: replies do not stall.
        missing = [(len(r.ticket.work.tokens) - len(r.slot.tokens), r) for r in self._running]
        decoding = [(count, running) for count, running in missing if count <= 1][: self._step_tokens]
        prompts = [(count, running) for count, running in missing if count > 1]
        self._note_callers(now)
        shares = [*decoding, *self._shares(prompts, self._step_tokens - len(decoding))]
        if self._drafting:
            self._draft([running.ticket.work for _, running in decoding], _total(shares), self._drafting)
        plan = []
        for count, running in shares:
            work, start = running.ticket.work, len(running.slot.tokens)
            end = start + count
            chunk = work.chunk(running.slot.index, start, end)
            plan.append(Planned(running, work, chunk, end == len(work.tokens), work.sequence))
        return plan

    def deliver(self, plan: list[Planned]) -> None:
        """Take note of what a step has computed, and answer the requests that have ended with it."""
        for planned in plan:
            ticket, slot, chunk = planned.running.ticket, planned.running.slot, planned.chunk
            if planned.failed:
                self._fail(planned.running, planned.failed)
                continue
            kept = common_prefix(chunk.tokens, planned.sequence[chunk.start : chunk.end])
            slot.tokens += chunk.tokens[:kept]
            slot.tokens += [_NO_TOKEN] * (len(chunk.tokens) - kept)
            if not planned.complete:
                continue
            ticket.first_token = ticket.first_token or time.monotonic()
            if planned.ended is None:
                # The work has begun another, or its draft was wrong from some token on.
                if planned.work.sequence is not planned.sequence or kept < len(chunk.tokens):
                    _cut(slot, planned.work.sequence)
                continue
            try:
                result = ticket.result(planned.ended)
            except Exception as error:
                self._fail(planned.running, error)
                continue
            self._remove(planned.running)
            ticket.finish(result)

    def _fail(self, running: Running, error: Exception) -> None:
        """End one request whose own reading raised; those that were computed beside it go on."""
        log.error("a request failed in its step; the others go on", exc_info=error)
        self._running.remove(running)
        self._slots.forget(running.slot)
        running.ticket.fail(EngineFailed())

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

    def others_about(self, caller: str | None) -> bool:
        """Whether anybody but `caller` has something computed that he waits for, or had until a moment ago."""
        now = time.monotonic()
        return any(now - at < _ABOUT_S for other, at in self._about.items() if other != caller)

    def forget_idle(self) -> None:
        """Give back the memory of what finished requests left in their slots."""
        self._slots.forget_idle()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        return len(self._running)

    def _drop_late(self, now: float) -> None:
        """End those in line that were given up."""
        with self._changed:
            ended = [t for t in self._waiting if t.cancelled or now >= t.deadline]
            for ticket in ended:
                self._waiting.remove(ticket)
        for ticket in ended:
            ticket.fail(_why(ticket))

    def _start_waiting(self) -> None:
        """Who has the fewest slots for his share comes first, with his oldest request; it is waited for, not overtaken.
        Last come those that nobody waits for, which even give up their slots."""
        while (ticket := self._head()) is not None:
            slot = self._slots.acquire(
                ticket.work.sequence, ticket.work.most_tokens, ticket.caller, ticket.work.adapter
            )
            if slot is None:
                if ticket.behind:
                    break
                self._make_way(self._running)
                return
            ticket.started = time.monotonic()
            ticket.reused = len(slot.tokens)
            with self._changed:
                if ticket not in self._waiting:  # abandoned meanwhile
                    self._slots.release(slot)
                    return
                self._waiting.remove(ticket)
                self._running.append(Running(ticket, slot))
        # Nobody is kept from his share of the slots by what he does not wait for.
        callers = {ticket.caller for ticket in list(self._waiting) if not ticket.behind}
        self._make_way([running for running in self._running if running.ticket.caller in callers])

    def _head(self) -> Ticket | None:
        """Whose turn it is: the highest priority, then who has least for his share. Those whose caller has so much that
        others find no room wait until he has less, whatever their priority."""
        held = Counter(running.ticket.caller for running in self._running)

        def turn(ticket: Ticket) -> tuple[bool, int, float, int]:
            taken = held[ticket.caller] / self._portions.get(ticket.caller or "", 1)
            return ticket.behind, -ticket.priority, taken, ticket.rank

        with self._changed:
            fair = [t for t in self._waiting if self._leaves_room(t)]
        return min(fair, key=turn, default=None)

    def _leaves_room(self, ticket: Ticket) -> bool:
        others = len(self._about.keys() - {ticket.caller})
        return self._slots.leaves_room(ticket.caller, ticket.work.most_tokens, others)

    def _make_way(self, among: Sequence[Running]) -> None:
        """Have the youngest of those that nobody waits for give its slot up: its work is asked again later."""
        behind = [running for running in among if running.ticket.behind]
        if behind and not any(running.ticket.cancelled for running in behind):  # one at a time
            max(behind, key=lambda r: r.ticket.rank).ticket.cancel()

    def _shares(self, prompts: list[tuple[int, Running]], budget: int) -> list[tuple[int, Running]]:
        """As `_shared_out`, but those that nobody waits for get what is left, and of that a share where others run."""
        first = [item for item in prompts if not item[1].ticket.behind]
        behind = [item for item in prompts if item[1].ticket.behind]
        shares = _shared_out(first, budget, self._saved if len(self._about) > 1 else {})
        for count, running in shares:
            caller = running.ticket.caller
            self._saved[caller] = max(self._saved.get(caller, 0) - count, 0)
        left = budget - _total(shares)
        if any(not running.ticket.behind for running in self._running):
            left = min(left, self._share_tokens)
        return shares + (_shared_out(behind, left, {}) if left else [])

    def _draft(self, decoding: Sequence[Work], rows: int, drafting: Drafting) -> None:
        """Have those that decode draft what follows, if the step has few enough `rows` to have room for it."""
        room, price = min(MOST_ROWS, self._step_tokens) - rows, drafting.price_among(len(decoding))
        if room < 1 or price is None:
            return
        drafts = [(work, len(work.draft(room, price))) for work in decoding]
        drafting_works = [work for work, count in drafts if count]
        if sum(count for _, count in drafts) > room:
            for work in drafting_works:
                work.draft(room // len(drafting_works), price)

    def _note_callers(self, now: float) -> None:
        """Note who is about: has something running that he waits for, or had until a moment ago; each gets a share."""
        about = self._about | dict.fromkeys([r.ticket.caller for r in self._running if not r.ticket.behind], now)
        self._about = {
            caller: at for caller, at in about.items() if now - at < _ABOUT_S
        }  # never changed, see others_about
        most = _SAVED * self._share_tokens
        saved = {caller: self._saved.get(caller, most) + self._share_tokens for caller in self._about}
        self._saved = {caller: min(tokens, most) for caller, tokens in saved.items()}

    def _remove(self, running: Running) -> None:
        """The request has ended well or was given up: its slot keeps what it holds."""
        self._running.remove(running)
        self._slots.release(running.slot)


def _shared_out(
    prompts: list[tuple[int, Running]], budget: int, most: Mapping[str | None, int]
) -> list[tuple[int, Running]]:
    """How many of the tokens missing of each prompt a step computes, `budget` together.

    `most` are those of a caller, if it has him. Callers get equal shares, and what one does not need goes to the others
    (max-min fairness). Of one caller's prompts the shortest comes first, so that a label need not wait for a long text,
    but none is passed over for ever.
    """
    of_caller = defaultdict[str | None, list[tuple[int, Running]]](list)
    for count, running in sorted(prompts, key=lambda item: (item[1].passed_over < _PATIENCE, item[0])):
        of_caller[running.ticket.caller].append((count, running))
    # However long one's prompts have been passed over for his own: he has had his share all the time.
    least_first = sorted(of_caller.items(), key=lambda item: _total(item[1]))
    shares = []
    for place, (caller, group) in enumerate(least_first):
        share = math.ceil(budget / (len(least_first) - place))
        share = min(share, most.get(caller, share))
        for count, running in group:
            taken = min(count, share)
            share, budget = share - taken, budget - taken
            running.passed_over = 0 if taken else running.passed_over + 1
            if taken:
                shares.append((taken, running))
    return shares


def _total(group: list[tuple[int, Running]]) -> int:
    return sum(count for count, _ in group)


def _why(ticket: Ticket) -> QaioError:
    """Why a request is given up."""
    return Cancelled() if ticket.cancelled else DeadlineExceeded()


def _cut(slot: Slot, sequence: list[int]) -> None:
    """Cut the slot to the prefix it shares with `sequence`, whose last token at least is left to compute."""
    common = min(len(slot.tokens), len(sequence) - 1)
    if slot.tokens[:common] != sequence[:common]:  # seldom: a reply only ever grows
        common = common_prefix(slot.tokens, sequence)
    del slot.tokens[common:]
