"""What one caller may learn of another: nothing, not even from what an answer saved."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from qwen_allinone.access import keys
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
