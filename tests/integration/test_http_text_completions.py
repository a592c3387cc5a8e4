"""Texts that the bare model goes on from, asked for with OpenAI's official client; and how many tokens a text takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.integration.conftest import Server
from tests.support.openai_client import client_of

TEXT = "今天心情特别差"


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with client_of(server.app) as made:
        yield made


def create(client: openai.OpenAI, **fields: Any) -> Any:
    return client.completions.create(**{"model": "demo", "prompt": TEXT, "temperature": 0} | fields)


def texts(answer: Any) -> list[str]:
    return [choice.text for choice in answer.choices]


def test_a_text_goes_on_and_is_the_same_as_its_token_ids(server: Server, client: openai.OpenAI) -> None:
    answer = create(client)
    assert (answer.object, answer.model, len(answer.choices)) == ("text_completion", "demo", 1)
    assert answer.usage.completion_tokens == 16 and answer.choices[0].finish_reason == "length"
    ids = server.service.codec.tokenizer.encode(TEXT)
    assert answer.usage.prompt_tokens == len(ids)
    assert texts(create(client, prompt=ids)) == texts(create(client, prompt=[ids])) == texts(answer)


def test_several_texts_and_several_replies_come_in_their_order(client: openai.OpenAI) -> None:
    prompts = [TEXT, "我升职了", "快递"]
    alone = [create(client, prompt=prompt, n=2, temperature=1, seed=4) for prompt in prompts]
    together = create(client, prompt=prompts, n=2, temperature=1, seed=4)
    assert texts(together) == [text for answer in alone for text in texts(answer)]
    assert [choice.index for choice in together.choices] == list(range(6))
    assert together.usage.prompt_tokens == sum(answer.usage.prompt_tokens for answer in alone)
    assert together.usage.completion_tokens == sum(answer.usage.completion_tokens for answer in alone)


@pytest.mark.parametrize("echo", [False, True])
def test_a_stream_is_the_same_replies(client: openai.OpenAI, echo: bool) -> None:
    asked: dict[str, Any] = {"prompt": [TEXT, "好"], "n": 2, "temperature": 1, "seed": 1, "max_tokens": 9, "echo": echo}
    whole = create(client, **asked)
    parts, ends, usage = [""] * 4, list[int](), None
    for chunk in create(client, stream=True, stream_options={"include_usage": True}, **asked):
        usage = chunk.usage
        for choice in chunk.choices:
            parts[choice.index] += choice.text
            ends += [choice.index] if choice.finish_reason else []
    assert parts == texts(whole) and ends == [0, 1, 2, 3] and usage == whole.usage
    assert (
        all(part.startswith(prompt) for part, prompt in zip(parts, [TEXT, TEXT, "好", "好"], strict=True)) or not echo
    )


def test_log_probabilities_are_told_in_the_older_shape(client: openai.OpenAI) -> None:
    choice = create(client, logprobs=3, max_tokens=6).choices[0]
    told = choice.logprobs
    assert len(told.tokens) == len(told.token_logprobs) == len(told.top_logprobs) == len(told.text_offset) == 6
    assert all(
        len(likely) <= 3 and max(likely.values()) == own
        for likely, own in zip(told.top_logprobs, told.token_logprobs, strict=True)
    )
    assert told.text_offset[0] == 0 and told.text_offset == sorted(told.text_offset)
    assert create(client).choices[0].logprobs is None


def test_a_schema_holds_here_too(client: openai.OpenAI) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"enum": ["甲", "乙"]}}}
    assert texts(create(client, extra_body={"response_format": schema}))[0] in ('"甲"', '"乙"')


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({"prompt": ""}, "prompt"),
    "nothing of many": ({"prompt": []}, "prompt"),
    "nothing among many": ({"prompt": ["a", ""]}, "prompt"),
    "texts and ids": ({"prompt": ["a", [1]]}, "prompt"),
    "a number below all": ({"prompt": [-1]}, "prompt"),
    "a number that is no token": ({"prompt": [10**6]}, "prompt"),
    "a list of nothing": ({"prompt": [[]]}, "prompt"),
    "too many": ({"prompt": ["a"] * 17}, "prompt"),
    "too many replies": ({"prompt": ["a"] * 3, "n": 8}, "n"),
    "a suffix": ({"suffix": "b"}, "suffix"),
    "the best of many": ({"best_of": 2}, "best_of"),
    "an echo with probabilities": ({"echo": True, "logprobs": 1}, "echo"),
    "an object": ({"prompt": {"a": 1}}, "prompt"),
    "more than fits": ({"prompt": "好，" * 5000}, "prompt"),
    "a stop inside of JSON": ({"stop": "}", "extra_body": {"response_format": {"type": "json_object"}}}, "stop"),
}


@pytest.mark.parametrize(("fields", "param"), BAD.values(), ids=BAD)
def test_what_cannot_be_done_is_a_400_that_names_it(client: openai.OpenAI, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        create(client, **fields)
    assert caught.value.param == param


def test_tokens_are_counted_and_turned_back(server: Server) -> None:
    codec = server.service.codec
    answer = server.post("/tokenize", {"prompt": TEXT, "return_token_strs": True}).get_json()
    assert answer["tokens"] == codec.tokenizer.encode(TEXT) and "".join(answer["token_strs"]) == TEXT
    assert (answer["count"], answer["max_model_len"]) == (len(answer["tokens"]), codec.context)
    assert answer["room"] == codec.context - answer["count"]
    assert server.post("/detokenize", {"tokens": answer["tokens"], "model": "demo"}).get_json() == {"prompt": TEXT}
    chat = server.post("/tokenize", {"messages": [{"role": "user", "content": TEXT}]}).get_json()
    body = {"model": "demo", "messages": [{"role": "user", "content": TEXT}], "max_tokens": 1}
    assert chat["count"] == server.post("/v1/chat/completions", body).get_json()["usage"]["prompt_tokens"]
    assert server.post("/tokenize", {"prompt": ""}).get_json()["count"] == 0
    for long in (
        {"prompt": "好，" * codec.context},
        {"messages": [{"role": "user", "content": "好，" * codec.context}]},
    ):
        assert server.post("/tokenize", long).get_json()["room"] == 0


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/tokenize", {}, 400),
        ("/tokenize", {"prompt": "a", "messages": [{"role": "user", "content": "a"}]}, 400),
        ("/tokenize", {"prompt": "a", "model": "none"}, 404),
        ("/tokenize", {"prompt": "a" * 40_000}, 400),
        ("/detokenize", {"tokens": [10**6]}, 400),
        ("/detokenize", {"tokens": [-1]}, 400),
        ("/detokenize", {"tokens": "a"}, 400),
        ("/detokenize", {}, 400),
    ],
)
def test_what_has_no_tokens_is_told(server: Server, path: str, body: dict[str, Any], status: int) -> None:
    assert server.post(path, body).status_code == status
