"""The folder of the task `care`: its vetted texts, and what is refused at startup."""

from __future__ import annotations

from pathlib import Path

import pytest

from qwen_allinone.errors import TaskFileError
from qwen_allinone.tasks import Registry, load_task
from tests.support.tasks import CARE, KEYWORDS, VETTED, VETTED_EN, write_care, write_prompts


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_care(tmp_path / "prompts")


@pytest.mark.parametrize(
    ("text", "reply"),
    [("我不想活了", VETTED), ("I am done, 再见", VETTED), ("I want to die", VETTED_EN), ("😭 ...", VETTED_EN)],
)
def test_a_text_without_chinese_is_answered_in_english(root: Path, text: str, reply: str) -> None:
    vetted = load_task(root / "care").vetted
    assert vetted is not None and vetted.reply_to(text) == reply


def test_without_an_english_text_there_is_one_for_everybody(root: Path) -> None:
    (root / "care" / "reply.en.md").unlink()
    vetted = load_task(root / "care").vetted
    assert vetted is not None and vetted.reply_to("I want to die") == VETTED


def test_other_tasks_have_no_vetted_text(root: Path) -> None:
    (root / "care").rename(root / "other")
    assert load_task(root / "other").vetted is None


@pytest.mark.parametrize("name", ["reply.md", "reply.en.md"])
def test_an_empty_text_stops_the_start(root: Path, name: str) -> None:
    (root / "care" / name).write_text(" \n\n", encoding="utf-8")
    with pytest.raises(TaskFileError, match=r"is empty\. Fix: write what /chat is to answer") as caught:
        Registry.load(root)
    assert caught.value.file == root / "care" / name


def test_a_missing_text_stops_the_start(root: Path) -> None:
    (root / "care" / "reply.md").unlink()
    with pytest.raises(TaskFileError, match=r"reply\.md: .*is missing"):
        Registry.load(root)


UNSUITED = {
    "no labels": (KEYWORDS, "output.kind"),
    "another input": (CARE.replace("{text:", "{word:").replace("$text", "$word"), "inputs"),
    "a second input": (
        CARE.replace("40}}", "40}, name: {max_tokens: 4}}").replace("$text", "$text $name"),
        "inputs",
    ),
}


@pytest.mark.parametrize(("prompt", "key"), UNSUITED.values(), ids=UNSUITED)
def test_a_task_that_cannot_look_at_a_chats_text_stops_the_start(tmp_path: Path, prompt: str, key: str) -> None:
    root = write_care(write_prompts(tmp_path / "prompts"), prompt=prompt)
    with pytest.raises(TaskFileError, match=r"do(es)? not suit /chat\. Fix: ") as caught:
        Registry.load(root)
    assert (caught.value.file, caught.value.key) == (root / "care" / "prompt.md", key)


def test_the_texts_that_ship_name_the_numbers_to_call(prompts_folder: Path) -> None:
    vetted = load_task(prompts_folder / "care").vetted
    assert vetted is not None and vetted.english != vetted.chinese
    for text in (vetted.chinese, vetted.english):
        assert all(number in text for number in ("12356", "120", "110"))
