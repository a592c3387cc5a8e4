"""What one caller may learn of another: nothing, not even from what an answer saved. What he may take: a share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from qwen_allinone.access import keys
from qwen_allinone.engine import Pace
from tests.integration.conftest import Server, serve

SECRET = "我下个月要从研究所辞职，去青岛开一家卖海鲜面的小店，这件事还没有告诉任何人"
GUESSES = (SECRET, "我下个月要从研究所搬家，去杭州参加一个很长的培训班，这件事已经告诉了所有的人")


@pytest.fixture(scope="module")
def callers(demo_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str, str]]:
    """A server with one slot, so that a neighbour always gets the other's, and two keys."""
    file = tmp_path_factory.mktemp("access") / "keys"
    alice, bob = keys.add(file, "alice"), keys.add(file, "bob")
    environment = {"QAIO_MODEL": "demo", "QAIO_THREADS": "1", "QAIO_SLOTS": "1", "QAIO_API_KEYS_FILE": str(file)}
    with serve(environment) as start:
        yield start(), alice, bob


def cached(server: Server, key: str, text: str) -> int:
    """Tokens that a chat did not have to compute."""
    body = {"model": "demo", "messages": [{"role": "user", "content": text}], "max_tokens": 1, "temperature": 0}
    answer = server.client.post("/v1/chat/completions", json=body, headers={"X-API-Key": key})
    assert answer.status_code == 200
    return int(answer.get_json()["usage"]["prompt_tokens_details"]["cached_tokens"])


def reused(server: Server, key: str, text: str) -> int:
    headers = {"X-API-Key": key, "Cache-Control": "no-store"}
    answer = server.client.post("/v1/tasks/sentiment", json={"text": text, "detail": True}, headers=headers)
    assert answer.status_code == 200
    return int(answer.get_json()["detail"]["usage"]["reused_tokens"])


@pytest.mark.parametrize("figure", [cached, reused])
def test_a_right_guess_of_anothers_text_saves_no_more_than_a_wrong_one(
    callers: tuple[Server, str, str], figure: object
) -> None:
    server, alice, bob = callers
    assert callable(figure)
    seen = []
    for guess in GUESSES:
        figure(server, alice, SECRET)
        seen.append(figure(server, bob, guess))
    assert seen[0] == seen[1]


def test_ones_own_text_is_still_not_computed_twice(callers: tuple[Server, str, str]) -> None:
    server, alice, bob = callers
    first = cached(server, bob, SECRET)
    assert cached(server, bob, SECRET) > first + 10


JUNK = b'{"text": "a"' + b"".join(b',"%x":1' % number for number in range(104_000)) + b"}"


class Watched:
    """Stands where the clock and the sleep of the service's pace are: nothing passes but by sleeping."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, server: Server, others: set[str]) -> None:
        self.now, self.slept = 0.0, list[float]()
        pace = Pace(lambda caller: bool(others - {caller}), clock=lambda: self.now, sleep=self._sleep)
        for name in ("_others_about", "_clock", "_sleep", "_free_at"):
            monkeypatch.setattr(server.service.engine.pace, name, getattr(pace, name))

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def status(server: Server, key: str, body: bytes = JUNK) -> int:
    answer = server.client.post("/chat", data=body, headers={"X-API-Key": key, "Content-Type": "application/json"})
    return answer.status_code


def test_who_sends_large_bodies_for_nothing_rests_between_them(
    callers: tuple[Server, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, alice, bob = callers
    watched = Watched(monkeypatch, server, {"bob"})
    assert [status(server, alice) for _ in range(3)] == [400, 400, 400]
    assert len(watched.slept) == 2 and all(0 < seconds <= 0.25 for seconds in watched.slept)
    assert status(server, alice, b'{"text": 1}') == 400
    assert status(server, bob) == 400
    assert len(watched.slept) == 2, "a small body is not waited with, nor is anybody else's"


def test_alone_nobody_rests_and_large_bodies_that_are_answered_cost_no_rest(
    callers: tuple[Server, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, alice, _ = callers
    watched = Watched(monkeypatch, server, {"alice"})
    assert [status(server, alice) for _ in range(2)] == [400, 400]
    assert watched.slept == []
    watched = Watched(monkeypatch, server, {"bob"})
    for _ in range(2):
        assert status(server, alice, b'{"text": "a"}' + b" " * 20_000) == 200
    assert watched.slept == []


def test_a_callers_questions_are_encoded_at_his_pace(
    callers: tuple[Server, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, alice, _ = callers
    long = "，请仔细看" * 120  # short ones are encoded together
    questions = [{"type": "predicate", "instructions": f"说了第 {number} 件事{long}"} for number in range(6)]
    body = {"model": "demo", "input": "今天心情很差", "questions": questions}
    probabilities = []
    for others in ({"alice"}, {"bob"}):
        watched = Watched(monkeypatch, server, others)
        answer = server.client.post("/v1/decisions", json=body, headers={"X-API-Key": alice})
        assert answer.status_code == 200
        probabilities.append([found["probability"] for found in answer.get_json()["answers"]])
    assert probabilities[0] == pytest.approx(probabilities[1], abs=1e-5) and len(watched.slept) >= 5
