"""The catalogue of messages: whole in both languages, used by all that is told, and chosen as people ask."""

from __future__ import annotations

import ast
import errno
import os
import pickle
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from string import Formatter

import pytest
from pydantic_core import PydanticKnownError

from qwen_allinone.alerts import load_alerts
from qwen_allinone.desk.sources import open_source
from qwen_allinone.engine import FinishReason, Result
from qwen_allinone.errors import (
    AccessFileError,
    AlertsFileError,
    CheckpointError,
    InputTooLong,
    RateLimited,
    ReloadRefused,
    TaskFileError,
    UnknownTask,
)
from qwen_allinone.service import Answer, judge
from qwen_allinone.settings import Settings
from qwen_allinone.tasks import Case, Registry
from qwen_allinone.tasks.loader import load_task
from qwen_allinone.wording import Language, in_language, meant, message_of, of_environment, of_header, said
from qwen_allinone.wording.of_commands import OF_COMMANDS
from qwen_allinone.wording.of_settings import OF_SETTINGS
from qwen_allinone.wording.to_clients import TO_CLIENTS
from qwen_allinone.wording.to_operators import TO_OPERATORS
from tests.support.receiver import write_alerts

PROJECT = Path(__file__).resolve().parents[2]
PACKAGE = PROJECT / "qwen_allinone"
CHINESE = re.compile(r"[\u4e00-\u9fff]")
# What stands in both languages alike: a field and its complaint.
ALIKE = {"of_field", "of_setting", "of_value", "of_file", "of_key", "further", "and_fix", "because", "checkpoint"}
ALIKE |= {"needs_more"}
PARTS = (TO_CLIENTS, TO_OPERATORS, OF_COMMANDS)
CATALOGUE = TO_CLIENTS | TO_OPERATORS | OF_COMMANDS
# An example of what to send may be Chinese; the API's texts and labels mostly are.
EXAMPLES = {"body_example", "opt_map"}
# Found by the names that pydantic and the system have for them: the English is theirs, the Chinese needs not all of it.
OTHERS = [name for name in TO_OPERATORS if name.startswith(("pydantic_", "system_"))]
# Chinese that is no message: what the documentation of the API says, and what goes into a prompt or is looked for in a text.
DOCUMENTATION = ("description", "summary", "examples")
# An alert is read by a group of people at once, and is a Chinese text, whoever started the service.
NO_MESSAGES = {
    "csv_files.py",
    "feedback_columns.py",
    "alerts/channels.py",
    "cli/alert_commands.py",
    "cli/labelled_commands.py",
    "http/app.py",
    "http/chat.py",
    "http/idempotency.py",
    "http/openai.py",
    "http/reply_fields.py",
    "http/request_terms.py",
    "http/responses.py",
    "http/systemone.py",
    "http/text_completions.py",
    "service/codec.py",
    "service/embeddings.py",
    "service/fitting.py",
    "service/memory_keeper.py",
    "service/prompt_history.py",
    "service/questions.py",
    "service/recall.py",
    "service/secret_text.py",
    "state/memories.py",
    "tasks/masking.py",
}
# What operators read the errors of; elsewhere what is raised in English is for programmers.
FOR_OPERATORS = ("cli/", "desk/", "tasks/", "alerts/", "access/", "model/config.py", "model/hub.py", "setting")
SHOWN_BY = {"print", "status", "echo", "tell", "exit_with", "print_problems", "add_task", "TextColumn", "track"}
# Arguments that say where a mistake is, not which; an OSError is caught again by who raises it.
PLACES = {"TaskFileError": 2, "OSError": 9}
WORDS = re.compile(r"[A-Za-z]{3,}|\b[a-z]{2,} [a-z]{2,}")
DESK = "desk"  # its report is a Chinese document, whoever starts it


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Every module but the catalogue, by its path within the package."""
    for file in sorted(PACKAGE.rglob("*.py")):
        if file.parent.name != "wording":
            yield file.relative_to(PACKAGE).as_posix(), ast.parse(file.read_text("utf-8"))


def fields(template: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(template) if name is not None}


def calls(tree: ast.Module) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("said", "worded"):
            yield node


def is_chinese(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and bool(CHINESE.search(node.value))


def chinese_constants(tree: ast.Module) -> Iterator[str]:
    """Texts with Chinese in them, but for docstrings and what documents the API."""
    passed = set[int]()
    for node in ast.walk(tree):
        is_doc = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if is_doc or (isinstance(node, ast.keyword) and node.arg in DOCUMENTATION):
            passed.update(map(id, ast.walk(node)))
        elif is_chinese(node) and id(node) not in passed:
            yield ast.unparse(node)


def test_no_two_messages_have_one_name() -> None:
    assert len(CATALOGUE) == sum(map(len, PARTS))


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_message_is_whole_in_both_languages(name: str) -> None:
    chinese, english = CATALOGUE[name]
    assert fields(chinese) == fields(english) or (name in OTHERS and fields(chinese) < fields(english))
    assert chinese.strip() and english.strip()
    if name not in ALIKE:
        assert CHINESE.search(chinese), "no Chinese"
    if name not in EXAMPLES:
        assert not CHINESE.search(english), "Chinese in the English message"


def test_every_call_names_a_message_and_fills_in_all_it_needs() -> None:
    for path, tree in modules():
        for call in calls(tree):
            name = call.args[0]
            if not isinstance(name, ast.Constant):
                assert path in ("http/error_answers.py", "cli/terminal.py", "cli/help_texts.py"), (
                    f"{path}: a name that is computed"
                )
                continue
            given = {keyword.arg for keyword in call.keywords}
            if None not in given:  # no **
                assert given == fields(CATALOGUE[name.value][0]), f"{path}: {name.value}"


def test_no_message_of_the_catalogue_is_left_over() -> None:
    used = {
        node.value
        for _, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert set(CATALOGUE) - used <= {"is_it", "meant", "one_or_other", *OTHERS}


def test_no_message_stands_outside_the_catalogue() -> None:
    found = {
        path: texts
        for path, tree in modules()
        if path not in NO_MESSAGES and not path.startswith(DESK) and (texts := list(chinese_constants(tree)))
    }
    assert found == {}


def test_nothing_is_raised_with_words_of_its_own() -> None:
    for path, tree in modules():
        for node in ast.walk(tree):
            raised = isinstance(node, ast.Raise) or (
                isinstance(node, ast.Call) and "InvalidInput" in ast.unparse(node.func)
            )
            assert not (raised and any(map(is_chinese, ast.walk(node)))), f"{path}: {node.lineno}"


def own_words(node: ast.AST) -> Iterator[str]:
    """English texts within a node, but for the names of messages, rich's markup, and what is only looked up."""
    if isinstance(node, ast.Call) and ast.unparse(node.func) in ("said", "worded"):
        return
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        text = re.sub(r"\[[^\]]*\]|\{[^}]*\}", "", node.value).replace("qwen-allinone", "")
        yield from [node.value] if WORDS.search(text) else []
    if isinstance(node, ast.FormattedValue):  # what stands after the colon is a form
        yield from own_words(node.value)
    elif not isinstance(node, ast.Subscript | ast.keyword):
        for inner in ast.iter_child_nodes(node):
            yield from own_words(inner)


