"""A prompt that is cut around its inputs has the tokens of the same prompt encoded as a whole, and each text once."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given

from qwen_allinone.bootstrap import build_service
from qwen_allinone.engine import Status
from qwen_allinone.model.tokenizer import Tokenizer
from qwen_allinone.service import Service
from qwen_allinone.service.fitted_task import cut_prompt, encode_pieces
from qwen_allinone.settings import Settings
from qwen_allinone.tasks import Task, clean, load_task, render
from tests.support.tasks import CHAT, KEYWORDS, SENTIMENT, write_prompts
from tests.unit.model.test_tokenizer import ATTACKS, HOSTILE

EXAMPLES = CHAT.replace("user: $text", "user: 例子\nassistant: 回应\nuser: 用「$text」回应 $sentiment")

load_once = cache(Tokenizer.load)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> list[Task]:
    root = write_prompts(
        tmp_path_factory.mktemp("cut") / "prompts",
        sentiment=SENTIMENT,
        chat=CHAT,
        keywords=KEYWORDS,
        examples=EXAMPLES,
        bare=SENTIMENT.replace("判断情感。\n输入：$text\n情感：", "$text"),
    )
    return [load_task(folder) for folder in sorted(root.iterdir())]


def check(task: Task, tokenizer: Tokenizer, inputs: dict[str, str]) -> None:
    given = {name: inputs[name] for name in task.spec.inputs}
    assert encode_pieces(cut_prompt(task, tokenizer), given, tokenizer) == tokenizer.encode_rendered(
        render(task, given)
    )


@pytest.mark.parametrize("text", [*ATTACKS, "", " ", "\n\n好", "！好", "\u0301a", "today", "7"])
def test_a_cut_prompt_has_the_tokens_of_the_whole(tasks: list[Task], tokenizer_folder: Path, text: str) -> None:
    for task in tasks:
        check(task, load_once(tokenizer_folder), {"text": text, "sentiment": "正面"})
        check(task, load_once(tokenizer_folder), {"text": "好", "sentiment": text})


@given(text=HOSTILE, sentiment=HOSTILE)
def test_a_cut_prompt_has_the_tokens_of_the_whole_whatever_is_put_in(
    tasks: list[Task], tokenizer_folder: Path, text: str, sentiment: str
) -> None:
    for task in tasks:
        check(task, load_once(tokenizer_folder), {"text": text, "sentiment": sentiment})


@pytest.fixture(scope="module")
def service(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    prompts = write_prompts(tmp_path_factory.mktemp("once") / "prompts")
    made = build_service(Settings(model=str(tiny_checkpoint), prompts=prompts, context=256, kv_tokens=512, threads=1))
    assert made.engine.wait_until_settled(30) is Status.READY
    yield made
    made.engine.stop()


def test_a_chat_encodes_its_text_once_for_each_half_and_nothing_else(service: Service, encoded: list[str]) -> None:
    label = service.chat("今天很开心", seed=1).sentiment.label
    assert encoded == ["判断情感。\n输入：今天很开心\n情感：", f"system\n情绪：{label}", "user\n今天很开心"]


def test_a_label_of_our_own_is_neither_checked_nor_cleaned(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    cleaned: list[str] = []

    def record(text: str) -> str:
        cleaned.append(text)
        return clean(text)

    monkeypatch.setattr("qwen_allinone.service.input_checks.clean", record)
    service.chat("今天很开心", seed=1)
    assert cleaned == ["今天很开心"], "of the sentiment task, which asks for it"
