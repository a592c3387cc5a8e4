"""What a step computes: decode before prefill, prompts in chunks, first come first served; how requests end."""

from __future__ import annotations

import random
import time

import pytest

from qwen_allinone.engine import FinishReason, Ticket, scheduler
from qwen_allinone.engine.slots import SlotTable
from qwen_allinone.errors import (
    Cancelled,
    DeadlineExceeded,
    EmptyInput,
    EngineFailed,
    EngineStuck,
    InputTooLong,
    NotReady,
    QaioError,
)
from tests.support.fake_model import Bench, classify, expected_label, expected_reply, generate

PAST = -1.0


def chunk_sizes(bench: Bench) -> list[int]:
    return [len(chunk.tokens) for chunk in bench.step()]


def check_failed(ticket: Ticket, kind: type[QaioError]) -> None:
    assert ticket.future.done()
    assert type(ticket.future.exception()) is kind


def test_a_reply_is_the_one_of_the_slow_loop() -> None:
    bench = Bench()
    ticket = bench.submit(generate([5, 6, 7], 10))
    bench.run()
    result = ticket.future.result(0)
    assert result.ids == expected_reply([5, 6, 7], 10)
    assert (result.finish_reason, result.prompt_tokens, result.reused_tokens) == (FinishReason.LENGTH, 3, 0)
    assert bench.model.forwarded == 3 + 9, "the last token needs no forward pass"


def test_a_stop_token_ends_a_reply_and_is_not_part_of_it() -> None:
    reply = expected_reply([5, 6, 7], 10)
    stop = frozenset({reply[4]})
    bench = Bench()
    ticket = bench.submit(generate([5, 6, 7], 10, stop))
    bench.run()
    result = ticket.future.result(0)
    assert result.finish_reason is FinishReason.STOP
    assert result.ids == expected_reply([5, 6, 7], 10, stop) == reply[: reply.index(reply[4])]


def test_the_first_token_is_never_a_stop() -> None:
    stop = frozenset(expected_reply([5, 6, 7], 1))
    bench = Bench()
    ticket = bench.submit(generate([5, 6, 7], 4, stop))
    bench.run()
    assert ticket.future.result(0).ids == expected_reply([5, 6, 7], 4, stop) != ()


def test_decoding_comes_before_prompts() -> None:
    bench = Bench(step_tokens=8)
    talking = bench.submit(generate([1, 2, 3], 20))
    bench.step()
    bench.submit(generate([9] * 20, 2))
    for _ in range(2):
        chunks = bench.step()
        assert [len(chunk.tokens) for chunk in chunks] == [1, 7]
        assert chunks[0].start == len(talking.work.tokens) - 2
    assert chunk_sizes(bench) == [1, 6]
    assert chunk_sizes(bench) == [1, 1], "both decode now"


def test_a_prompt_that_is_remembered_but_for_one_token_does_not_wait_behind_a_long_one() -> None:
    bench = Bench(step_tokens=8)
    bench.submit(generate([1, 2, 3], 1))
    bench.run()
    bench.submit(generate([9] * 30, 1))
    bench.submit(generate([1, 2, 3], 20))
    for _ in range(3):
        assert [(len(chunk.tokens), chunk.tokens[0] == 9) for chunk in bench.step()] == [(1, False), (7, True)]


def test_a_long_prompt_is_cut_so_that_no_step_is_longer_than_allowed() -> None:
    bench = Bench(step_tokens=8)
    ticket = bench.submit(generate([number % 50 for number in range(30)], 1))
    assert [chunk_sizes(bench) for _ in range(4)] == [[8], [8], [8], [6]]
    assert ticket.future.done()
    assert [(c[0].start, c[0].end) for c in bench.model.steps] == [(0, 8), (8, 16), (16, 24), (24, 30)]


def test_two_prompts_are_computed_in_order_of_arrival() -> None:
    bench = Bench(step_tokens=8)
    bench.submit(generate([1] * 10, 1))
    bench.submit(generate([2] * 10, 1))
    steps = [bench.step() for _ in range(3)]
    assert [[(chunk.tokens[0], len(chunk.tokens)) for chunk in chunks] for chunks in steps] == [
        [(1, 8)],
        [(1, 2), (2, 6)],
        [(2, 4)],
    ]


