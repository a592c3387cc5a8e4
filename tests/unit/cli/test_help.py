"""`--help` and tables in the language of the terminal: the command run for real, and each of its commands and options."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from qwen_allinone.cli import app
from qwen_allinone.settings import Settings
from qwen_allinone.tasks import Versions
from qwen_allinone.wording.of_commands import OF_COMMANDS
from tests.support import forked

CHINESE = re.compile(r"[\u4e00-\u9fff]")
TERMINALS = {"zh": "zh_CN.UTF-8", "en": "C"}
HELPS = [(), ("prompts", "try")]
TEXTS = {english for name, (_, english) in OF_COMMANDS.items() if name.startswith(("does_", "opt_", "arg_"))}
TREE = """
import json
from typer.main import get_command
from qwen_allinone.cli import app

def told(command, path):
    yield path, command.help, command.callback and command.callback.__doc__
    for param in command.params:
        yield f"{path} {param.name}", param.help, None
    for name, inner in getattr(command, "commands", {}).items():
        yield from told(inner, f"{path} {name}")

print(json.dumps(list(told(get_command(app), ""))))
"""
QUICK = """
import sys
from typer.testing import CliRunner
from qwen_allinone.cli import app

for words in (["--version"], ["--help"], ["keys", "--help"], ["keys", "new", "--help"], ["serve", "--help"]):
    assert CliRunner().invoke(app, words).exit_code == 0, words