def test_commands_print_no_words_of_their_own() -> None:
    found = [
        (path, node.lineno, words)
        for path, tree in modules()
        if path.startswith("cli/")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in SHOWN_BY
        for part in [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg == "description")]
        for words in own_words(part)
    ]
    assert found == []


def test_nothing_that_operators_read_is_raised_in_words_of_its_own() -> None:
    found = [
        (path, node.lineno, words)
        for path, tree in modules()
        if path.startswith(FOR_OPERATORS)
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)
        for part in node.exc.args[PLACES.get(ast.unparse(node.exc.func), 0) :]
        for words in own_words(part)
        if " " in words
    ]
    assert found == []


@pytest.mark.parametrize("name", OF_SETTINGS)
def test_what_a_setting_means_is_told_in_both_languages(name: str) -> None:
    chinese, english = OF_SETTINGS[name]
    assert CHINESE.search(chinese) and len(chinese) > 4
    assert not CHINESE.search(english) and len(english) > 10


def test_every_setting_has_a_meaning_and_nothing_else_has() -> None:
    assert list(OF_SETTINGS) == list(Settings.model_fields)


@pytest.mark.parametrize("name", [name for name in OTHERS if name.startswith("pydantic_")])
def test_what_pydantic_says_is_in_the_catalogue_word_for_word(name: str) -> None:
    kind, english = name.removeprefix("pydantic_"), TO_OPERATORS[name][1]
    numbers = {"min_length", "max_length", "actual_length", "gt", "ge", "lt", "le"}
    told = {field: 2 if field in numbers else field for field in fields(english)}
    theirs = PydanticKnownError(kind, told or None).message()  # type: ignore[arg-type]  # one of its names
    assert str(said(name, **told)).replace("(s)", "s") == theirs


@pytest.mark.parametrize("name", [name for name in OTHERS if name.startswith("system_")])
def test_what_the_system_says_is_in_the_catalogue_word_for_word(name: str) -> None:
    theirs = os.strerror(getattr(errno, name.removeprefix("system_")))
    assert TO_OPERATORS[name][1] == theirs
    filled = said("file_unreadable", file="a.csv", error=theirs)
    assert theirs in str(filled) and in_language(filled, "zh") == f"无法读取 a.csv（{TO_OPERATORS[name][0]}）"