def test_requests_wait_in_order_of_arrival() -> None:
    bench = Bench(slots=1)
    tickets = [bench.submit(generate([number], 2)) for number in (1, 2, 3)]
    finished = []
    while bench.scheduler.running or bench.scheduler.waiting:
        bench.step()
        finished += [i for i, t in enumerate(tickets) if t.future.done() and i not in finished]
    assert finished == [0, 1, 2]


def test_a_long_request_at_the_head_is_waited_for_not_overtaken() -> None:
    bench = Bench(slots=3, context=64, kv_tokens=64)
    bench.submit(generate([1, 2], 30))
    bench.step()
    long = bench.submit(generate([3, 4], 60))
    short = bench.submit(generate([5, 6], 1))
    for _ in range(20):
        bench.step()
    assert bench.scheduler.waiting == 2 and not short.future.done()
    bench.run()
    assert long.future.result(0).ids == expected_reply([3, 4], 60)


def test_what_an_older_request_asks_next_comes_before_what_younger_ones_ask() -> None:
    """A chat asks twice: its reply does not go to the end of the line."""
    bench = Bench(slots=1)
    bench.submit(generate([9], 2), rank=1)
    bench.step()
    younger = [bench.submit(generate([number], 2), rank=number) for number in (4, 5)]
    older = bench.submit(generate([3], 2), rank=3)
    finished = []
    while bench.scheduler.running or bench.scheduler.waiting:
        bench.step()
        finished += [t for t in (*younger, older) if t.future.done() and t not in finished]
    assert finished == [older, *younger]


def test_who_has_fewer_slots_comes_first_however_many_another_has_in_line() -> None:
    bench = Bench(slots=2)
    crowd = [bench.submit(generate([number], 4), rank=number, caller="alice") for number in range(6)]
    bench.step()
    late = bench.submit(generate([9], 4), rank=9, caller="bob")
    finished = []
    while not late.future.done():
        bench.step()
        finished += [ticket for ticket in crowd if ticket.future.done() and ticket not in finished]
    assert set(finished) <= set(crowd[:3]), "those that had a slot already, and one that got the other slot"
    bench.run()
    assert all(ticket.future.done() for ticket in crowd)


def held(bench: Bench, tickets: dict[str, list[Ticket]]) -> dict[str, int]:
    """How many slots each caller has."""
    return {
        caller: sum(bool(ticket.started) and not ticket.future.done() for ticket in own)
        for caller, own in tickets.items()
    }


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ({}, {"alice": 4, "bob": 4}),
        ({"alice": 3}, {"alice": 6, "bob": 2}),
        ({"alice": 1, "bob": 7}, {"alice": 2, "bob": 6}),  # bob leaves room for another, and for one who may come
        ({"alice": 2, "bob": 2}, {"alice": 4, "bob": 4}),
    ],
)
def test_while_callers_wait_slots_are_theirs_in_proportion_to_their_shares(
    shares: dict[str, int], expected: dict[str, int]
) -> None:
    bench = Bench(slots=8, kv_tokens=1024, step_tokens=64, shares=shares)
    tickets: dict[str, list[Ticket]] = {"alice": [], "bob": []}
    for number in range(40):  # alice's come first, all of them
        tickets["alice"].append(bench.submit(generate([number], 3 + number % 4), rank=number, caller="alice"))
    bench.step()
    for number in range(40):
        tickets["bob"].append(bench.submit(generate([number], 3 + number % 4), rank=40 + number, caller="bob"))
    for _ in range(8):  # what alice had begun alone has ended
        bench.step()
    for _ in range(10):
        bench.step()
        bench.scheduler._start_waiting()  # whoever has ended has made room
        assert held(bench, tickets) == expected
    bench.run()


