"""OpenAI's official client before two real workers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import openai
import pytest

from qwen_allinone.access import keys
from tests.e2e.conftest import Service, services, until
from tests.support.openai_client import client_at

MESSAGES: list[Any] = [{"role": "user", "content": "今天心情特别差"}]


@pytest.fixture(scope="module")
def served(demo_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, str]]:
    """Two workers with one place each, and a key."""
    home = tmp_path_factory.mktemp("openai")
    key = keys.add(home / "keys", "alice")
    with services(home) as start:
        yield (
            start(QAIO_WORKERS="2", QAIO_SLOTS="1", QAIO_MAX_WAITING="0", QAIO_API_KEYS_FILE=str(home / "keys")),
            key,
        )


def test_models_replies_and_streams(served: tuple[Service, str]) -> None:
    service, key = served
    with client_at(service.port, api_key=key, max_retries=8) as client:
        model = client.models.list().data[0].id
        assert client.models.retrieve(model).id == model == "demo"
        asked: dict[str, Any] = {"model": model, "messages": MESSAGES, "temperature": 0, "max_tokens": 12}
        reply = client.chat.completions.create(**asked)
        chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
        assert (
            "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == reply.choices[0].message.content
        )
        assert chunks[-1].usage.completion_tokens == reply.usage.completion_tokens


def test_decisions_and_labels(served: tuple[Service, str]) -> None:
    service, key = served
    question: Any = {"type": "choice", "instructions": "情感", "choices": [{"value": "正面"}, {"value": "负面"}]}
    with client_at(service.port, api_key=key, max_retries=8) as client:
        (answer,) = client.decisions.create(model="demo", input="今天心情特别差", questions=[question]).answers
        assert answer.type == "choice" and answer.choice in ("正面", "负面")
        assert sum(each.probability for each in answer.probabilities) == pytest.approx(1.0)
        found: Any = client.post("/classify", cast_to=object, body={"model": "demo", "input": ["今天心情特别差", "好"]})
    assert [each["index"] for each in found["data"]] == [0, 1]


def test_a_bad_field_and_a_bad_key(served: tuple[Service, str]) -> None:
    service, key = served
    with client_at(service.port, api_key=key, max_retries=8) as client, pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="demo", messages=MESSAGES, store=True)
    assert caught.value.param == "store"
    for wrong in (key[:-1], "none"):
        with client_at(service.port, api_key=wrong) as client, pytest.raises(openai.AuthenticationError):
            client.models.list()


def test_a_full_server_is_waited_for(served: tuple[Service, str]) -> None:
    """The client's own retries follow Retry-After until there is a place."""
    service, key = served
    enough = threading.Event()

    def occupy() -> None:
        with client_at(service.port, api_key=key) as client:
            while not enough.is_set():
                with suppress(openai.InternalServerError):
                    client.chat.completions.create(model="demo", messages=MESSAGES, temperature=0)

    def refused() -> bool:
        with client_at(service.port, api_key=key) as impatient:
            try:
                impatient.chat.completions.create(model="demo", messages=MESSAGES, max_tokens=1)
            except openai.InternalServerError as error:
                assert (error.status_code, error.code) == (503, "server_busy")
                return int(error.response.headers["Retry-After"]) >= 1
            return False

    with ThreadPoolExecutor(4) as pool:
        crowd = [pool.submit(occupy) for _ in range(4)]
        try:
            until(refused, "all places are taken")
        finally:
            threading.Timer(0.5, enough.set).start()
        with client_at(service.port, api_key=key, max_retries=20) as patient:
            reply = patient.chat.completions.create(model="demo", messages=MESSAGES, max_tokens=2)
        assert reply.usage and reply.usage.completion_tokens >= 1
        for one in crowd:
            one.result(60)
