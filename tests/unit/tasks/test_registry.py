"""All tasks of a folder, by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from qwen_allinone.errors import TaskFileError, UnknownTask
from qwen_allinone.tasks import Registry
from tests.unit.tasks.test_loader import CHAT, LABEL, LABEL_CASE, write


def test_every_folder_is_a_task_in_order_of_names(tmp_path: Path) -> None:
    write(tmp_path / "mood", LABEL, LABEL_CASE)
    write(tmp_path / "chat", CHAT)
    registry = Registry.load(tmp_path)
    assert [task.name for task in registry] == ["chat", "mood"]
    assert "mood" in registry and "nothing" not in registry
    assert [case.label for case in registry.cases("mood")] == ["正面"]
    assert registry.cases("chat") == []


def test_files_and_hidden_folders_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "mood", LABEL)
    (tmp_path / "README.md").write_text("not a task")
    for name in (".git", "_drafts"):
        (tmp_path / name).mkdir()
    assert [task.name for task in Registry.load(tmp_path)] == ["mood"]


def test_an_unknown_task_is_answered_with_those_there_are(tmp_path: Path) -> None:
    write(tmp_path / "mood", LABEL)
    write(tmp_path / "chat", CHAT)
    with pytest.raises(UnknownTask) as caught:
        Registry.load(tmp_path).get("poem" * 100)
    assert caught.value.status == 404
    assert "chat、mood" in caught.value.message
    assert len(caught.value.message) < 200, "a long name is not sent back whole"


@pytest.mark.parametrize(("make", "problem"), [(False, "does not exist"), (True, "holds no task")])
def test_a_folder_without_tasks_is_refused(tmp_path: Path, make: bool, problem: str) -> None:
    root = tmp_path / "prompts"
    if make:
        root.mkdir()
    with pytest.raises(TaskFileError) as caught:
        Registry.load(root)
    assert str(caught.value).startswith(f"{root}: (folder): {problem}. Fix: ")


def test_a_task_at_fault_stops_the_whole_registry(tmp_path: Path) -> None:
    write(tmp_path / "chat", CHAT)
    write(tmp_path / "mood", LABEL, LABEL_CASE.replace("正面", "中性"))
    with pytest.raises(TaskFileError) as caught:
        Registry.load(tmp_path)
    assert caught.value.file == tmp_path / "mood" / "cases.yaml"
