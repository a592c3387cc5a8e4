"""A task folder of another one and a changed prompt: read for a moment, or saved whole beside it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from qwen_allinone.errors import TaskFileError, TaskTaken
from qwen_allinone.tasks import Registry, read_changed, save_as
from tests.support.tasks import PROJECT

SHIPPED = PROJECT / "prompts"
PROMPT = (SHIPPED / "sentiment" / "prompt.md").read_text("utf-8")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    shutil.copytree(SHIPPED / "sentiment", tmp_path / "sentiment")
    (tmp_path / "sentiment" / "calibration.yaml").write_text("prompt: x\n", encoding="utf-8")
    (tmp_path / "sentiment" / ".draft").write_text("mine", encoding="utf-8")
    return tmp_path


def test_a_changed_prompt_is_read_and_nothing_is_left_of_it(root: Path) -> None:
    before = {file: file.read_bytes() for file in root.rglob("*") if file.is_file()}
    task, cases = read_changed(root / "sentiment", PROMPT.replace("description: ", "description: 新的"))
    assert task.name == "sentiment" and task.spec.description.startswith("新的") and task.calibration is None
    assert len(cases) == 44
    assert {file: file.read_bytes() for file in root.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        ("你好", r"^sentiment/prompt.md: \(front matter\): is missing or not closed"),
        (PROMPT.replace("$text", "$txet"), r"^sentiment/prompt.md: \$txet: is not declared"),
        (PROMPT.replace("name: 正面", "name: 好"), r"^sentiment/cases.yaml: case \d+: label: '正面' is not an answer"),
    ],
)
def test_what_is_wrong_is_told_without_where_it_lay_for_a_moment(root: Path, prompt: str, told: str) -> None:
    with pytest.raises(TaskFileError, match=told):
        read_changed(root / "sentiment", prompt)


def test_a_new_folder_has_all_but_what_was_found_for_the_old_prompt(root: Path) -> None:
    task = save_as(root / "sentiment", PROMPT + "\n", root, "sentiment_shop")
    made = root / "sentiment_shop"
    assert task.name == "sentiment_shop"
    assert {file.name for file in made.iterdir()} == {"prompt.md", "cases.yaml"}
    assert (made / "prompt.md").read_text("utf-8") == PROMPT + "\n"
    assert made.stat().st_mode & 0o777 == 0o755
    assert {folder.name for folder in root.iterdir()} == {"sentiment", "sentiment_shop"}
    shutil.rmtree(root / "sentiment")
    assert "sentiment_shop" in Registry.load(root)


def test_a_folder_that_is_there_is_never_changed(root: Path) -> None:
    before = (root / "sentiment" / "prompt.md").read_bytes()
    with pytest.raises(TaskTaken):
        save_as(root / "sentiment", PROMPT + "\n", root, "sentiment")
    (root / "empty").mkdir()
    with pytest.raises(TaskTaken):
        save_as(root / "sentiment", PROMPT + "\n", root, "empty")
    assert (root / "sentiment" / "prompt.md").read_bytes() == before


@pytest.mark.parametrize("name", ["", "..", "../out", "/tmp/out", "Shop", "a" * 41, "a\n", "_a", "店"])
def test_a_name_that_is_none_leads_nowhere(root: Path, name: str) -> None:
    with pytest.raises(TaskFileError, match="is not a valid task name"):
        save_as(root / "sentiment", PROMPT, root, name)
    assert [folder.name for folder in root.iterdir()] == ["sentiment"]


def test_a_prompt_that_cannot_be_loaded_makes_no_folder(root: Path) -> None:
    with pytest.raises(TaskFileError):
        save_as(root / "sentiment", "你好", root, "shop")
    assert [folder.name for folder in root.iterdir()] == ["sentiment"]
