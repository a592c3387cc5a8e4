"""Who comes in: never more than there are ranks, one place for a whole request, and nobody whose time cannot do."""

from __future__ import annotations

import math
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from qwen_allinone.engine import Admission, Permit, Ticket
from qwen_allinone.errors import QaioError, ServerBusy
from tests.support.clock import Clock
from tests.support.fake_model import generate


def enter(admission: Admission[None], deadline: float = math.inf) -> Permit[None]:
    return admission.enter(deadline, None)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(1000.0)
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


def answer(permit: Permit) -> None:
    """The request got what it asked for and ends."""
    with permit:
        ticket = Ticket(generate([1], 1))
        permit.hold(ticket)
        ticket.future.set_result(None)  # type: ignore[arg-type]


def busy_line(clock: Clock, interval: float, slots: int = 2, waiting: int = 18) -> Admission:
    """All places taken, and a request ended every `interval` seconds for a while."""
    admission = Admission(slots, waiting)
    inside = [enter(admission) for _ in range(slots + waiting)]
    for _ in range(60):
        clock.now += interval
        answer(inside.pop(0))
        inside.append(enter(admission))
    return admission


@pytest.mark.parametrize(("slots", "waiting"), [(2, 3), (1, 0), (4, 0)])
def test_there_are_as_many_places_as_slots_and_waiters(slots: int, waiting: int) -> None:
    admission = Admission(slots, waiting)
    permits = [enter(admission) for _ in range(slots + waiting)]
    assert ((admission.limit - admission.inside), admission.inside) == (0, slots + waiting)
    with pytest.raises(ServerBusy) as caught:
        enter(admission)
    assert caught.value.status == 503 and caught.value.retry_after == 2
    answer(permits[0])
    enter(admission)
    with pytest.raises(ServerBusy):
        enter(admission)


def test_one_caller_alone_leaves_places_for_another() -> None:
    admission = Admission[None](8, 32)
    while True:
        try:
            admission.enter(math.inf, None, "alice")
        except ServerBusy:
            break
    assert admission.inside == 32, "eight of the forty places are kept"
    for _ in range(200):
        with admission.enter(math.inf, None, "bob"):
            pass
    assert admission.inside == 32


def test_places_that_are_kept_go_to_who_holds_few_and_callers_without_names_may_have_all() -> None:
    admission = Admission[None](2, 8)
    for _ in range(8):
        admission.enter(math.inf, None, "alice")
    admission.enter(math.inf, None, "bob")
    admission.enter(math.inf, None, "bob")
    for name in ("alice", "bob", "carol"):
        with pytest.raises(ServerBusy):
            admission.enter(math.inf, None, name)
    unnamed = Admission[None](2, 8)
    for _ in range(10):
        unnamed.enter(math.inf, None)
    assert unnamed.inside == unnamed.limit


def places_taken(admission: Admission[None], caller: str) -> int:
    """How many places `caller` gets before it is refused."""
    for count in range(100):
        try:
            admission.enter(math.inf, None, caller)
        except ServerBusy:
            return count
    return 100


def test_the_places_kept_for_others_are_shared_out_as_slots_are() -> None:
    one: Admission[None] = Admission(8, 32, {"alice": 3})
    assert places_taken(one, "bob") == 32 and places_taken(one, "alice") == 8
    two: Admission[None] = Admission(8, 32, {"alice": 3})
    assert places_taken(two, "alice") == 32, "eight are kept whatever the share"
    heavy: Admission[None] = Admission(8, 32, {"bob": 2})
    for _ in range(16):
        heavy.enter(math.inf, None, "bob")
    assert [places_taken(heavy, name) for name in ("carol", "bob")] == [16, 4]


def test_a_raised_request_is_not_held_to_the_whole_line(clock: Clock) -> None:
    admission = busy_line(clock, interval=1.0)
    admission.leave(None, answered=False)  # one place is free
    with pytest.raises(ServerBusy):
        enter(admission, clock.now + 0.5)
    assert admission.enter(clock.now + 0.5, None, priority=1).priority == 1


def test_never_more_come_in_than_there_are_places_however_they_push() -> None:
    admission = Admission(3, 4)
    most = [0]
    refused = [0]

    def come(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(300):
            try:
                permit = enter(admission)
            except ServerBusy:
                refused[0] += 1
                continue
            most[0] = max(most[0], admission.inside)
            if rng.random() < 0.5:
                time.sleep(0)
            answer(permit)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(come, range(16)))
    assert most[0] == 7 and refused[0] > 0
    assert admission.inside == 0


def test_requests_are_ranked_in_order_of_admission() -> None:
    admission = Admission(4, 4)
    ranks = [enter(admission).rank for _ in range(8)]
    assert ranks == sorted(set(ranks))


def test_a_request_that_asked_nothing_gives_its_place_back() -> None:
    admission = Admission(1, 0)
    for _ in range(3):
        with pytest.raises(ValueError), enter(admission):
            raise ValueError
    assert admission.inside == 0


def test_a_caller_that_stops_waiting_keeps_its_place_until_the_engine_has_let_go() -> None:
    admission = Admission(1, 0)
    ticket = Ticket(generate([1], 1))
    with enter(admission) as permit:
        permit.hold(ticket)
    assert ticket.cancelled and admission.inside == 1
    ticket.fail(QaioError())
    assert admission.inside == 0


