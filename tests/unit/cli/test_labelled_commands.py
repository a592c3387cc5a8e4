"""`qwen-allinone eval` and `calibrate` on the demo model."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from qwen_allinone.cli import app
from tests.conftest import PROJECT

ERRORS = 2
runner = CliRunner(env={"COLUMNS": "240", "TERM": "dumb"})


@pytest.fixture(autouse=True)
def _demo(demo_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("QAIO_MODEL", "demo")
    monkeypatch.setenv("QAIO_THREADS", "1")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The project's own held-out sentences, the first 60 of them, as a table with other names."""
    lines = (PROJECT / "demo" / "heldout" / "development.tsv").read_text("utf-8").splitlines()[1:61]
    rows = [line.split("\t", 1) for line in lines]
    with (tmp_path / "data.csv").open("w", encoding="utf-8-sig", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["好评", "内容"])
        writer.writerows([{"正面": "1", "负面": "0"}[label], text] for label, text in rows)
    return tmp_path / "data.csv"


NAMES = ("--text-column", "内容", "--label-column", "好评", "--map", "1=正面,0=负面")


def command(*arguments: str) -> Result:
    return runner.invoke(app, list(arguments))


def cell(result: Result, name: str, column: int = 1) -> str:
    for line in result.stdout.splitlines():
        cells = [part.strip() for part in line.replace("│", "|").strip("| ").split("|")]
        if cells[0] == name:
            return cells[column]
    raise AssertionError(f"no {name} in {result.stdout}")


