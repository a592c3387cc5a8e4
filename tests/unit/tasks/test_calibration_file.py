"""calibration.yaml beside a prompt, read as strictly as the prompt."""

from __future__ import annotations

from pathlib import Path

import pytest

from qwen_allinone.errors import TaskFileError
from qwen_allinone.tasks import load_task
from tests.support.tasks import CHAT, SENTIMENT, write_prompts

CALIBRATION = """\
temperature: 2.5
model: abc:fp32
prompt: def
data: '0'
rows: 100
date: '2026-01-01'
before: {accuracy: 0.7, ece: 0.2}
after: {accuracy: 0.7, ece: 0.02}
"""


@pytest.mark.parametrize(
    ("line", "instead", "key"),
    [
        ("temperature: 2.5", "temperature: 0", "temperature"),
        ("temperature: 2.5", "temperature: warm", "temperature"),
        ("temperature: 2.5", "temperature: .nan", "temperature"),
        ("temperature: 2.5", "temprature: 2.5", "temprature"),
        ("rows: 100\n", "", "rows"),
        ("date: '2026-01-01'", "date: 2026-01-01", "date"),
        ("ece: 0.2", "ece: 20", "before.ece"),
        ("model: abc:fp32", "model: [", "(yaml)"),
    ],
)
def test_a_calibration_that_says_something_else_stops_the_start(
    tmp_path: Path, line: str, instead: str, key: str
) -> None:
    folder = write_prompts(tmp_path / "prompts") / "sentiment"
    (folder / "calibration.yaml").write_text(CALIBRATION, "utf-8")
    assert load_task(folder).calibration is not None
    (folder / "calibration.yaml").write_text(CALIBRATION.replace(line, instead), "utf-8")
    with pytest.raises(TaskFileError) as raised:
        load_task(folder)
    assert raised.value.file.name == "calibration.yaml" and raised.value.key == key


def test_free_text_has_nothing_to_calibrate(tmp_path: Path) -> None:
    folder = write_prompts(tmp_path / "prompts") / "chat"
    (folder / "calibration.yaml").write_text(CALIBRATION, "utf-8")
    with pytest.raises(TaskFileError, match="only label tasks"):
        load_task(folder)


def test_only_label_tasks_are_contextual_and_no_input_takes_a_word_of_the_requests(tmp_path: Path) -> None:
    root = write_prompts(tmp_path / "a", chat=CHAT.replace("{kind: text}", "{kind: text, contextual: true}"))
    with pytest.raises(TaskFileError, match="contextual"):
        load_task(root / "chat")
    root = write_prompts(tmp_path / "b", sentiment=SENTIMENT.replace("text:", "detail:").replace("$text", "$detail"))
    with pytest.raises(TaskFileError, match=r"detail: requests say something else.*Fix: rename"):
        load_task(root / "sentiment")