print("torch" in sys.modules)
"""


def environment(language: str, **more: str) -> dict[str, str]:
    locale = {"LC_ALL": "", "LC_MESSAGES": "", "LANG": TERMINALS[language]}
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("QAIO_", "FORCE_", "PY_COLORS"))}
    return kept | locale | {"PYTHONIOENCODING": "utf-8", "GITHUB_ACTIONS": "", "COLUMNS": "20"} | more


def python(language: str, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words],
        env=environment(language, PYTHONPATH=os.pathsep.join(sys.path)),
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def command(language: str, *words: str, folder: Path = forked.PROJECT, **more: str) -> str:
    done = forked.run(*words, environment=environment(language, **more), folder=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


@cache
def tree(language: str) -> dict[str, tuple[str, str | None]]:
    """What each command, argument and option says of itself, and its docstring."""
    return {path: (text, doc) for path, text, doc in json.loads(python(language, "-c", TREE))}


@pytest.mark.parametrize("words", HELPS, ids=" ".join)
def test_a_chinese_terminal_has_chinese_help_and_no_english_of_it(words: tuple[str, ...]) -> None:
    shown = command("zh", *words, "--help")
    assert shown.startswith("用法：") and "\n选项:\n" in shown and "显示这段说明" in shown
    assert OF_COMMANDS[f"does_{'_'.join(words) or 'all'}"][0].split("\n")[0] in shown
    assert [line for line in shown.splitlines() if line.strip() and not CHINESE.search(line)] == []
    assert [text for text in TEXTS if text in shown] == []
    for word in ("[required]", "default", "OPTIONS", "COMMAND", "Usage", "Commands", "Arguments"):
        assert word not in shown


@pytest.mark.parametrize("words", HELPS, ids=" ".join)
def test_any_other_terminal_has_english_help(words: tuple[str, ...]) -> None:
    shown = command("en", *words, "--help")
    assert shown.startswith("Usage: ") and "\nOptions:\n" in shown and "Show this message and exit." in shown
    assert OF_COMMANDS[f"does_{'_'.join(words) or 'all'}"][1].split("\n")[0] in shown
    assert not CHINESE.search(shown.replace("1=正面,0=负面", ""))


def test_every_command_argument_and_option_is_told_of_in_both() -> None:
    chinese, english = tree("zh"), tree("en")
    assert chinese.keys() == english.keys() and len(english) > 90
    pairs = set(OF_COMMANDS.values())
    assert [path for path in english if (chinese[path][0], english[path][0]) not in pairs] == []


def test_what_a_command_says_of_itself_is_what_its_code_says() -> None:
    docs = {path: (text, doc) for path, (text, doc) in tree("en").items() if doc}
    assert len(docs) == 21
    assert {path for path, (text, doc) in docs.items() if doc and text.split() != doc.split()} == set()


def test_what_computes_nothing_does_not_wait_for_torch() -> None:
    assert python("en", "-c", QUICK) == "False\n"


def test_a_command_that_is_nearly_named_is_named_before_it_was_ever_asked_for() -> None:
    assert "Did you mean 'feedback'?" in CliRunner().invoke(app, ["fedback"]).output


@pytest.mark.parametrize(
    ("words", "chinese", "english"),
    [
        ("chek", "没有命令 'chek'，是不是 'check'？", "No such command 'chek'. Did you mean 'check'?"),
        ("nothing", "没有命令 'nothing'", "No such command 'nothing'."),
        ("check --foo", "没有选项 --foo", "No such option: --foo"),
        ("check --sed 3", "没有选项 --sed（也许是：--seed）", "No such option: --sed (Possible options: --seed)"),
        ("eval", "缺少参数 'task'", "Missing argument 'task'."),
        ("eval sentiment", "缺少选项 '--data'", "Missing option '--data'."),
        ("eval sentiment --data", "选项 '--data' 后面要有一个值", "Option '--data' requires an argument."),
        ("eval a b --data x", "多余的参数：b", "Got unexpected extra argument(s) (b)"),
        (
            "eval a --data x --limit -1",
            "'--limit' 的值不对：应不小于 0",
            "Invalid value for '--limit': Input should be",
        ),
        ("eval a --data x --limit x", "'--limit' 的值不对：应为整数", "Invalid value for '--limit': Input should be"),
        (
            "feedback x --engine y",
            "'--engine' 的值不对：'y' 不是 'process', 'ray' 之一",
            "Invalid value for '--engine': 'y' is not one of 'process', 'ray'.",
        ),
        ("feedback --resume=1", "选项 '--resume' 后面不能有值", "Option '--resume' does not take a value."),
        ("prompts foo", "没有命令 'foo'", "No such command 'foo'."),
    ],
)
def test_a_command_line_that_is_wrong_is_told_so_in_the_language_of_the_terminal(
    words: str, chinese: str, english: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for locale, told, usage in (("zh_CN.UTF-8", chinese, "用法："), ("C.UTF-8", english, "Usage: ")):
        monkeypatch.setenv("LC_ALL", locale)
        result = CliRunner().invoke(app, words.split())
        assert result.exit_code == 2 and f"qwen-allinone: {told}" in result.stderr, result.stderr
        if "=" not in words and not words.endswith("--data"):  # what typer's parser finds belongs to no command yet
            assert result.stderr.startswith(usage) and "--help'" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize("language", TERMINALS)
def test_piped_help_is_not_wrapped_however_narrow_the_terminal_is(language: str) -> None:
    shown = command(language, "tune-prompt", "--help", COLUMNS="20")
    assert shown == command(language, "tune-prompt", "--help", COLUMNS="200")
    assert any(OF_COMMANDS["opt_instruction"][language == "en"] in line for line in shown.splitlines())


def test_a_terminal_has_boxes_with_headings_of_its_own_and_nothing_is_cut_off() -> None:
    shown = command("zh", "tune", "--help", FORCE_COLOR="1", TERM="xterm", COLUMNS="70")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert "─ 参数 ─" in plain and "─ 选项 ─" in plain and "[必填]" in plain and "[默认：8]" in plain
    assert "…" not in plain and "Options" not in plain and "required" not in plain
    assert max(map(len, plain.splitlines())) <= 70


@pytest.mark.parametrize(
    ("language", "words"), [("zh", ("版本", "生效时间", "原因")), ("en", ("version", "since", "why"))]
)
def test_the_headings_of_a_table_are_in_one_line_of_a_pipe(
    language: str, words: tuple[str, ...], tmp_path: Path
) -> None:
    Versions(tmp_path / "data" / "prompts").keep(forked.PROJECT / "prompts")
    Versions(tmp_path / "data" / "prompts").accept("0" * 12, "start")
    shown = command(language, "prompts", "list", folder=tmp_path, COLUMNS="10")
    assert all(word in shown.splitlines()[1] for word in words)


def test_tables_have_chinese_headings_and_json_english_keys(
    demo_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in {"QAIO_MODEL": "demo", "QAIO_THREADS": "1", "LC_ALL": "zh_CN.UTF-8"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    Path("rows.csv").write_text("text,label\n今天很开心,正面\n等了两个小时没人理我,正面\n", encoding="utf-8")
    runner = CliRunner(env={"COLUMNS": "240", "TERM": "dumb"})

    def shown(*words: str) -> str:
        result = runner.invoke(app, words)
        assert result.exit_code == 0, result.output
        return result.stdout

    measured = shown("eval", "sentiment", "--data", "rows.csv")
    for word in (
        "sentiment，用 rows.csv",
        "指标",
        "准确率",
        "宏平均 F1",
        "正面 的 F1",
        "用时 p99",
        "混淆矩阵",
        "答 负面",
    ):
        assert word in measured
    keys: dict[str, Any] = json.loads(shown("eval", "sentiment", "--data", "rows.csv", "--json"))
    assert keys.keys() == {"rows", "accuracy", "macro_f1", "ece", "f1", "confusion", "rows_a_second"}
    assert "标准用例" in (checked := shown("check", "sentiment", "--no-wrong")) and "share" not in checked
    told = shown("doctor")
    listed = [line for line in told.splitlines() if "QAIO_" in line]
    assert len([line for line in listed if CHINESE.search(line)]) >= len(Settings.model_fields)
    for word in ("设置（* 由你设置）", "含义", "sentiment：正面 的 token", "停止 id", "演示模型只是替代品"):
        assert word in told
    rows = told[told.index("停止 id") :].splitlines()
    assert [row for row in rows if "cores" in row or "gold cases" in row] == []
