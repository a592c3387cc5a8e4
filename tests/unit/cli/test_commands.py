"""The command line on the demo model and on models that do not load."""

import json
import re
from pathlib import Path
from typing import Any, NoReturn

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from qwen_allinone import __version__
from qwen_allinone.cli import app
from qwen_allinone.errors import ServerBusy
from qwen_allinone.service import Service
from qwen_allinone.settings import Settings
from qwen_allinone.tasks import Registry

ERRORS = 2
# Wide enough that rich does not wrap what the tests look for.
runner = CliRunner(env={"COLUMNS": "240", "TERM": "dumb"})


@pytest.fixture
def demo(demo_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QAIO_MODEL", "demo")
    monkeypatch.setenv("QAIO_THREADS", "1")


@pytest.mark.usefixtures("demo")
def test_ask_prints_the_label_and_then_the_reply() -> None:
    result = runner.invoke(app, ["ask", "今天心情特别差，工作也不顺利"])
    first, reply = result.stdout.strip().split("\n", 1)
    assert result.exit_code == 0
    assert first.startswith("😢 负面 (")
    assert len(reply) > 5


@pytest.mark.usefixtures("demo")
def test_for_programs_answers_are_json_whatever_the_width(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.csv").write_text("text,label\n今天很开心,正面\n等了两个小时没人理我,正面\n", encoding="utf-8")

    def said(*words: str) -> Any:
        result = runner.invoke(app, [*words, "--json"], env={"COLUMNS": "20"})
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    asked = said("ask", "今天心情特别差，工作也不顺利")
    assert asked["sentiment"] == "负面" and asked["response"] and sum(asked["probabilities"].values()) > 0.99
    checked = said("check", "sentiment")["tasks"]["sentiment"]
    assert checked["cases"] - checked["passed"] == len(checked["failed"])
    measured = said("eval", "sentiment", "--data", "rows.csv")
    assert measured["rows"] == 2 == sum(cell["rows"] for cell in measured["confusion"])
    assert 0 <= measured["accuracy"] <= 1


@pytest.mark.usefixtures("demo")
def test_ask_says_what_is_wrong_with_an_empty_text() -> None:
    result = runner.invoke(app, ["ask", "  "])
    assert result.exit_code == ERRORS
    assert "give a text" in result.stderr


@pytest.mark.usefixtures("demo")
def test_check_counts_the_gold_cases_of_a_task() -> None:
    result = runner.invoke(app, ["check", "sentiment"])
    row = next(line for line in result.stdout.splitlines() if "sentiment" in line and "%" in line)
    cells = [cell.strip() for cell in row.strip("│| ").replace("│", "|").split("|")]
    assert result.exit_code == 0
    assert cells[0] == "sentiment"
    assert int(cells[2]) <= int(cells[1]) >= 30
    assert cells[3] == f"{int(cells[2]) / int(cells[1]):.1%}"


@pytest.mark.parametrize("more", [[], ["--json"]])
@pytest.mark.parametrize(
    ("language", "told"),
    [
        ("C", r"gold cases to run: (\d+) \(tasks: (\d+)\)"),
        ("zh_CN.UTF-8", r"要运行的标准用例：(\d+) 条（任务：(\d+) 个）"),
    ],
)
def test_check_says_what_it_runs_before_a_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, more: list[str], language: str, told: str
) -> None:
    def stop(settings: Settings) -> NoReturn:
        raise typer.Exit(3)

    monkeypatch.setattr("qwen_allinone.cli.commands.load_service", stop)
    result = runner.invoke(app, ["check", *more], env={"LC_ALL": language})
    line = re.fullmatch(told, result.stderr.strip())
    registry = Registry.load(Settings.load().prompts)
    counts = [len(registry.cases(task.name)) for task in registry]
    assert line and (int(line[1]), int(line[2])) == (sum(counts), len(counts))
    assert result.exit_code == 3 and result.stdout == ""


@pytest.mark.usefixtures("demo")
@pytest.mark.parametrize(("slots", "waiting"), [("1", "0"), ("2", "1")])
def test_check_asks_no_more_at_once_than_the_service_takes(
    monkeypatch: pytest.MonkeyPatch, slots: str, waiting: str
) -> None:
    monkeypatch.setenv("QAIO_SLOTS", slots)
    monkeypatch.setenv("QAIO_MAX_WAITING", waiting)
    result = runner.invoke(app, ["check", "sentiment", "--at-least", "0.5"])
    assert result.exit_code == 0, result.output
    assert "too many requests" not in result.stdout


@pytest.mark.usefixtures("demo")
def test_check_waits_where_the_service_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    run, refusals = Service.run, iter([True, False] * 20)

    def refusing(self: Service, *given: Any, **named: Any) -> Any:
        if next(refusals, False):
            raise ServerBusy(retry_after=0)
        return run(self, *given, **named)

    monkeypatch.setattr(Service, "run", refusing)
    monkeypatch.setattr("qwen_allinone.patience.time.sleep", lambda _: None)
    result = runner.invoke(app, ["check", "sentiment", "--at-least", "0.5"])
    assert result.exit_code == 0, result.output


@pytest.mark.usefixtures("demo")
def test_a_case_that_gets_no_answer_fails_and_the_others_are_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QAIO_DEADLINE_S", "0.0001")
    result = runner.invoke(app, ["check", "sentiment"])
    assert result.exit_code == 0 and "Traceback" not in result.output
    assert "it took too long" in result.stdout


@pytest.mark.usefixtures("demo")
def test_check_fails_when_a_task_passes_less_than_asked() -> None:
    for more in ([], ["--json"]):
        result = runner.invoke(app, ["check", "sentiment", "--at-least", "1", "--no-wrong", *more])
        assert result.exit_code == 1
        assert re.fullmatch(r"less than --at-least 1: sentiment passed \d+ of \d+", result.stderr.splitlines()[-1])


@pytest.mark.parametrize("share", ["80", "1.01", "-1", "nan"])
def test_a_share_of_more_than_all_is_refused_before_a_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, share: str
) -> None:
    monkeypatch.setattr("qwen_allinone.bootstrap.build_service", lambda _: pytest.fail("loads the model first"))
    result = runner.invoke(app, ["check", "sentiment", "--at-least", share])
    assert result.exit_code == ERRORS and f"--at-least {share}: write a share from 0 to 1, as 0.8" in result.stderr


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_where_no_version_of_the_prompts_is_kept_the_folder_and_its_setting_are_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, more: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    result = runner.invoke(app, ["prompts", "list", *more])
    assert result.exit_code == ERRORS and result.stdout == ""
    assert f"no version is kept in {tmp_path}/data/prompts" in result.stderr and "QAIO_PROMPTS_KEPT" in result.stderr


