"""How results are written down, and what is not believed when read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_allinone.engine import FinishReason, Result
from qwen_allinone.service.fitted_task import is_cacheable
from qwen_allinone.service.result_cache import dump, load, without_cost
from qwen_allinone.tasks import Task, load_task
from tests.support.tasks import CHAT, SENTIMENT, write_prompts

LABEL = Result(FinishReason.LABEL, (7,), 30, 20, label=1, probabilities=(0.25, 0.75), queue_s=1.0, prefill_s=2.0)
TEXT = Result(FinishReason.STOP, (5, 6, 7), 30, 20, decode_s=3.0)
GREEDY = CHAT.replace("strategy: sample, temperature: 0.7, top_p: 0.9", "strategy: greedy")


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Task]:
    root = write_prompts(tmp_path_factory.mktemp("caching") / "prompts", sentiment=SENTIMENT, chat=CHAT, title=GREEDY)
    return {name: load_task(root / name) for name in ("sentiment", "chat", "title")}


def test_what_is_kept_is_the_answer_and_not_the_time_it_took(tasks: dict[str, Task]) -> None:
    label, text = load(dump(LABEL), tasks["sentiment"]), load(dump(TEXT), tasks["title"])
    assert label == Result(FinishReason.LABEL, (7,), 30, 0, label=1, probabilities=(0.25, 0.75))
    assert text == Result(FinishReason.STOP, (5, 6, 7), 30, 0)


def test_the_mass_of_labels_is_kept_where_it_was_found(tasks: dict[str, Task]) -> None:
    weighed = replace(LABEL, label_mass=0.5)
    found = load(dump(weighed), tasks["sentiment"])
    assert found and found.label_mass == 0.5
    for wrong in (1.5, -0.1, "much", True, None):
        assert load(changed(label_mass=wrong), tasks["sentiment"]) is None


def test_a_remembered_result_costs_nothing() -> None:
    free = without_cost(LABEL)
    assert (free.ids, free.reused_tokens, free.prompt_tokens) == ((), 30, 30)
    assert free.queue_s == free.prefill_s == free.decode_s == 0.0
    assert (free.label, free.probabilities) == (1, (0.25, 0.75))


def test_only_greedy_tasks_always_say_the_same(tasks: dict[str, Task]) -> None:
    assert {name: is_cacheable(task) for name, task in tasks.items()} == {
        "sentiment": True,
        "chat": False,
        "title": True,
    }


def changed(**fields: Any) -> bytes:
    return json.dumps(json.loads(dump(LABEL)) | fields).encode()


POISON = {
    "nothing": b"",
    "no JSON": b"{",
    "no UTF-8": b"\xff\xfe",
    "a list": b"[]",
    "a number": b"1",
    "deep": b"[" * 100_000,
    "no fields": b"{}",
    "an unknown end": changed(reason="exploded"),
    "no label": changed(label=None),
    "a label beyond": changed(label=2),
    "a label before": changed(label=-1),
    "a label that is true": changed(label=True),
    "a probability too many": changed(probabilities=[0.2, 0.3, 0.5]),
    "no probabilities": changed(probabilities=[]),
    "a sum of two": changed(probabilities=[1.0, 1.0]),
    "beyond one": changed(probabilities=[1.5, -0.5]),
    "not a number": changed(probabilities=[float("nan"), 1.0]),
    "words": changed(probabilities=["a", "b"]),
    "a token of text": changed(ids=["a"]),
    "a token beyond": changed(ids=[2**40]),
    "a number for tokens": changed(ids=3),
    "tokens before": changed(prompt_tokens=-1),
}


@pytest.mark.parametrize("raw", POISON.values(), ids=POISON)
def test_what_no_result_could_be_is_none(tasks: dict[str, Task], raw: bytes) -> None:
    assert load(raw, tasks["sentiment"]) is None


def test_a_result_of_another_kind_of_task_is_none(tasks: dict[str, Task]) -> None:
    assert load(dump(TEXT), tasks["sentiment"]) is None
    assert load(dump(LABEL), tasks["title"]) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["reason", "ids", "label"]), inner),
)


@given(
    st.binary() | json_values.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(st.sampled_from(["reason", "ids", "prompt_tokens", "label", "probabilities"]), json_values),
)
def test_whatever_is_read_it_does_not_raise(tasks: dict[str, Task], raw: bytes, fields: dict[str, Any]) -> None:
    for value in (raw, changed(**fields)):
        for task in tasks.values():
            result = load(value, task)
            assert result is None or isinstance(result, Result)


def test_versions_of_prompts_differ(tmp_path: Path) -> None:
    one = load_task(write_prompts(tmp_path / "a") / "sentiment")
    same = load_task(write_prompts(tmp_path / "b") / "sentiment")
    other = load_task(
        write_prompts(tmp_path / "c", sentiment=SENTIMENT.replace("判断情感。", "判断情感：")) / "sentiment"
    )
    cap = load_task(write_prompts(tmp_path / "d", sentiment=SENTIMENT.replace("40", "41")) / "sentiment")
    assert one.version == same.version and len(one.version) == 12
    assert len({one.version, other.version, cap.version}) == 3
