"""Replies of a given form, their log-probabilities, and several at once, asked for with OpenAI's official client."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import openai
import pytest
from hypothesis import HealthCheck, given, settings
from pydantic import BaseModel, Field

from qwen_allinone.service.grammar_forms import GrammarForm
from tests.integration.conftest import Server
from tests.support.openai_client import client_of
from tests.support.schemas import HOSTILE, Schema
from tests.sweeps.schemas import CASES, Case, made_up, outcome, sweep

ASKED: list[Any] = [{"role": "user", "content": "快递丢了，客服不理人"}]
PATH = "/v1/chat/completions"


class Ticket(BaseModel):
    """What a complaint is about."""

    category: Literal["物流", "质量", "服务"]
    urgency: int = Field(ge=1, le=5)
    summary: str = Field(max_length=12)
    product: str | None = Field(max_length=8)


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with client_of(server.app) as made:
        yield made


def create(client: openai.OpenAI, **fields: Any) -> Any:
    return client.chat.completions.create(**{"model": "demo", "messages": ASKED, "temperature": 0} | fields)


def shaped(schema: Schema) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


@pytest.mark.parametrize("temperature", [0, 1, 2])
def test_the_client_parses_a_model_of_pydantics(client: openai.OpenAI, temperature: float) -> None:
    answer = client.chat.completions.parse(
        model="demo", messages=ASKED, temperature=temperature, seed=5, n=4, response_format=Ticket, max_tokens=120
    )
    assert len(answer.choices) == 4
    assert all(isinstance(choice.message.parsed, Ticket) for choice in answer.choices)


def test_a_streamed_answer_is_the_same_one(client: openai.OpenAI) -> None:
    whole = client.chat.completions.parse(model="demo", messages=ASKED, temperature=0, response_format=Ticket)
    with client.chat.completions.stream(model="demo", messages=ASKED, temperature=0, response_format=Ticket) as stream:
        streamed = stream.get_final_completion()
    assert streamed.choices[0].message.parsed == whole.choices[0].message.parsed is not None


def test_any_object_will_do(client: openai.OpenAI) -> None:
    for seed in range(4):
        choice = create(
            client, temperature=1.5, seed=seed, max_tokens=400, response_format={"type": "json_object"}
        ).choices[0]
        if choice.finish_reason == "stop":
            assert isinstance(json.loads(choice.message.content), dict)


def test_what_is_cut_says_so(client: openai.OpenAI) -> None:
    schema = {"type": "object", "properties": {"a": {"const": "很长很长的一句话"}}, "required": ["a"]}
    choice = create(client, response_format=shaped(schema), max_tokens=3).choices[0]
    assert choice.finish_reason == "length" and '{"a": "很长很长的一句话"'.startswith(choice.message.content)


def test_a_form_changes_nothing_for_the_others_in_the_batch(client: openai.OpenAI) -> None:
    form = shaped({"type": "array", "items": {"enum": [1, 2, 3]}, "minItems": 40, "maxItems": 40})
    alone = create(client).choices[0].message.content
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(create, client, **({"response_format": form} if n % 2 else {})) for n in range(8)]
        texts = [answer.result().choices[0].message.content for answer in asked]
    assert set(texts[::2]) == {alone}
    assert len(set(texts[1::2])) == 1 and len(json.loads(texts[1])) == 40


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(CASES)
def test_answers_to_made_up_schemas_fit_them(server: Server, case: Case) -> None:
    """Thousands of them: `python -m tests.sweeps.schemas`."""
    assert outcome(server.app, case) in ("whole", "cut", "refused")


def test_a_sweep_finds_an_answer_that_does_not_fit(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = made_up(12, seed_=3)
    counts, findings = sweep(server.app, cases)
    assert counts.total() == len(cases) == 12 and findings == []
    monkeypatch.setattr(GrammarForm, "allowed", lambda self: b"\xff" * 20_000)
    monkeypatch.setattr(GrammarForm, "take", lambda self, token: True)
    monkeypatch.setattr(GrammarForm, "problem", "")
    counts, findings = sweep(server.app, cases)
    assert counts["wrong"] == len(findings) > 0


@pytest.mark.parametrize("schema", HOSTILE.values(), ids=HOSTILE)
def test_what_cannot_be_followed_is_refused_at_once(server: Server, schema: Schema) -> None:
    began = time.monotonic()
    answer = server.post(PATH, {"model": "demo", "messages": ASKED, "response_format": shaped(schema)})
    assert time.monotonic() - began < 2.0
    assert answer.status_code == 400
    assert answer.get_json()["error"]["param"] in ("response_format", None)  # None: too many keys for any body


def test_log_probabilities_are_the_models_own(server: Server, client: openai.OpenAI) -> None:
    choice = create(client, logprobs=True, top_logprobs=5, max_tokens=12).choices[0]
    told = choice.logprobs.content
    assert b"".join(bytes(one.bytes) for one in told).decode() == choice.message.content
    assert all(one.top_logprobs[0].token == one.token for one in told)  # greedy
    for one in told:
        shares = [math.exp(likely.logprob) for likely in one.top_logprobs]
        assert shares == sorted(shares, reverse=True) and 0 < sum(shares) <= 1.0001
    hot = create(client, logprobs=True, max_tokens=1, temperature=2, seed=1, logit_bias={"300": 100}).choices[0]
    assert hot.logprobs.content[0].logprob < -1  # before the bias
    assert hot.logprobs.content[0].top_logprobs == []
    assert create(client, max_tokens=2).choices[0].logprobs is None


def test_a_stream_tells_each_tokens_probability_once(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"logprobs": True, "top_logprobs": 1, "temperature": 1, "seed": 2, "max_tokens": 30}
    whole = create(client, **asked).choices[0]
    chunks = [chunk.choices[0] for chunk in create(client, stream=True, **asked)]
    told = [one for chunk in chunks if chunk.logprobs for one in chunk.logprobs.content]
    assert told == whole.logprobs.content
    assert "".join(chunk.delta.content or "" for chunk in chunks) == whole.message.content


def test_several_choices_are_one_request(client: openai.OpenAI) -> None:
    one = create(client, temperature=2, seed=9, max_tokens=16)
    several = create(client, temperature=2, seed=9, max_tokens=16, n=3)
    texts = [choice.message.content for choice in several.choices]
    assert [choice.index for choice in several.choices] == [0, 1, 2]
    assert texts[0] == one.choices[0].message.content and len(set(texts)) > 1
    assert several.usage.prompt_tokens == one.usage.prompt_tokens
    assert several.usage.completion_tokens > one.usage.completion_tokens
    assert [c.message.content for c in create(client, temperature=2, seed=9, max_tokens=16, n=3).choices] == texts


def test_choices_stream_side_by_side(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"temperature": 2, "seed": 9, "max_tokens": 16, "n": 3}
    whole = [choice.message.content for choice in create(client, **asked).choices]
    texts, ends = ["", "", ""], list[int]()
    for chunk in create(client, stream=True, **asked):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            ends += [choice.index] if choice.finish_reason else []
    assert texts == whole and ends == [0, 1, 2]
