"""How replies are drawn where a request does not say: as the checkpoint's generation_config.json says."""

from __future__ import annotations

from pathlib import Path

import pytest

from qwen_allinone.errors import CheckpointError
from qwen_allinone.http.openai import ChatCompletionRequest
from qwen_allinone.http.response_fields import ResponseRequest
from qwen_allinone.http.text_completions import CompletionRequest
from qwen_allinone.model.sampling_defaults import FILE, SamplingDefaults, sampling_defaults

OF_MODEL = SamplingDefaults(temperature=0.7, top_p=0.8, top_k=20, min_p=0.1, repetition_penalty=1.1)
CHAT = {"model": "m", "messages": [{"role": "user", "content": "你好"}]}


def test_a_checkpoint_without_a_word_draws_as_openai_does(tmp_path: Path) -> None:
    assert sampling_defaults(tmp_path) == SamplingDefaults(1.0, 1.0, 0, 0.0, 1.0)
    (tmp_path / FILE).write_text('{"eos_token_id": 5, "temperature": null}')
    assert sampling_defaults(tmp_path) == SamplingDefaults()


def test_the_checkpoints_values_are_taken(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(
        '{"do_sample": true, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "min_p": 0.1, "repetition_penalty": 1.1}'
    )
    assert sampling_defaults(tmp_path) == OF_MODEL
    (tmp_path / FILE).write_text('{"top_k": -1}')
    assert sampling_defaults(tmp_path).top_k == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not JSON"),
        ("[]", "no JSON object"),
        ('{"temperature": "hot"}', "temperature is 'hot'"),
        ('{"temperature": true}', "temperature is True"),
        ('{"top_p": 1.5}', "from 0 to 1"),
        ('{"min_p": NaN}', "min_p is nan"),
    ],
)
def test_a_value_that_cannot_be_is_told_with_its_file(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(CheckpointError, match=FILE) as caught:
        sampling_defaults(tmp_path)
    assert words in str(caught.value)


def test_what_a_request_says_counts_and_the_models_default_for_the_rest() -> None:
    drawn = ChatCompletionRequest.model_validate(CHAT).wanted(OF_MODEL).sampling
    assert (drawn.temperature, drawn.top_p, drawn.top_k, drawn.min_p, drawn.repetition_penalty) == (
        0.7,
        0.8,
        20,
        0.1,
        1.1,
    )
    said = {"temperature": 0, "top_p": 1, "top_k": 0, "min_p": 0, "repetition_penalty": 1}
    drawn = ChatCompletionRequest.model_validate(CHAT | said).wanted(OF_MODEL).sampling
    assert (drawn.temperature, drawn.top_p, drawn.top_k, drawn.min_p, drawn.repetition_penalty) == (0, 1, 0, 0, 1)
    drawn = ChatCompletionRequest.model_validate(CHAT | {"temperature": 1, "top_p": None}).wanted(OF_MODEL).sampling
    assert (drawn.temperature, drawn.top_p) == (1, 0.8)


def test_texts_and_responses_are_drawn_so_too() -> None:
    text = CompletionRequest.model_validate({"model": "m", "prompt": "从前"}).wanted(OF_MODEL).sampling
    response = ResponseRequest.model_validate({"model": "m", "input": "你好"}).wanted(OF_MODEL).sampling
    for drawn in (text, response):
        assert (drawn.temperature, drawn.top_k, drawn.min_p) == (0.7, 20, 0.1)