def test_a_share_that_its_caller_does_not_use_is_the_others() -> None:
    bench = Bench(slots=8, kv_tokens=1024, shares={"alice": 100})
    for number in range(7):
        bench.submit(generate([number], 9), rank=number, caller="bob")
    bench.step()
    assert bench.scheduler.running == 7, "all but the slot that is kept for others"
    hers = bench.submit(generate([9], 2), rank=9, caller="alice")
    bench.step()
    assert hers.started


@pytest.mark.parametrize(("percent", "expected"), [(1, 1), (25, 2), (50, 4), (87, 7), (100, 7)])
def test_a_caller_has_at_most_his_part_of_the_slots_also_where_nobody_else_asks(percent: int, expected: int) -> None:
    bench = Bench(slots=8, kv_tokens=1024, caller_slots=percent)
    tickets = [bench.submit(generate([number], 2), rank=number, caller="bob") for number in range(9)]
    bench.step()
    assert bench.scheduler.running == expected, "one is always left to others; and who has none is never kept waiting"
    while not all(ticket.future.done() for ticket in tickets):
        bench.step()


def test_a_higher_priority_comes_before_whoever_waits_and_equal_ones_in_order() -> None:
    bench = Bench(slots=1)
    bench.submit(generate([1], 3))
    bench.step()
    first, second = (bench.submit(generate([number], 2), rank=number) for number in (2, 3))
    raised = [
        bench.submit(generate([10 + n], 2), rank=10 + n, priority=priority) for n, priority in enumerate((5, 9, 5))
    ]
    order: list[Ticket] = []
    while bench.scheduler.running or bench.scheduler.waiting:
        bench.step()
        order += [t for t in (first, second, *raised) if t.future.done() and t not in order]
    assert order == [raised[1], raised[0], raised[2], first, second]


def test_no_priority_takes_the_slot_that_is_kept_for_other_callers() -> None:
    bench = Bench(slots=4)
    crowd = [bench.submit(generate([number], 9), rank=number, caller="alice", priority=9) for number in range(8)]
    bench.step()
    assert bench.scheduler.running == 3
    his = bench.submit(generate([9], 2), rank=9, caller="bob")
    bench.step()
    assert his.started and not all(ticket.started for ticket in crowd)


def test_priority_is_nothing_to_what_nobody_waits_for() -> None:
    bench = Bench(slots=1)
    bench.submit(generate([1], 2))
    bench.step()
    behind = bench.submit(generate([2], 2), rank=1, behind=True, priority=9)
    plain = bench.submit(generate([3], 2), rank=2)
    while not plain.future.done():
        bench.step()
    assert not behind.future.done()


def test_callers_share_a_step_and_what_one_does_not_need_goes_to_the_other() -> None:
    bench = Bench(step_tokens=8, share_tokens=2)
    bench.submit(generate([1] * 28, 1), caller="alice")
    bench.submit(generate([2] * 28, 1), caller="alice")
    bench.step()
    bench.submit(generate([3] * 6, 1), caller="bob")
    steps = [[(chunk.tokens[0], len(chunk.tokens)) for chunk in bench.step()] for _ in range(2)]
    assert steps == [[(3, 4), (1, 2)], [(3, 2), (1, 2)]], "half of a step is bob's; a share of what is left is alice's"


def test_what_a_caller_saves_goes_at_once_and_is_a_few_shares() -> None:
    bench = Bench(slots=4, context=512, kv_tokens=2048, step_tokens=256)
    bench.submit(generate([1] * 500, 1), caller="alice")
    bench.step()
    bench.submit(generate([2] * 200, 1), caller="bob")
    assert [chunk_sizes(bench) for _ in range(3)] == [[64, 16], [16, 16], [16, 16]], "bob has not had anything before"


def test_a_caller_with_many_prompts_gets_no_more_for_those_that_are_passed_over() -> None:
    bench = Bench(slots=8, context=512, kv_tokens=4096, step_tokens=256)
    for number in range(6):
        bench.submit(generate([number] * 300, 1), rank=number, caller="alice")
    bench.step()
    for number in range(40):
        bench.submit(classify([60 + number % 30], [[1], [2]]), rank=10 + number, caller="bob")
        assert sum(chunk_sizes(bench)) == 16 + 1