def test_cancelling_reaches_what_is_asked_now_and_what_is_asked_later() -> None:
    permit = enter(Admission(1, 0))
    first, second = Ticket(generate([1], 1)), Ticket(generate([2], 1))
    permit.hold(first)
    permit.cancel()
    assert permit.cancelled and first.cancelled
    permit.hold(second)
    assert second.cancelled


def test_who_could_not_be_answered_in_time_is_refused_at_once(clock: Clock) -> None:
    admission = busy_line(clock, interval=1.0)
    admission.leave(None, answered=False)  # one place is free, 17 wait
    for seconds in (0.5, 2.0, 5.0):
        with pytest.raises(ServerBusy) as caught:
            enter(admission, clock.now + seconds)
        assert caught.value.retry_after is not None and 1 <= caught.value.retry_after <= 30
    enter(admission, clock.now + 40.0)


def test_a_limit_that_might_just_do_is_given_its_chance(clock: Clock) -> None:
    """18 s is what the line seems to take; half of it could be enough."""
    admission = busy_line(clock, interval=1.0)
    admission.leave(None, answered=False)
    enter(admission, clock.now + 10.0)


def test_nobody_is_refused_for_time_where_a_slot_is_free(clock: Clock) -> None:
    admission = busy_line(clock, interval=5.0)
    for _ in range(19):
        admission.leave(None, answered=False)
    enter(admission, clock.now + 0.001)


def test_pauses_without_demand_do_not_count_as_slowness(clock: Clock) -> None:
    admission = busy_line(clock, interval=0.01)
    for _ in range(20):
        admission.leave(None, answered=True)
    clock.now += 3600
    inside = [enter(admission) for _ in range(19)]
    answer(inside.pop())
    enter(admission, clock.now + 1.0)


def test_the_time_to_come_back_follows_the_line(clock: Clock) -> None:
    quick, slow = busy_line(clock, interval=0.01), busy_line(clock, interval=60.0)
    assert quick.busy().retry_after == 2
    assert slow.busy().retry_after == 30
    middling = {busy_line(clock, interval=1.0).busy().retry_after for _ in range(50)}
    assert len(middling) > 1, "all would come back at once"
    assert all(value is not None and 6 <= value <= 13 for value in middling)


def test_a_crowd_is_spread_until_few_are_refused_for_those_answered(clock: Clock) -> None:
    """Eighty clients that obey, ten answers a second, twenty places: the wait of a refused one settles."""
    admission = Admission(2, 18)
    rng = random.Random(5)
    inside: list[Permit] = []
    comes = [clock.now + rng.random() for _ in range(80)]
    refused: list[float] = []
    for step in range(3000):
        clock.now = 1000.0 + step / 10
        if inside:
            answer(inside.pop(0))
            comes.append(clock.now)
        for due in [moment for moment in comes if moment <= clock.now]:
            comes.remove(due)
            try:
                inside.append(enter(admission))
            except ServerBusy as busy:
                assert busy.retry_after is not None
                refused.append(clock.now)
                comes.append(clock.now + busy.retry_after + rng.random())
    late = sum(moment > 1200 for moment in refused) / 1000
    assert 0.1 <= late <= 0.6, f"{late:.2f} refused for each answer"
    assert (admission.limit - admission.inside) <= 2, "places stay empty"
    for _ in range(300):  # the crowd has gone
        answer(inside.pop() if inside else enter(admission))
    assert admission.busy().retry_after == 2


def test_leaving_from_many_threads_leaves_nobody_inside() -> None:
    admission = Admission(8, 8)
    permits = [enter(admission) for _ in range(16)]
    threads = [threading.Thread(target=answer, args=(permit,)) for permit in permits]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert (admission.inside, (admission.limit - admission.inside)) == (0, 16)


def test_a_request_that_asks_for_much_at_once_keeps_its_place_until_all_of_it_has_ended() -> None:
    admission = Admission(2, 0)
    tickets = [Ticket(generate([1], 1)) for _ in range(3)]
    with enter(admission) as permit:
        for ticket in tickets:
            permit.hold(ticket)
        tickets[1].future.set_result(None)  # type: ignore[arg-type]
    assert [ticket.cancelled for ticket in tickets] == [True, False, True], "nobody waits for what is left"
    assert admission.inside == 1
    tickets[0].future.set_result(None)  # type: ignore[arg-type]
    assert admission.inside == 1
    tickets[2].future.set_exception(ServerBusy())
    assert admission.inside == 0


def test_giving_a_request_up_ends_all_that_it_asked_and_will_ask() -> None:
    tickets = [Ticket(generate([1], 1)) for _ in range(3)]
    with enter(Admission(2, 0)) as permit:
        permit.hold(tickets[0])
        permit.hold(tickets[1])
        permit.cancel()
        permit.hold(tickets[2])
        assert all(ticket.cancelled for ticket in tickets)


def test_what_nobody_waits_for_is_let_in_beside_a_full_house_and_takes_no_place() -> None:
    admission: Admission[None] = Admission(1, 0)
    with enter(admission), admission.enter_behind(math.inf, None, "alice") as behind:
        assert behind.behind and admission.inside == 1
    assert admission.inside == 0
    with admission.enter_behind(math.inf, None), enter(admission):
        assert admission.inside == 1
