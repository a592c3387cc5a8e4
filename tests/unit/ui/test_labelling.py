"""Many texts over real HTTP: how many at a time, what a refusal does, when a run is given up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from tests.e2e.conftest import free_port
from tests.support.relay import Planted, Relay, relay
from ui import labelling
from ui.client import Api, Task
from ui.labelling import Labelling, Outcome

TASK = Task("sentiment", "判断情感", "label", ("text",), ("正面", "负面"), detail=True)
PATH = "/v1/tasks/sentiment"


def good(label: str = "正面", pause_s: float = 0.0) -> Planted:
    answer = {"label": label, "detail": {"probabilities": {label: 0.75}}}
    return Planted(200, json.dumps(answer).encode(), pause_s=pause_s)


def refused(status: int, after: str | None = None) -> Planted:
    body = json.dumps({"error": {"message": f"拒绝 {status}", "code": "refused"}}).encode()
    return Planted(status, body, {"Retry-After": after} if after else {})


def run(
    address: str, texts: list[str], *, parallel: int = 4, meanwhile: Callable[[Labelling], Any] | None = None
) -> Labelling:
    async def all_of_it() -> Labelling:
        api = Api(address)
        work = Labelling(api, TASK, texts, parallel)
        async with work.running() as running:
            while not running.done():
                await asyncio.wait({running}, timeout=0.02)
                if meanwhile:
                    meanwhile(work)
            running.result()
        await api.close()
        return work

    return asyncio.run(all_of_it())


def asked(front: Relay) -> list[str]:
    return [json.loads(seen.body)["text"] for seen in front.seen]


def test_no_more_requests_are_under_way_than_allowed_and_equal_texts_are_asked_once() -> None:
    texts = [f"第 {number} 条" for number in range(30)]
    with relay() as front:
        front.plant(PATH, good(pause_s=0.02))
        work = run(front.address, texts + texts, parallel=3)
        assert front.most_at_once == 3
        assert sorted(asked(front)) == sorted(texts)
        assert (work.done, work.total) == (60, 60)
        assert {work.outcome(text) for text in texts} == {Outcome("正面", 0.75)}


def test_a_refusal_holds_all_requests_for_as_long_as_the_service_says() -> None:
    with relay() as front:
        front.plant(PATH, refused(503, "1"), good())
        work = run(front.address, ["一", "二", "三"], parallel=1)
        assert asked(front) == ["一", "一", "二", "三"]
        assert front.seen[1].at - front.seen[0].at >= 1
        assert work.done == 3 and work.given_up is None


def test_a_caller_over_its_limit_waits_too() -> None:
    with relay() as front:
        front.plant(PATH, refused(429, "1"), refused(429, "0"), good())
        work = run(front.address, ["一"], parallel=1)
        assert front.seen[1].at - front.seen[0].at >= 1
        assert work.outcome("一") == Outcome("正面", 0.75)


def test_a_text_that_the_service_does_not_take_costs_only_its_row() -> None:
    with relay() as front:
        front.plant(PATH, refused(400), good())
        work = run(front.address, ["太长", "二"], parallel=1)
        assert (work.outcome("太长"), work.outcome("二")) == (Outcome(error="拒绝 400"), Outcome("正面", 0.75))
        assert work.done == 2


def test_a_key_that_does_not_hold_ends_the_run_and_keeps_what_there_is() -> None:
    with relay() as front:
        front.plant(PATH, good(), refused(401))
        work = run(front.address, ["一", "二", "三"], parallel=1)
        assert len(front.seen) == 2
        assert work.given_up is not None and "QWEN_UI_API_KEY" in work.given_up
        assert (work.outcome("一"), work.outcome("二"), work.done) == (Outcome("正面", 0.75), None, 1)


def test_a_service_that_stays_away_is_given_up(monkeypatch: Any) -> None:
    monkeypatch.setattr(labelling, "_UNREACHABLE_S", 0.3)
    monkeypatch.setattr(labelling, "_DEFAULT_RETRY_S", 0.1)
    work = run(f"http://127.0.0.1:{free_port()}", ["一", "二"])
    assert work.given_up is not None and "连不上服务" in work.given_up
    assert work.done == 0


def test_a_stop_lets_no_further_request_begin() -> None:
    with relay() as front:
        front.plant(PATH, good(pause_s=0.05))
        work = run(
            front.address, [str(n) for n in range(200)], parallel=2, meanwhile=lambda w: w.done >= 4 and w.stop()
        )
        assert 4 <= work.done < 100
        assert work.done <= len(front.seen) <= work.done + 2
