"""A real language model: equal to transformers, alone and among others, and of use at tasks it was never taught."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from qwen_allinone.engine import Sampling
from qwen_allinone.service import Service, Terms
from qwen_allinone.tasks import Chat
from tests.support.tasks import PROJECT

pytestmark = pytest.mark.timeout(600)  # on a busy machine

TEXTS = (
    "What is the capital of France?",
    "Write one sentence about the sea.",
    "My dog ran away this morning and I am worried.",
    "Explain in one sentence why the sky is blue.",
    "I passed my exam today!",
    "Name three fruits.",
    "How do I boil an egg?",
    "Say hello to my friend Anna.",
)


@cache
def reference(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def prompt(service: Service, text: str) -> list[int]:
    return service.codec.tokenizer.encode_rendered(Chat((("user", text),)))


def said(service: Service, ids: Sequence[int], count: int) -> tuple[int, ...]:
    with service.request(Terms()) as request:
        return request.generate("test", ids, Sampling(max_new_tokens=count)).ids


@torch.inference_mode()
def test_logits_are_those_of_transformers(service: Service, smollm2: Path) -> None:
    model = service.engine.model
    assert model is not None
    ids = prompt(service, TEXTS[0])
    wanted = reference(smollm2)(torch.tensor([ids])).logits[0, -1]
    with service.request(Terms()) as request:
        first = request.generate("test", ids, Sampling(max_new_tokens=1)).ids[0]
    assert first == int(wanted.argmax())
    from qwen_allinone.model.attention import Chunk

    hidden = model.forward([Chunk(0, 0, ids, wants_last=True)], model.new_cache(1))
    assert float((model.logits(hidden)[0] - wanted).abs().max()) < 2e-3  # of logits up to 30, kernels may store fp16


def test_greedy_replies_are_those_of_transformers_alone_and_in_a_batch(service: Service, smollm2: Path) -> None:
    model, stops = reference(smollm2), service.codec.stop_ids
    prompts = [prompt(service, text) for text in TEXTS]
    wanted = []
    for ids in prompts:
        with torch.inference_mode():
            out = model.generate(torch.tensor([ids]), max_new_tokens=24, do_sample=False, eos_token_id=sorted(stops))
        reply = out[0, len(ids) :].tolist()
        wanted.append(tuple(reply[: next((i for i, token in enumerate(reply) if token in stops), len(reply))]))
    assert [said(service, ids, 24) for ids in prompts] == wanted
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(lambda ids: said(service, ids, 24), prompts * 2)) == wanted * 2


def test_sentiment_of_english_texts_as_it_comes(service: Service) -> None:
    """Without the fit it answers Positive to all of them."""
    with (PROJECT / "demo/heldout/sentiment_en.tsv").open(encoding="utf-8", newline="") as file:
        rows = [(row["text"], row["answer"]) for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    right = sum(service.run("sentiment_en", {"text": text}).label == answer for text, answer in rows)
    assert len(rows) == 80 and right >= 0.9 * len(rows)
    fit = service.gold_fits()["sentiment_en"]
    assert fit.raw < 0.6 < 0.9 < fit.accuracy


def test_a_task_it_does_not_understand_is_told_of(service: Service) -> None:
    """It reads no Chinese."""
    assert service.gold_fits()["sentiment"].guesses


def test_chat_answers_in_english_to_the_point(service: Service) -> None:
    text = service.codec.tokenizer.decode(list(said(service, prompt(service, TEXTS[0]), 24)))
    assert "Paris" in text


@pytest.mark.parametrize("weights", ["fp16", "int8"])
def test_other_weights_say_nearly_the_same(smollm2: Path, tmp_path: Path, service: Service, weights: Any) -> None:
    from qwen_allinone.bootstrap import build_service
    from qwen_allinone.settings import Settings

    other = build_service(Settings(model=str(smollm2), weights=weights, fit="off", fit_file=tmp_path / "f"))
    try:
        assert other.engine.wait_until_settled(300).value == "ready", other.engine.problem
        ids = prompt(service, TEXTS[0])
        if weights == "fp16":  # in INT8 a model of this size, which had four bits a weight before, says other things
            assert "Paris" in service.codec.tokenizer.decode(list(said(other, ids, 24)))
        one, two = (
            each.engine.model.logits(each.engine.model.forward(*_first(each, ids)))[0].log_softmax(-1)  # type: ignore[union-attr]
            for each in (service, other)
        )
        divergence = float((one.exp() * (one - two)).sum())
        print(f"{weights}: KL {divergence:.2g}")
        assert divergence < (1e-4 if weights == "fp16" else 0.2)
    finally:
        other.engine.stop()


def _first(service: Service, ids: list[int]) -> tuple[Any, Any]:
    from qwen_allinone.model.attention import Chunk

    assert service.engine.model is not None
    return [Chunk(0, 0, ids, wants_last=True)], service.engine.model.new_cache(1)