def test_one_callers_prompts_take_a_share_of_a_step_while_another_is_about(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(step_tokens=16, share_tokens=4)
    bench.submit(generate([1] * 60, 1), caller="alice")
    assert chunk_sizes(bench) == [16], "nobody else is there"
    bench.submit(generate([2] * 2, 1), caller="bob")
    assert chunk_sizes(bench) == [2, 4]
    assert chunk_sizes(bench) == [4], "bob may well ask again"
    monkeypatch.setattr(scheduler, "_ABOUT_S", 0.0)
    assert chunk_sizes(bench) == [16], "he has left"


def test_a_short_request_waits_for_two_short_steps_however_much_another_asks() -> None:
    """As many tokens as are computed from the worst moment it may come, right behind the start of a step, to its end."""
    bench = Bench(slots=8, context=512, kv_tokens=4096, step_tokens=256)
    # Carol's replies, alice's many and long prompts, and bob, who asks again and again.
    talking = bench.submit(generate([1, 2, 3], 400), caller="carol")
    bench.step()
    for number in range(12):
        bench.submit(generate([10 + number] * 400, 1), rank=number, caller="alice")
    assert sum(chunk_sizes(bench)) == 1 + 64, "alice has not had anything before"
    waits = []
    for number in range(50):
        ahead = sum(chunk_sizes(bench))  # the step that is under way when it comes
        label = bench.submit(classify([60 + number % 30, 2, 3], [[1], [2]]), rank=100 + number, caller="bob")
        own = 0
        while not label.future.done():
            own += sum(chunk_sizes(bench))
        waits.append((ahead, own))
    assert max(waits) == (1 + 16, 1 + 16 + 3), "carol's token, alice's share, and its own three"
    assert len(talking.work.tokens) >= 3 + 100, "a reply gets its token in each of these steps"


def test_what_one_caller_computes_beside_another_is_told_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    assert not bench.scheduler.others_about("alice")
    bench.submit(generate([1], 1), caller="bob")
    bench.submit(generate([2], 1), caller="carol", behind=True)
    bench.run()
    assert bench.scheduler.others_about("alice") and bench.scheduler.others_about("carol")
    assert not bench.scheduler.others_about("bob"), "nobody waits for carol's"
    monkeypatch.setattr(scheduler, "_ABOUT_S", 0.0)
    assert not bench.scheduler.others_about("alice")


def test_a_caller_who_could_take_all_leaves_a_slot_and_memory_to_others() -> None:
    for slots, kv_tokens in ((4, 256), (8, 100)):
        bench = Bench(slots=slots, kv_tokens=kv_tokens)
        crowd = [bench.submit(generate([number], 20), rank=number, caller="alice") for number in range(6)]
        bench.step()
        assert bench.scheduler.running == 3, "four slots but one; three quarters of 100 tokens"
        label = bench.submit(classify([9, 8], [[1], [2]]), rank=9, caller="bob")
        bench.step()
        assert label.future.done()
        bench.run()
        assert all(ticket.future.done() for ticket in crowd)


def test_a_caller_leaves_a_slot_to_each_other_who_is_about_and_one_more() -> None:
    for others, most in ((0, 7), (1, 6), (2, 5), (3, 4), (4, 4)):
        bench = Bench(slots=8, kv_tokens=4096)
        for number in range(others):
            bench.submit(generate([number], 1), caller=f"other {number}")
        bench.run()
        for number in range(8):
            bench.submit(generate([number], 20), rank=number, caller="alice")
        bench.step()
        assert bench.scheduler.running == most, f"beside {others} others"


def test_without_callers_to_tell_apart_all_slots_are_used() -> None:
    bench = Bench(slots=4)
    for number in range(4):
        bench.submit(generate([number], 4))
    bench.step()
    assert bench.scheduler.running == 4


def test_a_caller_who_has_nothing_is_never_kept_waiting_for_those_who_may_come() -> None:
    bench = Bench(slots=1, kv_tokens=32)
    ticket = bench.submit(generate([1], 31), caller="alice")
    bench.step()
    assert bench.scheduler.running == 1
    bench.run()
    assert ticket.future.done()


def test_a_short_prompt_does_not_wait_for_a_long_one_of_the_same_caller() -> None:
    bench = Bench(step_tokens=8)
    bench.submit(generate([1] * 40, 1))
    bench.step()
    short = bench.submit(generate([2] * 6, 1))
    bench.step()
    assert short.future.done()


def test_a_long_prompt_is_passed_over_for_a_while_only() -> None:
    bench = Bench(step_tokens=8)
    long = bench.submit(generate([1] * 24, 1))
    bench.step()
    for number in range(2, 30):
        bench.submit(generate([number] * 8, 1))
        bench.step()
        if long.future.done():
            break
    assert 8 < number < 29, "after eight steps it has one, and so on"


def test_abandoning_ends_everything_while_a_step_is_computed() -> None:
    bench = Bench(slots=1)
    running, waiting = (bench.submit(generate([number], 5)) for number in (1, 2))
    bench.step()
    ended: list[bool] = []

    def abandon(_: object) -> None:
        bench.scheduler.abandon(EngineStuck())
        ended.extend(ticket.future.done() for ticket in (running, waiting))

    bench.model.before = abandon
    bench.step()  # delivers a token to a request that has ended, and must not stumble over it
    assert ended == [True, True]
    for ticket in (running, waiting):
        check_failed(ticket, EngineStuck)
    bench.model.before = None
    bench.step()
    assert (bench.scheduler.running, bench.scheduler.waiting, bench.slots.busy) == (0, 0, 0)
    with pytest.raises(EngineStuck):
        bench.submit(generate([4], 5))


def test_an_answer_that_comes_after_its_request_was_ended_is_dropped() -> None:
    bench = Bench(slots=1)
    ticket = bench.submit(generate([1], 1))
    bench.model.before = lambda _: bench.scheduler.abandon(EngineStuck())
    bench.step()
    check_failed(ticket, EngineStuck)
    assert (bench.scheduler.running, bench.slots.busy) == (0, 0)


@pytest.mark.parametrize(("prompt", "reply", "fits"), [(54, 10, True), (55, 10, False), (1, 64, False), (63, 1, True)])
def test_a_request_that_could_never_fit_is_refused_at_once(prompt: int, reply: int, fits: bool) -> None:
    bench = Bench(context=64)
    work = generate([1] * prompt, reply)
    if fits:
        ticket = bench.submit(work)
        bench.run()
        assert len(ticket.future.result(0).ids) == reply
    else:
        with pytest.raises(InputTooLong, match="64"):
            bench.submit(work)
        assert bench.scheduler.waiting == 0


def test_a_request_beyond_the_memory_is_refused_even_if_the_context_would_take_it() -> None:
    bench = Bench(context=64, kv_tokens=40)
    with pytest.raises(InputTooLong, match="40"):
        bench.submit(generate([1] * 31, 10))


def test_a_request_of_nothing_is_refused() -> None:
    """There is no token to compute logits after: it would wait for ever."""
    bench = Bench()
    with pytest.raises(EmptyInput):
        bench.submit(generate([], 5))
    assert bench.scheduler.waiting == 0


def test_a_request_that_waits_past_its_deadline_is_never_computed() -> None:
    bench = Bench(slots=1)
    running = bench.submit(generate([1, 2, 3], 5))
    bench.step()
    late = bench.submit(generate([4, 5, 6], 5), deadline=time.monotonic() + 0.01)
    time.sleep(0.02)
    bench.run()
    check_failed(late, DeadlineExceeded)
    assert running.future.result(0).ids == expected_reply([1, 2, 3], 5)
    assert bench.model.forwarded == 3 + 4, "only the first request's tokens"


def test_a_request_submitted_past_its_deadline_is_never_computed() -> None:
    bench = Bench()
    ticket = bench.submit(generate([1, 2, 3], 5), deadline=time.monotonic() + PAST)
    assert bench.step() == []
    check_failed(ticket, DeadlineExceeded)
    assert bench.model.forwarded == 0 and bench.slots.busy == 0


def test_a_running_request_ends_at_its_deadline() -> None:
    bench = Bench()
    ticket = bench.submit(generate([1, 2, 3], 50), deadline=time.monotonic() + 60)
    bench.step()
    assert not ticket.future.done()
    ticket.deadline = time.monotonic()
    assert bench.step() == []
    check_failed(ticket, DeadlineExceeded)
    assert bench.slots.busy == bench.scheduler.running == 0


@pytest.mark.parametrize("steps", [0, 1, 2, 6], ids=["waiting", "in prefill", "at the first token", "decoding"])
def test_a_cancelled_request_frees_its_slot_within_two_steps(steps: int) -> None:
    bench = Bench(slots=1, step_tokens=4)
    ticket = bench.submit(generate([1, 2, 3, 4, 5, 6], 30))
    follower = bench.submit(generate([7, 8], 2))
    for _ in range(steps):
        bench.step()
    ticket.cancel()
    before = bench.model.forwarded
    bench.step()
    check_failed(ticket, Cancelled)
    assert bench.model.forwarded - before == 2, "the follower's prompt and nothing of the cancelled request"
    bench.run()
    assert follower.future.result(0).ids == expected_reply([7, 8], 2)


def test_what_a_cancelled_request_computed_is_reused() -> None:
    bench = Bench(slots=1, step_tokens=4)
    ticket = bench.submit(generate([1, 2, 3, 4, 5, 6, 7, 8, 9], 30))
    bench.step()
    ticket.cancel()
    again = bench.submit(generate([1, 2, 3, 4, 5, 6, 7, 8, 9], 3))
    bench.run()
    assert again.future.result(0).reused_tokens == 4
    assert again.future.result(0).ids == expected_reply([1, 2, 3, 4, 5, 6, 7, 8, 9], 3)


def test_a_cancelled_waiter_leaves_the_line_to_the_others() -> None:
    bench = Bench(slots=1)
    first, second, third = (bench.submit(generate([number], 3)) for number in (1, 2, 3))
    second.cancel()
    bench.step()
    check_failed(second, Cancelled)
    bench.run()
    assert bench.model.forwarded == 2 * 3
    assert [t.future.result(0).ids for t in (first, third)] == [expected_reply([1], 3), expected_reply([3], 3)]


def test_failing_what_runs_spares_what_waits() -> None:
    bench = Bench(slots=2)
    running = [bench.submit(generate([number, 9], 5)) for number in (1, 2)]
    waiting = bench.submit(generate([3, 9], 5))
    bench.step()
    assert bench.scheduler.fail_running(EngineFailed()) == 2
    for ticket in running:
        check_failed(ticket, EngineFailed)
    assert (bench.scheduler.running, bench.scheduler.waiting, bench.slots.busy) == (0, 1, 0)
    bench.run()
    assert waiting.future.result(0).ids == expected_reply([3, 9], 5)


def test_what_a_failed_step_left_in_a_slot_is_not_trusted() -> None:
    bench = Bench(slots=1)
    bench.submit(generate([1, 2, 3, 4], 5))
    bench.step()
    bench.scheduler.fail_running(EngineFailed())
    again = bench.submit(generate([1, 2, 3, 4], 5))
    bench.run()
    assert again.future.result(0).reused_tokens == 0
    assert again.future.result(0).ids == expected_reply([1, 2, 3, 4], 5)


def test_closing_ends_everything_and_refuses_what_comes_later() -> None:
    bench = Bench(slots=1)
    tickets = [bench.submit(generate([number], 5)) for number in (1, 2, 3)]
    bench.step()
    bench.scheduler.close(NotReady())
    for ticket in tickets:
        check_failed(ticket, NotReady)
    assert (bench.scheduler.running, bench.scheduler.waiting, bench.slots.busy) == (0, 0, 0)
    with pytest.raises(NotReady):
        bench.submit(generate([4], 5))


def test_waiting_for_work_ends_when_there_is_some() -> None:
    bench = Bench()
    began = time.monotonic()
    assert bench.scheduler.wait_for_work(0.05) is False
    assert time.monotonic() - began >= 0.05
    bench.submit(generate([1], 1))
    assert bench.scheduler.wait_for_work(60) is True


def test_labels_with_different_first_tokens_take_one_pass() -> None:
    labels = [(7,), (8, 1), (9,)]
    bench = Bench()
    ticket = bench.submit(classify([1, 2, 3], labels))
    bench.run()
    result = ticket.future.result(0)
    assert result.label == expected_label([1, 2, 3], labels)
    assert result.finish_reason is FinishReason.LABEL and result.ids == labels[result.label]
    assert sum(result.probabilities) == pytest.approx(1.0, abs=1e-5)
    assert [[len(chunk.tokens) for chunk in chunks] for chunks in bench.model.steps] == [[3]]


@pytest.mark.parametrize(
    "labels",
    [
        [(7, 1), (7, 2), (8, 1)],
        [(7, 7, 1), (7, 7, 2)],
        [(1, 2, 3, 4), (1, 2, 3, 5), (1, 2, 6), (1, 7, 3), (9, 9)],
        [(5, 1, 1), (5, 1, 2), (5, 2, 1), (5, 2, 2), (6, 1, 1), (6, 1, 2)],
    ],
)
def test_labels_that_share_tokens_go_along_the_trie(labels: list[tuple[int, ...]]) -> None:
    for prompt in ([1, 2, 3], [7], [40, 41, 42, 43, 44]):
        bench = Bench()
        ticket = bench.submit(classify(prompt, labels))
        bench.run()
        assert ticket.future.result(0).label == expected_label(prompt, labels)
        passes = len(bench.model.steps)
        assert bench.model.forwarded <= len(prompt) + passes * 3, "the prompt is computed once"


def test_a_second_turn_computes_only_what_is_new() -> None:
    bench = Bench()
    first = bench.submit(generate([1, 2, 3, 4, 5], 6))
    bench.run()
    history = [1, 2, 3, 4, 5, *first.future.result(0).ids]
    before = bench.model.forwarded
    second = bench.submit(generate([*history, 50, 51], 4))
    bench.run()
    result = second.future.result(0)
    assert result.ids == expected_reply([*history, 50, 51], 4)
    # The last token of the first reply was never computed.
    assert result.reused_tokens == len(history) - 1
    assert bench.model.forwarded - before == 1 + 2 + 3


def test_times_of_a_result_add_up() -> None:
    bench = Bench(slots=1)
    began = time.monotonic()
    bench.submit(generate([1], 2))
    ticket = bench.submit(generate([2], 2))
    time.sleep(0.02)
    bench.run()
    took = time.monotonic() - began
    result = ticket.future.result(0)
    assert result.queue_s >= 0.02 and result.prefill_s >= 0 and result.decode_s >= 0
    assert result.queue_s + result.prefill_s + result.decode_s <= took


def test_every_reply_gets_a_token_in_each_step_when_all_slots_decode() -> None:
    """Slots may be as many as the tokens of a step; settings see to it that they are not more."""
    bench = Bench(slots=16, context=64, kv_tokens=64 * 16, step_tokens=16)
    tickets = [bench.submit(generate([number], 40)) for number in range(16)]
    for step in range(8):
        bench.step()
        assert {len(ticket.work.tokens) for ticket in tickets} == {step + 2}


@pytest.mark.parametrize("seed", range(6))
def test_a_random_life_gives_every_request_the_slow_loops_answer(seed: int) -> None:
    """Prompts with common beginnings, texts and labels, cancels and deadlines, under several sizes."""
    rng = random.Random(seed)
    bench = Bench(
        slots=rng.choice([1, 2, 5]), kv_tokens=rng.choice([64, 100, 400]), step_tokens=rng.choice([16, 32])
    )  # fmt: skip
    stem = [rng.randrange(97) for _ in range(12)]
    expected: list[tuple[Ticket, object]] = []
    given_up: list[Ticket] = []
    for number in range(60):
        prompt = stem[: rng.randint(1, 12)] + [rng.randrange(97) for _ in range(rng.randint(0, 30))]
        if rng.random() < 0.4:
            labels = rng.choice([[(1,), (2,)], [(1, 2), (1, 3)], [(1, 2, 3), (1, 2, 4), (1, 5), (6,)]])
            expected.append(
                (bench.submit(classify(prompt, labels), caller=rng.choice("ab")), expected_label(prompt, labels))
            )
        else:
            count = rng.randint(1, 15)
            stop = frozenset(rng.sample(range(97), 5))
            expected.append(
                (
                    bench.submit(generate(prompt, count, stop), caller=rng.choice("ab")),
                    expected_reply(prompt, count, stop),
                )
            )
        if rng.random() < 0.15:
            given_up.append(expected[-1][0])
        if number % 3 == 0:
            bench.step()
        if given_up and rng.random() < 0.5:
            given_up.pop().cancel()
    bench.run(5000)
    for ticket, answer in expected:
        if ticket.cancelled and ticket.future.exception(0):
            check_failed(ticket, Cancelled)
        else:
            result = ticket.future.result(0)
            assert (result.ids if result.label is None else result.label) == answer
    assert isinstance(bench.slots, SlotTable) and bench.slots.busy == 0


def test_what_nobody_waits_for_comes_after_all_others_whoever_has_the_fewest_slots() -> None:
    bench = Bench(slots=3)
    bench.submit(generate([1], 20), rank=0, caller="alice")
    behind = bench.submit(generate([2], 5), rank=1, caller="bob", behind=True)
    waiting = [bench.submit(generate([3 + n], 20), rank=2 + n, caller=None) for n in range(2)]
    bench.step()
    assert all(ticket.started for ticket in waiting) and not behind.started
    bench.run()
    assert behind.future.result(0).ids == expected_reply([2], 5)


def test_what_nobody_waits_for_gives_up_its_slot_the_youngest_first() -> None:
    bench = Bench(slots=2)
    older = bench.submit(generate([1], 30), rank=0, behind=True)
    younger = bench.submit(generate([2], 30), rank=1, behind=True)
    bench.step()
    waiting = bench.submit(generate([3], 4), rank=2)
    bench.step()
    bench.step()
    check_failed(younger, Cancelled)
    assert waiting.started and not older.future.done()
    bench.run()
    assert waiting.future.result(0).ids == expected_reply([3], 4)
    assert older.future.result(0).ids == expected_reply([1], 30)


def test_a_caller_does_not_wait_for_his_own_batch() -> None:
    bench = Bench(slots=2)
    behind = bench.submit(generate([1], 30), rank=0, caller="alice", behind=True)
    bench.step()
    waiting = bench.submit(generate([2], 4), rank=1, caller="alice")
    for _ in range(3):
        bench.step()
    check_failed(behind, Cancelled)
    assert waiting.started
    bench.run()


def test_nor_does_he_where_the_next_in_line_is_another_batch_that_finds_no_room() -> None:
    bench = Bench(slots=8, kv_tokens=160)
    behind = [bench.submit(generate([n], 44), rank=n, caller="alice", behind=True) for n in range(2)]
    bench.submit(generate([9], 44), rank=2, caller="bob", behind=True)
    bench.step()
    bench.submit(generate([8], 44), rank=3, caller="bob", behind=True)
    waiting = bench.submit(generate([2], 36), rank=4, caller="alice")
    for _ in range(4):
        bench.step()
    check_failed(behind[1], Cancelled)
    assert waiting.started and not behind[0].future.done()
    bench.run()


def test_a_prompt_that_nobody_waits_for_gets_what_is_left_of_a_step_and_a_share_at_most() -> None:
    bench = Bench(slots=3, step_tokens=16, share_tokens=4)
    bench.submit(generate([1], 40), rank=0)
    bench.step()
    bench.submit(generate(range(40), 1), rank=1, behind=True)
    assert sorted(chunk_sizes(bench)) == [1, 4]
    bench.submit(generate(range(50, 90), 1), rank=2)
    assert sorted(chunk_sizes(bench)) == [1, 15], "the other prompt takes all there is"
