"""Vectors of texts, asked for with OpenAI's official client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import openai
import pytest
import torch

from qwen_allinone.service.embeddings import AFTER, BEFORE
from tests.integration.conftest import Server
from tests.support.openai_client import client_of

TEXTS = ["今天心情特别差", "我很难过", "快递到了"]


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with client_of(server.app) as made:
        yield made


def vectors(client: openai.OpenAI, texts: Any, **fields: Any) -> Any:
    answer = client.embeddings.create(model="demo", input=texts, **fields)
    assert [one.index for one in answer.data] == list(range(len(answer.data)))
    return np.array([one.embedding for one in answer.data])


def test_each_text_has_the_state_after_its_prompt_whoever_is_beside_it(server: Server, client: openai.OpenAI) -> None:
    together = vectors(client, TEXTS * 3)
    assert together.shape == (9, server.service.engine.model.config.hidden_size)
    assert np.allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-5)
    for text, vector in zip(TEXTS, together, strict=False):
        assert np.allclose(vectors(client, text)[0], vector, atol=1e-4)
    assert (together[0] @ together[1]) < 0.9999 and np.allclose(together[:3], together[3:6], atol=1e-4)
    # The same state is what the next token is chosen by.
    model: Any = server.service.engine.model
    codec = server.service.codec
    prompt = [token for part in (BEFORE, TEXTS[0], AFTER) for token in codec.tokenizer.encode(part)]
    likeliest = int(model.logits(torch.tensor(together[:1], dtype=torch.float32)).argmax())
    said = client.completions.create(model="demo", prompt=prompt, max_tokens=1, temperature=0, logprobs=1)
    (top,) = said.choices[0].logprobs.top_logprobs
    assert codec.tokenizer.text_of(likeliest) == next(iter(top))


def test_texts_are_the_same_as_their_token_ids_and_floats_as_their_bytes(server: Server, client: openai.OpenAI) -> None:
    encode = server.service.codec.tokenizer.encode
    whole = vectors(client, TEXTS)
    assert np.allclose(vectors(client, [encode(text) for text in TEXTS]), whole, atol=1e-4)
    assert np.allclose(vectors(client, encode(TEXTS[0])), whole[:1], atol=1e-4)
    assert np.allclose(vectors(client, TEXTS, encoding_format="float"), whole, atol=1e-4)
    usage = client.embeddings.create(model="demo", input=TEXTS).usage
    assert usage.prompt_tokens == usage.total_tokens > sum(len(encode(text)) for text in TEXTS)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({"input": ""}, "input[0]"),
    "nothing among many": ({"input": ["a", ""]}, "input[1]"),
    "no texts": ({"input": []}, "input[0]"),
    "too many": ({"input": ["a"] * 257}, "input"),
    "texts and ids": ({"input": ["a", [1]]}, "input"),
    "a number that is no token": ({"input": [[5], [10**6]]}, "input[1]"),
    "more than fits": ({"input": ["a", "好，" * 5000]}, "input[1]"),
    "as much as fits without what stands around it": ({"input": [5] * 1535}, "input[0]"),
    "fewer dimensions": ({"dimensions": 8}, "dimensions"),
    "a form there is not": ({"encoding_format": "int8"}, "encoding_format"),
}


@pytest.mark.parametrize(("fields", "param"), BAD.values(), ids=BAD)
def test_what_cannot_be_done_is_a_400_that_names_it(server: Server, fields: dict[str, Any], param: str) -> None:
    answer = server.post("/v1/embeddings", {"model": "demo", "input": "a"} | fields)
    assert answer.status_code == 400 and answer.get_json()["error"]["param"] == param
