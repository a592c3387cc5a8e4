"""Versions of the prompts: copies that nobody edits, their order, and the way back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qwen_allinone.errors import TaskFileError
from qwen_allinone.tasks import Registry, Versions
from tests.support.tasks import CHAT, SENTIMENT


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    for name, text in (("sentiment", SENTIMENT), ("chat", CHAT)):
        (tmp_path / "prompts" / name).mkdir(parents=True)
        (tmp_path / "prompts" / name / "prompt.md").write_text(text, encoding="utf-8")
    return tmp_path / "prompts"


@pytest.fixture
def versions(tmp_path: Path) -> Versions:
    return Versions(tmp_path / "kept")


def change(prompts: Path, word: str) -> None:
    file = prompts / "chat" / "prompt.md"
    file.write_text(CHAT.replace("情绪", word), encoding="utf-8")


def test_a_copy_stays_as_it_was_and_has_the_version_that_its_registry_says(prompts: Path, versions: Versions) -> None:
    version = versions.keep(prompts)
    change(prompts, "心情")
    assert Registry.load(versions.folder(version)).version == version != Registry.load(prompts).version
    assert versions.keep(prompts) == Registry.load(prompts).version


def test_what_editors_leave_beside_a_prompt_is_no_new_version(prompts: Path, versions: Versions) -> None:
    version = versions.keep(prompts)
    for name in (".prompt.md.swp", "~lock"):
        (prompts / "chat" / name).write_bytes(b"\xff")
    (prompts / "_drafts").mkdir()
    assert versions.keep(prompts) == version


def test_a_copy_that_lost_something_is_made_anew(prompts: Path, versions: Versions) -> None:
    version = versions.keep(prompts)
    file = versions.folder(version) / "chat" / "prompt.md"
    file.write_text("", encoding="utf-8")
    assert versions.keep(prompts) == version
    assert file.read_text(encoding="utf-8") == CHAT


def test_going_back_twice_goes_back_two_and_what_was_new_is_gone(prompts: Path, versions: Versions) -> None:
    came: list[str] = []
    for word in ("情绪", "心情", "感受"):
        change(prompts, word)
        if word == "感受":
            (prompts / "new").mkdir()
            (prompts / "new" / "prompt.md").write_text(SENTIMENT, encoding="utf-8")
        came.append(versions.keep(prompts))
        versions.accept(came[-1], "tried")
    for expected in (came[1], came[0]):
        version = versions.before()
        assert version == expected
        versions.restore(version, prompts)
        versions.accept(version, "back")
        assert Registry.load(prompts).version == versions.current == expected
        assert not (prompts / "new").exists()
    assert versions.before() is None


def test_only_what_was_in_force_is_accepted_and_the_oldest_copies_go(prompts: Path, versions: Versions) -> None:
    came = []
    for number in range(23):
        change(prompts, f"情绪{number}")
        came.append(versions.keep(prompts))
        assert not versions.is_accepted(came[-1])
        versions.accept(came[-1], "tried")
    assert [versions.is_accepted(version) for version in came] == [False] * 3 + [True] * 20
    assert [versions.folder(version).exists() for version in came] == [False] * 3 + [True] * 20


@pytest.mark.parametrize("content", ["", "[{]", json.dumps([{"version": 1}])])
def test_a_broken_history_begins_anew(prompts: Path, versions: Versions, content: str) -> None:
    versions.accept(versions.keep(prompts), "start")
    (versions.root / "history.json").write_text(content, encoding="utf-8")
    assert versions.current is None
    versions.accept(versions.keep(prompts), "start")
    assert versions.current == Registry.load(prompts).version


def test_a_folder_that_cannot_be_read_is_named_with_its_setting(tmp_path: Path) -> None:
    with pytest.raises(TaskFileError, match="QAIO_PROMPTS"):
        Registry.load(tmp_path / "nosuch")