def test_the_proxy_has_its_own_errors_in_both_languages() -> None:
    template = (PROJECT / "deploy" / "nginx.conf.template").read_text("utf-8")
    _, _, table = template.partition("map $error_language$status $error_message {")
    entries = re.findall(r'^ +"?(?P<status>[~^\w-]+)"? "(?P<message>.+)";$', table.partition("}\n")[0], re.M)
    told = {status.replace("~^en-", "en-default"): message for status, message in entries}
    chinese = {status for status in told if not status.startswith("en-")}
    assert len(chinese) == 12
    chinese.remove("414")  # nginx has read no header by then
    assert {f"en-{status}" for status in chinese} == {status for status in told if status.startswith("en-")}
    for status in chinese:
        assert CHINESE.search(told[status]) and not CHINESE.search(told[f"en-{status}"])


def test_what_is_filled_in_is_in_the_language_too() -> None:
    unknown = UnknownTask("sentimnt", ["sentiment", "chat"]).message
    assert str(unknown) == "没有名为 'sentimnt' 的任务，是不是 'sentiment'？可用的任务有：sentiment、chat"
    assert in_language(unknown, "zh") == str(unknown)
    assert in_language(unknown, "en") == (
        "there is no task named 'sentimnt'; did you mean 'sentiment'? there are: sentiment, chat"
    )
    slow = RateLimited(said("requests_a_minute", limit=3), retry_after=9).message
    assert slow == "请求太频繁：每分钟最多 3 次，请在 9 秒后再试"
    assert in_language(slow, "en") == "too many requests: at most 3 a minute; try again in 9 seconds"


def test_operators_are_told_in_english_unless_their_terminal_is_chinese(tmp_path: Path) -> None:
    (tmp_path / "urgent").mkdir()
    with pytest.raises(TaskFileError) as raised:
        load_task(tmp_path / "urgent")
    assert (
        str(raised.value) == f"{tmp_path}/urgent/prompt.md: (file): is missing. Fix: create it, see docs/task-folder.md"
    )
    chinese = in_language(message_of(raised.value), "zh")
    assert chinese == f"{tmp_path}/urgent/prompt.md：(file)：缺失。改法：请建立它，见 docs/task-folder.md"


def test_an_error_within_an_error_is_in_the_language_too() -> None:
    inner = CheckpointError(said("no_model_folder", folder="nope"))
    outer = AccessFileError(said("of_setting", setting="QAIO_MODEL", error=inner))
    assert in_language(message_of(outer), "zh").startswith("QAIO_MODEL：模型文件夹 nope 不存在。三条出路：")
    assert str(outer).startswith("QAIO_MODEL: the model folder nope does not exist. Three ways out: (1)")


def test_an_operators_message_within_a_clients_is_english_until_a_language_is_asked_for() -> None:
    wrong = TaskFileError(Path("shop/prompt.md"), "(body)", said("is_empty"), said("write_prompt_below"))
    told = ReloadRefused(message_of(wrong)).message
    before, within = "没有重新加载，原来的继续使用，请先改正：", "shop/prompt.md: (body): is empty. Fix: "
    assert str(told) == in_language(told, None) == f"{before}{within}write the prompt below the front matter"
    assert in_language(told, "zh") == f"{before}shop/prompt.md：(body)：是空的。改法：请在前言下面写提示词"
    assert in_language(told, "en").startswith(
        "nothing was reloaded and what there was goes on, correct this first: shop/"
    )


@pytest.mark.parametrize(
    ("rule", "chinese"),
    [
        ("{name: a, when: {}, channels: ops}", "rules[1].when：对每条文字都会报警。改法：请写一个条件"),
        ("{name: a, when: {pattern: 'a*'}, channels: ops}", "'*'（第 2 个字符）没有限度地重复。改法：请写明最多几次"),
        ("{name: a, when: {intent: 投诉}, channels: op}", "没有渠道 'op'，也许是 ops。改法：请写 ops 中的几个"),
        ("{name: a, when: {intent: 投拆}, channels: ops}", "永远不会报警：intent 从不回答 '投拆'"),
    ],
)
def test_mistakes_in_the_rules_of_alerts_are_told_in_both(rule: str, chinese: str, tmp_path: Path) -> None:
    file = write_alerts(tmp_path, "https://1.1.1.1/x", f"  - {rule}\n")
    with pytest.raises(AlertsFileError) as raised:
        load_alerts(file, Registry.load(PROJECT / "prompts"))
    assert "alerts.yaml, line 4: rules[1]" in str(raised.value) and " Fix: " in str(raised.value)
    told = in_language(message_of(raised.value), "zh")
    assert "alerts.yaml 第 4 行：" in told and chinese in told, told