def listed(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8-sig", newline="") as opened:
        return list(csv.DictReader(opened))


def test_eval_prints_figures_and_writes_the_wrong_rows(data: Path, tmp_path: Path) -> None:
    with data.open("a", encoding="utf-8") as out:
        out.write("9,这行的标签不对\n1," + "好" * 3000 + "\n")
    result = command("eval", "sentiment", "--data", str(data), *NAMES)
    assert result.exit_code == 0, result.stderr
    assert "line 62: the label '9' is none of" in result.stderr
    assert re.search(r"line 63: .*at most 1024 tokens", result.stderr)
    rows = int(cell(result, "rows"))
    accuracy = float(cell(result, "accuracy"))
    assert rows == 60 and 0.8 < accuracy < 1.0
    right = int(cell(result, "正面", 1)) + int(cell(result, "负面", 2))
    wrong = int(cell(result, "正面", 2)) + int(cell(result, "负面", 1))
    assert right + wrong == rows and right / rows == pytest.approx(accuracy, abs=1e-4)
    for name in ("macro F1", "ECE (15 bins)", "F1 of 正面", "F1 of 负面"):
        assert 0 <= float(cell(result, name)) <= 1
    times = [float(cell(result, f"latency p{share}").split()[0]) for share in (50, 95, 99)]
    assert 0 < times[0] <= times[1] <= times[2]
    rows_wrong = listed(tmp_path / "wrong.csv")
    assert len(rows_wrong) == wrong
    assert all(
        {row["label"], row["answer"]} == {"正面", "负面"} and 0.5 <= float(row["probability"]) <= 1
        for row in rows_wrong
    )


def test_eval_can_be_held_to_an_accuracy_and_to_few_rows(data: Path, tmp_path: Path) -> None:
    held = ("eval", "sentiment", "--data", str(data), *NAMES[:-1], "1=负面,0=正面", "--limit", "5", "--at-least")
    result = command(*held, "0.9", "--wrong", "x.csv")
    assert result.exit_code == 1 and cell(result, "rows") == "5"
    assert (tmp_path / "x.csv").exists() and not (tmp_path / "wrong.csv").exists()
    told = f"accuracy {cell(result, 'accuracy')} ({5 - len(listed(tmp_path / 'x.csv'))} of 5 rows right), less than"
    assert result.stderr.splitlines()[-1] == f"{told} --at-least 0.9"
    asked = command(*held, "0.9", "--json")
    assert asked.exit_code == 1 and "less than --at-least 0.9" in asked.stderr and json.loads(asked.stdout)["rows"] == 5
    assert command(*held, "0").exit_code == 0


def test_eval_leaves_a_file_of_somebody_else_and_says_so_before_it_computes(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qwen_allinone.bootstrap.build_service", lambda _: pytest.fail("loads the model first"))
    (tmp_path / "wrong.csv").write_text("text,label\nmine,1\n", "utf-8")
    result = command("eval", "sentiment", "--data", str(data), *NAMES)
    assert result.exit_code == ERRORS and "name another file with --wrong" in result.stderr
    assert (tmp_path / "wrong.csv").read_text("utf-8") == "text,label\nmine,1\n"


def test_calibrate_keeps_a_temperature_beside_the_prompt_that_makes_probabilities_honest(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = Path(shutil.copytree(PROJECT / "prompts", tmp_path / "prompts"))
    monkeypatch.setenv("QAIO_PROMPTS", str(prompts))
    result = command("calibrate", "sentiment", "--data", str(data), *NAMES)
    assert result.exit_code == 0, result.stderr
    kept = yaml.safe_load((prompts / "sentiment" / "calibration.yaml").read_text("utf-8"))
    assert f"{kept['temperature']:.4f}" == cell(result, "temperature", 2)
    assert kept["rows"] == 60 and kept["before"]["accuracy"] == kept["after"]["accuracy"]
    assert f"{kept['before']['ece']:.4f}" == cell(result, "ECE (15 bins)", 1)
    after = command("eval", "sentiment", "--data", str(data), *NAMES)
    assert cell(after, "accuracy") == cell(result, "accuracy", 1)
    assert float(cell(after, "ECE (15 bins)")) != float(cell(result, "ECE (15 bins)", 1))
    again = command("calibrate", "sentiment", "--data", str(data), *NAMES)
    assert cell(again, "ECE (15 bins)", 1) == cell(result, "ECE (15 bins)", 1), "fitted anew, not on top of itself"
    assert float(cell(again, "temperature", 2)) == pytest.approx(kept["temperature"], rel=1e-3)


def test_calibrate_says_so_before_it_computes_where_the_folder_cannot_be_written(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qwen_allinone.cli.result_files.is_writable", lambda _: False)
    monkeypatch.setattr("qwen_allinone.bootstrap.build_service", lambda _: pytest.fail("loads the model first"))
    result = command("calibrate", "sentiment", "--data", str(data), *NAMES)
    assert result.exit_code == ERRORS
    assert "cannot be written" in result.stderr and "QAIO_PROMPTS" in result.stderr


@pytest.mark.parametrize("key", [b"hunter2\nhunter3", "hünter2".encode(), b"hunter2 hunter3", b""])
@pytest.mark.usefixtures("data")
def test_a_file_that_holds_no_key_is_named_and_nothing_of_it_is_quoted(tmp_path: Path, key: bytes) -> None:
    (tmp_path / "key").write_bytes(key)
    result = command(
        "eval", "sentiment", "--data", "data.csv", *NAMES, "--url", "http://127.0.0.1:9", "--key-file", "key"
    )
    assert result.exit_code == ERRORS and "holds no key" in result.stderr
    assert "unter" not in result.output and "Traceback" not in result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["eval", "chat", "--data", "data.csv"], "chat is no label task"),
        (["calibrate", "chat", "--data", "data.csv"], "chat is no label task"),
        (["eval", "nope", "--data", "data.csv"], "there are: aspects, care, category, chat, "),
        (["eval", "sentiment", "--data", "none.csv"], "none.csv cannot be read"),
        (["eval", "sentiment", "--data", "data.csv"], "no column 'text'"),
        (
            ["eval", "sentiment", "--data", "data.csv", *NAMES, "--at-least", "80"],
            "--at-least 80: write a share from 0",
        ),
        (["eval", "sentiment", "--data", "data.csv", *NAMES, "--at-least", "-0.1"], "--at-least -0.1: write a share"),
        (["eval", "sentiment", "--data", "data.csv", *NAMES, "--at-least", "nan"], "--at-least nan: write a share"),
        (["eval", "sentiment", "--data", "data.csv", *NAMES, "--wrong", "no/x.csv"], "mkdir -p no); name another"),
        (["eval", "sentiment", "--data", "data.csv", *NAMES[:-1], "1=好"], "write it as 1=正面,0=负面"),
        (["calibrate", "sentiment", "--data", "data.csv", *NAMES, "--limit", "3"], "too few"),
        (["eval", "sentiment", "--data", "data.csv", *NAMES, "--url", "localhost:5000"], "http://HOST:PORT"),
        (["eval", "sentiment", "--data", "data.csv", *NAMES, "--url", "http://u:hunter/2@h"], "http://HOST:PORT"),
        (
            ["eval", "sentiment", "--data", "data.csv", *NAMES, "--url", "http://x", "--key-file", "no"],
            "cannot be read",
        ),
    ],
)
@pytest.mark.usefixtures("data")
def test_what_cannot_be_done_is_said_in_one_line(arguments: list[str], words: str) -> None:
    result = command(*arguments)
    assert result.exit_code == ERRORS
    assert words in result.stderr and "Traceback" not in result.stderr and "hunter" not in result.stderr