@pytest.mark.usefixtures("demo")
def test_check_of_an_unknown_task_lists_the_tasks() -> None:
    result = runner.invoke(app, ["check", "nope"])
    assert result.exit_code == ERRORS
    assert "care, category, chat, handover, intent, keywords, remember, route, satisfaction, " in result.stderr.replace(
        "\n", ""
    )


@pytest.mark.usefixtures("demo")
def test_doctor_shows_settings_files_labels_kernel_and_advice() -> None:
    result = runner.invoke(app, ["doctor"])
    assert result.exit_code == 0
    for part in (
        "QAIO_MODEL*",
        "model.safetensors",
        "sentiment: tokens of 正面",
        "kernel, weights",
        "drafts, what",
        "stand-in",
    ):
        assert part in result.stdout
    assert "docs/memory.md" in result.stdout and "docs/page.md" in result.stdout and "](" not in result.stdout


def test_a_model_that_does_not_load_ends_with_the_ways_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QAIO_MODEL", str(tmp_path / "none"))
    result = runner.invoke(app, ["ask", "你好"])
    assert result.exit_code == ERRORS
    assert "does not exist" in result.stderr
    assert "QAIO_MODEL=demo" in result.stderr


def test_an_unknown_setting_stops_every_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QAIO_MODLE", "demo")
    for command in (["serve"], ["ask", "x"], ["check"], ["doctor"]):
        result = runner.invoke(app, command)
        assert result.exit_code == ERRORS
        assert "QAIO_MODLE" in result.stderr


def keys_command(*arguments: str) -> Result:
    return runner.invoke(app, ["keys", *arguments])


def test_a_key_is_printed_alone_and_only_its_hash_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QAIO_API_KEYS_FILE", str(tmp_path / "keys"))
    result = keys_command("new", "alice")
    assert result.exit_code == 0
    assert result.stdout.startswith("qaio_") and result.stdout.count("\n") == 1, "so that a script can take it"
    assert "alice" in result.stderr
    assert result.stdout.strip() not in (tmp_path / "keys").read_text()
    assert keys_command("new", "bob").exit_code == 0
    assert keys_command("list").stdout.split() == ["alice", "bob"]
    assert keys_command("remove", "alice").exit_code == 0
    assert keys_command("list").stdout.split() == ["bob"]


def test_the_keys_command_says_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments in (["new", "alice"], ["list"], ["remove", "alice"]):
        result = keys_command(*arguments)
        assert result.exit_code == ERRORS and "QAIO_API_KEYS_FILE is not set" in result.stderr
    monkeypatch.setenv("QAIO_API_KEYS_FILE", str(tmp_path / "keys"))
    for arguments, words in (
        (["list"], "No such file"),
        (["remove", "alice"], "is empty"),
        (["new", "a b"], "is no name for a key"),
        (["new", "[red]"], "'[red]' is no name for a key"),
    ):
        result = keys_command(*arguments)
        assert result.exit_code == ERRORS and words in result.stderr
        assert not (tmp_path / "keys").exists()
    keys_command("new", "alice")
    again = keys_command("new", "alice")
    assert again.exit_code == ERRORS and "alice has a key already" in again.stderr and again.stdout == ""


def test_a_misspelt_setting_stops_the_keys_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QAIO_API_KEY_FILE", "/x")
    result = keys_command("list")
    assert result.exit_code == ERRORS and "QAIO_API_KEYS_FILE" in result.stderr


def test_the_version_is_told() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"qwen-allinone {__version__}\n")