def test_a_question_has_no_mark_behind_its_own() -> None:
    told = said("no_such_column", name="coment", name2=meant("coment", ["comment"]), there=["id"], flag="--text")
    assert in_language(told, "en") == "no column 'coment', did you mean comment? there are: id. Name yours with --text"
    assert in_language(told, "zh") == "没有列 'coment'，也许是 comment；有的是：id。请用 --text 指明"
    unlike = said("no_such_column", name="x", name2=meant("x", ["comment"]), there=["id"], flag="--text")
    assert in_language(unlike, "en").startswith("no column 'x'; there are")
    error = TaskFileError(Path("a"), "b", said("key_unknown", meant=meant("ruls", ["rules"])), said("remove_it"))
    assert str(error) == "a: b: is not known, did you mean rules? Fix: remove it"


def test_braces_that_a_client_sends_fill_nothing_in() -> None:
    told = said("input_tokens", name="{most}", count=3, most=2)
    assert in_language(told, "en") == "{most} is too long (3 tokens), at most 2 tokens, shorten it and try again"


def test_a_message_survives_where_errors_are_copied() -> None:
    error = InputTooLong(said("more_than_context", longest=5))
    copied = pickle.loads(pickle.dumps(error.message))
    assert in_language(copied, "en") == "text and reply may have 5 tokens together, shorten the text"


def test_what_is_no_message_of_the_catalogue_stays_as_it_is() -> None:
    assert in_language("Not Acceptable", "zh") == "Not Acceptable"
    assert in_language(said("empty"), None) == "请输入内容"


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", None),
        ("*", None),
        ("en", "en"),
        ("en-GB,en;q=0.9", "en"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("zh-TW, en;q=0.8", "zh"),
        ("EN-us", "en"),
        ("fr-FR,fr;q=0.9,en;q=0.5", "en"),
        ("fr", None),
        ("en;q=0.2, zh;q=0.7", "zh"),
        ("en;q=0, zh;q=0", None),
        ("en;q=much", None),
        ("english", None),
        (";;,,;q=", None),
    ],
)
def test_the_language_of_a_header(header: str, language: Language | None) -> None:
    assert of_header(header) == language


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({}, "en"),
        ({"LANG": "C.UTF-8"}, "en"),
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "en_US.UTF-8"}, "en"),
        ({"LANG": "en_US.UTF-8", "LC_MESSAGES": "zh_TW"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": ""}, "zh"),
    ],
)
def test_the_language_of_a_terminal(environment: dict[str, str], language: Language) -> None:
    assert of_environment(environment) == language


@pytest.mark.parametrize(
    ("written", "instead", "chinese", "english"),
    [
        ("kind: label", "kind: [label", "(yaml)：第 {}", "(yaml): line {}"),
        ("strategy: greedy", "strategy: gredy", "应为 'greedy' 或 'sample'", "Input should be 'greedy' or 'sample'"),
        ("strategy: greedy", "strategy: sample", "标签任务只用贪心解码", "a label task is decoded greedily"),
        ("name: 正面, ", "", "缺失", "is missing. Fix: add this key, as in `name: urgent`"),
        ("kind: label", "kind: text", "labels、unknown 和 contextual 只用于", "labels, unknown and contextual are for"),
        (
            "clean: true",
            "clean: 1",
            "clean：应为 true 或 false",
            "clean: Input should be a valid boolean",
        ),
    ],
)
def test_mistakes_in_a_prompt_are_told_in_both(
    written: str, instead: str, chinese: str, english: str, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(PROJECT / "prompts" / "sentiment", tmp_path / "sentiment"))
    text = (folder / "prompt.md").read_text("utf-8").replace(written, instead, 1)
    (folder / "prompt.md").write_text(text, "utf-8")
    line = text[: text.index(instead)].count("\n") + 2  # where the bracket is missed
    with pytest.raises(TaskFileError) as raised:
        load_task(folder)
    told = in_language(message_of(raised.value), "zh")
    assert chinese.format(line) in told and "改法：" in told, told
    assert english.format(line) in str(raised.value) and not CHINESE.search(str(raised.value).split("Fix")[0])


def test_rows_that_are_none_are_told_in_both_and_are_chinese_in_the_report(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,day\n好,1,2\n", "utf-8")
    (row,) = open_source(tmp_path / "rows.csv").rows()
    assert row.problem == "有 3 列，应为 2 列，多出：2"
    assert in_language(row.problem, "en") == "3 columns where there should be 2, too many: 2"


def test_why_an_answer_to_a_gold_case_is_wrong_is_told_in_both() -> None:
    outcome = judge(
        Case(inputs={"text": "x"}, none=("恭喜",)), Answer("chat", Result(FinishReason.STOP, (1,), 1, 0), text="恭喜你")
    )
    assert outcome.problem == "must not contain 恭喜" and in_language(outcome.problem, "zh") == "不应有 恭喜"
