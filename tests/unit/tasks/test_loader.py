"""The loader is strict: every doubtful file is an error that names file, key and fix."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_allinone.engine import Sampling
from qwen_allinone.errors import TaskFileError
from qwen_allinone.json_schema import grammar_of
from qwen_allinone.service.fitted_task import sampling
from qwen_allinone.tasks import Registry, Task, load_cases, load_task
from qwen_allinone.tasks.task import Variable
from qwen_allinone.wording import in_language, message_of

LABEL = """\
---
description: 判断一段文字的情感极性
inputs:
  text: {max_tokens: 64}
output:
  kind: label
  labels: [{name: 正面, emoji: 😄}, {name: 负面}]
decoding: {strategy: greedy, max_new_tokens: 8}
---
只回答“正面”或“负面”。
输入：$text
情感：
"""
CHAT = """\
---
description: 回应用户
inputs: {text: {max_tokens: 64}}
output: {kind: text}
decoding: {strategy: sample, temperature: 0.7, top_p: 0.9, max_new_tokens: 32}
---
system: 你是一位聊天伙伴。
user: $text
"""

MOOD = CHAT.replace(
    "inputs: {text: {max_tokens: 64}}",
    "inputs: {text: {max_tokens: 64}, sentiment: {max_tokens: 16, unsure: {name: 平静, below: 0.75}}}",
).replace("user: $text", "user: $sentiment $text")


def write(folder: Path, prompt: str | bytes, cases: str | bytes | None = None) -> Path:
    folder.mkdir()
    for name, content in (("prompt.md", prompt), ("cases.yaml", cases)):
        if content is not None:
            (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def changed(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, f"{old!r} must occur once"
    return text.replace(old, new)


def check_message(error: TaskFileError, file: Path, key: str, *words: str) -> None:
    """`FILE: KEY: problem. Fix: what to write`, each part saying something."""
    text = str(error)
    assert (error.file, error.key) == (file, key)
    assert text.startswith(f"{file}: {key}: ")
    problem, _, fix = text.removeprefix(f"{file}: {key}: ").partition(". Fix: ")
    assert problem and fix
    for word in words:
        assert word in text


def test_a_label_task_is_read_whole(tmp_path: Path) -> None:
    task = load_task(write(tmp_path / "mood", LABEL))
    assert (task.name, task.is_chat, task.labels) == ("mood", False, ("正面", "负面"))
    assert task.spec.output.labels[0].emoji == "😄"
    assert task.spec.inputs["text"].max_tokens == 64
    assert task.messages[0].parts == ("只回答“正面”或“负面”。\n输入：", Variable("text"), "\n情感：")


def test_a_chat_task_is_split_into_roles(tmp_path: Path) -> None:
    task = load_task(write(tmp_path / "chat", CHAT))
    assert task.is_chat
    assert [(message.role, message.parts) for message in task.messages] == [
        ("system", ("你是一位聊天伙伴。",)),
        ("user", (Variable("text"),)),
    ]


def test_a_mood_may_be_unsure(tmp_path: Path) -> None:
    unsure = load_task(write(tmp_path / "chat", MOOD)).spec.inputs["sentiment"].unsure
    assert unsure is not None and (unsure.name, unsure.below) == ("平静", 0.75)


def test_every_knob_of_a_prompt_reaches_the_engine(tmp_path: Path) -> None:
    knobs = "temperature: 0.7, top_p: 0.8, top_k: 9, min_p: 0.2, repetition_penalty: 1.1, max_new_tokens: 32"
    task = load_task(write(tmp_path / "chat", changed(CHAT, SAMPLE_LINE, f"decoding: {{strategy: sample, {knobs}}}")))
    assert sampling(task) == Sampling(32, temperature=0.7, top_p=0.8, top_k=9, min_p=0.2, repetition_penalty=1.1)


def test_a_chat_may_show_earlier_turns(tmp_path: Path) -> None:
    body = "user: 你好\nassistant: 你好呀\n第二行\nuser: $text\n"
    task = load_task(write(tmp_path / "chat", changed(CHAT, "system: 你是一位聊天伙伴。\nuser: $text\n", body)))
    assert [(message.role, message.parts) for message in task.messages] == [
        ("user", ("你好",)),
        ("assistant", ("你好呀\n第二行",)),
        ("user", (Variable("text"),)),
    ]


def test_windows_line_ends_change_nothing(tmp_path: Path) -> None:
    unix = load_task(write(tmp_path / "unix", LABEL))
    windows = load_task(write(tmp_path / "windows", LABEL.replace("\n", "\r\n")))
    assert (unix.spec, unix.messages) == (windows.spec, windows.messages)


def test_a_byte_order_mark_changes_nothing(tmp_path: Path) -> None:
    task = load_task(write(tmp_path / "notepad", b"\xef\xbb\xbf" + LABEL.encode()))
    assert task.labels == ("正面", "负面")


LABELS_LINE = "  labels: [{name: 正面, emoji: 😄}, {name: 负面}]"
SAMPLE_LINE = "decoding: {strategy: sample, temperature: 0.7, top_p: 0.9, max_new_tokens: 32}"
GREEDY_LINE = "decoding: {strategy: greedy, max_new_tokens: 8}"

PROMPT_FAULTS = {
    "an unknown key at the top": (LABEL, "description:", "descriptoin: x\ndescription:", "descriptoin", ["spelling", "decoding"]),
    "an unknown key below": (LABEL, "{max_tokens: 64}", "{max_tokens: 64, max_chars: 9}", "inputs.text.max_chars", ["remove it"]),
    "an unknown decoding key": (CHAT, "top_p: 0.9", "topp: 0.9", "decoding.topp", ["remove it"]),
    "no description": (LABEL, "description: 判断一段文字的情感极性\n", "", "description", ["add this key"]),
    "an empty description": (LABEL, "description: 判断一段文字的情感极性", 'description: ""', "description", []),
    "no inputs": (LABEL, "inputs:\n  text: {max_tokens: 64}", "inputs: {}", "inputs", []),
    "an input without a cap": (LABEL, "{max_tokens: 64}", "{}", "inputs.text.max_tokens", ["add this key"]),
    "a cap of zero": (LABEL, "max_tokens: 64", "max_tokens: 0", "inputs.text.max_tokens", ["greater than or equal to 1"]),
    "a cap in words": (LABEL, "max_tokens: 64", "max_tokens: many", "inputs.text.max_tokens", ["'many'"]),
    "an undeclared variable": (LABEL, "输入：$text", "输入：$text $mood", "$mood", ["not declared", "mood: {max_tokens: ...}"]),
    "an input under another name": (LABEL, "输入：$text", "输入：$message", "$message", ["not declared. Fix: write $text instead of $message, or rename the input text to message"]),
    "a tab": (LABEL, "  text: {max_tokens: 64}", "\ttext: {max_tokens: 64}", "(yaml)", ["line 4: has a tab where YAML allows none. Fix: write spaces"]),
    "a tab after spaces": (LABEL, "  kind: label\n", "  kind: label\n\tindent: 1\n", "(yaml)", ["line 7: has a tab where YAML"]),
    "a character that begins nothing": (LABEL, "判断一段文字的情感极性", "@\t", "(yaml)", ["line 2: is no YAML", "correct the YAML"]),
    "an unused input": (LABEL, "输入：$text", "输入：", "inputs.text", ["never used", "$text"]),
    "a label that YAML takes for a boolean": (LABEL, "name: 负面", "name: no", "output.labels.1.name", ["booleans", "quotes"]),
    "a label `yes`": (LABEL, "name: 负面", "name: yes", "output.labels.1.name", ["booleans", "quotes"]),
    "a label `on`": (LABEL, "name: 负面", "name: on", "output.labels.1.name", ["booleans", "quotes"]),
    "a label that is a number": (LABEL, "name: 负面", "name: 1", "output.labels.1.name", ['quotes around it ("1")']),
    "a label that YAML takes for nothing": (LABEL, "name: 负面", "name: null", "output.labels.1.name", ["text"]),
    "a label with blanks around it": (LABEL, "name: 负面", 'name: " 负面"', "output.labels.1.name", []),
    "a label of nothing": (LABEL, "name: 负面", 'name: ""', "output.labels.1.name", []),
    "a label that begins another": (LABEL, "name: 负面", "name: 正面的", "output", ["'正面'", "beginning of '正面的'", "rename"]),
    "a label twice": (LABEL, "name: 负面", "name: 正面", "output", ["'正面'", "twice", "rename"]),
    "one label": (LABEL, ", {name: 负面}", "", "output", ["two labels"]),
    "no label": (LABEL, LABELS_LINE, "  labels: []", "output", ["two labels"]),
    "labels for a text task": (CHAT, "{kind: text}", "{kind: text, labels: [{name: a}, {name: b}]}", "output", ["kind: label"]),
    "an abstain label for a text task": (CHAT, "{kind: text}", "{kind: text, unknown: {name: a, below: 0.5}}", "output", ["kind: label"]),
    "an abstain label that is a label": (LABEL, LABELS_LINE, LABELS_LINE + "\n  unknown: {name: 正面, below: 0.6}", "output", ["unknown.name", "another name"]),
    "an abstain bound of one": (LABEL, LABELS_LINE, LABELS_LINE + "\n  unknown: {name: 未知, below: 1.0}", "output.unknown.below", ["less than 1"]),
    "a label's bound of nothing": (LABEL, "name: 负面", "name: 负面, at_least: 0.0", "output.labels.1.at_least", ["greater than 0"]),
    "a label's bound of one": (LABEL, "name: 负面", "name: 负面, at_least: 1.0", "output.labels.1.at_least", ["less than 1"]),
    "a label's bound in words": (LABEL, "name: 负面", "name: 负面, at_least: low", "output.labels.1.at_least", ["'low'"]),
    "an unsure mood for another input": (CHAT, "text: {max_tokens: 64}", "text: {max_tokens: 64, unsure: {name: 平静, below: 0.7}}", "(front matter)", ["inputs.text.unsure", "sentiment", "remove it"]),
    "an unsure mood without a name": (MOOD, "name: 平静, ", "", "inputs.sentiment.unsure.name", ["add this key"]),
    "an unsure mood with an empty name": (MOOD, "name: 平静", "name: ''", "inputs.sentiment.unsure.name", ["at least 1"]),
    "an unsure mood with a long name": (MOOD, "name: 平静", "name: " + "静" * 65, "inputs.sentiment.unsure.name", ["at most 64"]),
    "an unsure bound of one": (MOOD, "below: 0.75", "below: 1.0", "inputs.sentiment.unsure.below", ["less than 1"]),
    "an unsure bound of nothing": (MOOD, "below: 0.75", "below: 0.0", "inputs.sentiment.unsure.below", ["greater than 0"]),
    "an unsure mood with more to it": (MOOD, "below: 0.75", "below: 0.75, emoji: x", "inputs.sentiment.unsure.emoji", ["remove it"]),
    "an unknown kind": (CHAT, "{kind: text}", "{kind: list_of_things}", "output.kind", ["'label'", "'text'"]),
    "a slip": (CHAT, "temperature: 0.7", "temprature: 0.7", "decoding.temprature", ["did you mean temperature?"]),
    "temperature 0": (CHAT, "temperature: 0.7", "temperature: 0", "decoding.temperature", ["greater than"]),
    "temperature -1": (CHAT, "temperature: 0.7", "temperature: -1", "decoding.temperature", ["greater than"]),
    "a temperature that divides to infinity": (CHAT, "temperature: 0.7", "temperature: 1.0e-40", "decoding.temperature", ["greater than"]),
    "a temperature that is not a number": (CHAT, "temperature: 0.7", "temperature: .nan", "decoding.temperature", []),
    "top_p 0": (CHAT, "top_p: 0.9", "top_p: 0", "decoding.top_p", ["greater than 0"]),
    "top_p 1.5": (CHAT, "top_p: 0.9", "top_p: 1.5", "decoding.top_p", ["less than or equal to 1"]),
    "top_k -1": (CHAT, "top_p: 0.9", "top_k: -1", "decoding.top_k", ["greater than or equal to 0"]),
    "min_p 2": (CHAT, "top_p: 0.9", "min_p: 2", "decoding.min_p", ["less than or equal to 1"]),
    "repetition_penalty 0": (CHAT, "top_p: 0.9", "repetition_penalty: 0", "decoding.repetition_penalty", ["greater than or equal to 0.01"]),
    "max_new_tokens 0": (CHAT, "max_new_tokens: 32", "max_new_tokens: 0", "decoding.max_new_tokens", ["greater than or equal to 1"]),
    "max_new_tokens true": (CHAT, "max_new_tokens: 32", "max_new_tokens: true", "decoding.max_new_tokens", ["integer"]),
    "max_new_tokens in quotes": (CHAT, "max_new_tokens: 32", 'max_new_tokens: "32"', "decoding.max_new_tokens", ["integer"]),
    "no decoding": (LABEL, GREEDY_LINE + "\n", "", "decoding", ["add this key"]),
    "greedy with temperature": (CHAT, SAMPLE_LINE, "decoding: {strategy: greedy, temperature: 0.7, max_new_tokens: 8}", "decoding", ["temperature", "strategy: sample"]),
    "greedy with top_p and top_k": (CHAT, SAMPLE_LINE, "decoding: {strategy: greedy, top_p: 0.7, top_k: 3, max_new_tokens: 8}", "decoding", ["top_k, top_p", "strategy: sample"]),
    "a label task with sampling": (LABEL, GREEDY_LINE, SAMPLE_LINE, "(front matter)", ["greedily", "strategy: greedy"]),
    "a key given twice": (LABEL, "inputs:", "description: 又一次\ninputs:", "(yaml)", ["'description' is given twice"]),
    "a key given twice below": (LABEL, "{max_tokens: 64}", "{max_tokens: 64, max_tokens: 65}", "(yaml)", ["'max_tokens' is given twice"]),
    "broken YAML": (LABEL, "{max_tokens: 64}", "{max_tokens: 64", "(yaml)", []),
    "a date that does not exist": (LABEL, "判断一段文字的情感极性", "2026-13-45", "(yaml)", []),
    "an impossible number": (LABEL, "max_tokens: 64", "max_tokens: 0x_", "(yaml)", []),
    "a YAML tag that makes objects": (LABEL, "判断一段文字的情感极性", "!!python/object/apply:os.getcwd []", "(yaml)", ["python/object"]),
    "an unhashable key": (LABEL, "inputs:", "{[1]: 2}: 3\ninputs:", "(yaml)", []),
    "front matter that is a list": (LABEL, LABEL.split("---\n")[1], "- a\n- b\n", "(front matter)", []),
    "empty front matter": (LABEL, LABEL.split("---\n")[1], "", "(front matter)", []),
    "no front matter": (LABEL, LABEL.split("只回答")[0], "", "(front matter)", ["`---`"]),
    "front matter that is not closed": (LABEL, "8}\n---\n", "8}\n", "(front matter)", ["`---`"]),
    "an empty body": (LABEL, LABEL.split("---\n")[2], "\n \n", "(body)", ["empty"]),
    "text before the first role": (CHAT, "system: 你", "请注意\nsystem: 你", "(body)", ["before its first role line"]),
    "two system roles": (CHAT, "user: $text", "system: 又一个\nuser: $text", "(body)", ["`system:`", "at the top"]),
    "a system role that comes late": (CHAT, "system: 你是一位聊天伙伴。", "user: 你好\nsystem: 伙伴", "(body)", ["`system:`", "at the top"]),
    "a last word of the assistant": (CHAT, "user: $text", "user: $text\nassistant: 好的", "(body)", ["ends with `assistant:`", "`user:`"]),
    "a system role alone": (CHAT, "user: $text", "$text", "(body)", ["ends with `system:`", "`user:`"]),
    "labels that are words": (LABEL, LABELS_LINE, "  labels: [紧急, 普通]", "output.labels.0", ["is no mapping", "write it as `{name: 紧急}`"]),
    "labels that are one word": (LABEL, LABELS_LINE, "  labels: 紧急", "output.labels", ["is not a list", "`labels: [{name: urgent}, {name: normal}]`"]),
    "labels that YAML takes for booleans": (LABEL, LABELS_LINE, "  labels: [yes, no]", "output.labels.0", ["`{name: urgent}`"]),
    "inputs that are a list": (LABEL, "inputs:\n  text: {max_tokens: 64}", "inputs: [text]", "inputs", ["is no mapping", "write it as `inputs: {text: {max_tokens: 1024}}`"]),
    "an input that is a number": (LABEL, "{max_tokens: 64}", "64", "inputs.text", ["write it as `text: {max_tokens: 1024}`"]),
    "no decoding at all": (LABEL, GREEDY_LINE + "\n", "", "decoding", ["is missing", "as in `decoding: {strategy: greedy, max_new_tokens: 64}`"]),
    "no inputs at all": (LABEL, "inputs:\n  text: {max_tokens: 64}\n", "", "inputs", ["is missing", "as in `inputs: {text: {max_tokens: 1024}}`"]),
    "a slip in a role": (CHAT, "user: $text", "user: 你好\nassistent: 好\nuser: $text", "(body) line 3", ["`assistent:`", "write `assistant:`"]),
    "a role in capitals": (CHAT, "user: $text", "User: $text", "(body) line 2", ["`User:`", "write `user:`"]),
    "roles that all are slips": (CHAT, "system: 你是一位聊天伙伴。\nuser: $text", "User: $text\nAssistant:", "(body) line 1", ["`User:`", "write `user:`"]),
    "a role with a wide colon": (CHAT, "user: $text", "user：$text", "(body) line 2", ["`user：`", "write `user:`"]),
    "a bare dollar sign": (LABEL, "输入：$text", "价格 $5\n输入：$text", "(body) line 2", ["`$$`"]),
    "a dollar sign at the end": (LABEL, "情感：", "情感：$", "(body) line 3", ["`$$`"]),
    "a dollar sign in a later message": (CHAT, "user: $text", "user: $text\n$ 5", "(body) line 3", ["`$$`"]),
    "an unclosed brace": (LABEL, "输入：$text", "输入：$text ${text", "(body) line 2", ["`$$`"]),
}  # fmt: skip


@pytest.mark.parametrize(("base", "old", "new", "key", "words"), PROMPT_FAULTS.values(), ids=PROMPT_FAULTS)
def test_a_prompt_at_fault_names_file_key_and_fix(
    tmp_path: Path, base: str, old: str, new: str, key: str, words: list[str]
) -> None:
    folder = write(tmp_path / "task", changed(base, old, new))
    with pytest.raises(TaskFileError) as caught:
        load_task(folder)
    check_message(caught.value, folder / "prompt.md", key, *words)


@pytest.mark.parametrize(
    "line",
    ["Summary: 一句话", "User story: 登录", "Users: 3", "Use: 水", "Stem: 茎", "AI助手: 好", "Answer: 是", "Superuser: a",
     "Consistent: yes", " User: 空格在前", "他说 user: 好", "用户: 好", "Symptom: 咳嗽", "Order: 7", "userdata: x"],
)  # fmt: skip
def test_a_line_of_a_text_is_no_slip_in_a_role(tmp_path: Path, line: str) -> None:
    task = load_task(write(tmp_path / "task", changed(CHAT, "user: $text", f"user: 例如\n{line}\n\n$text")))
    assert task.messages[1].parts == (f"例如\n{line}\n\n", Variable("text"))


@pytest.mark.parametrize(
    ("written", "role"),
    [("User", "user"), ("USER", "user"), ("usr", "user"), ("uesr", "user"), ("Assistant", "assistant"),
     ("assitant", "assistant"), ("asistent", "assistant"), ("assisstant", "assistant"), ("System", "system"),
     ("sytsem", "system"), ("systm", "system"), ("sistem", "system")],
)  # fmt: skip
def test_a_slip_in_a_role_names_the_role(tmp_path: Path, written: str, role: str) -> None:
    folder = write(tmp_path / "task", changed(CHAT, "user: $text", f"user: $text\n{written}: 好"))
    with pytest.raises(TaskFileError) as caught:
        load_task(folder)
    check_message(caught.value, folder / "prompt.md", "(body) line 3", f"`{written}:`", f"write `{role}:`")
    assert f"请写 `{role}:`" in in_language(message_of(caught.value), "zh")


def test_a_prompt_that_is_missing_says_so(tmp_path: Path) -> None:
    (tmp_path / "task").mkdir()
    with pytest.raises(TaskFileError) as caught:
        load_task(tmp_path / "task")
    check_message(caught.value, tmp_path / "task" / "prompt.md", "(file)", "missing", "create it")


def test_a_prompt_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    (tmp_path / "task" / "prompt.md").mkdir(parents=True)
    with pytest.raises(TaskFileError) as caught:
        load_task(tmp_path / "task")
    check_message(caught.value, tmp_path / "task" / "prompt.md", "(file)", "cannot be read")


@pytest.mark.parametrize("encoding", ["gbk", "utf-16"])
def test_a_prompt_that_is_not_utf8_says_so(tmp_path: Path, encoding: str) -> None:
    folder = write(tmp_path / "task", LABEL.replace("😄", "笑").encode(encoding))
    with pytest.raises(TaskFileError) as caught:
        load_task(folder)
    check_message(caught.value, folder / "prompt.md", "(file)", "not UTF-8", "save it as UTF-8")


@pytest.mark.parametrize("name", ["Mood", "1st", "my-task", "情感", "a b", "a.b", "x" * 41])
def test_a_folder_name_that_is_no_task_name_is_refused(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / name, LABEL)
    with pytest.raises(TaskFileError) as caught:
        load_task(folder)
    check_message(caught.value, folder, "folder name", "a-z, 0-9 and _")


@given(front=st.text(max_size=60), body=st.text(max_size=60))
def test_no_file_fails_in_another_way(tmp_path_factory: pytest.TempPathFactory, front: str, body: str) -> None:
    folder = tmp_path_factory.mktemp("tasks") / "task"
    text = f"---\n{front}\n---\n{body}".encode(errors="replace")
    with pytest.raises(TaskFileError):
        load_task(write(folder, text))


PIECES = [*"$${}: \n名a", "text", "$text", "system:", "user:", "assistant:", "\nuser: "]


@given(body=st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_a_body_either_loads_with_its_variable_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, body: str
) -> None:
    folder = write(tmp_path_factory.mktemp("tasks") / "task", CHAT.split("system:")[0] + body)
    try:
        task = load_task(folder)
    except TaskFileError as error:
        assert error.file == folder / "prompt.md"
    else:
        assert Variable("text") in [part for message in task.messages for part in message.parts]


LIST = CHAT.replace("output: {kind: text}", "output: {kind: list, max_items: 5}")


def test_a_list_task_says_how_many_items_it_may_have(tmp_path: Path) -> None:
    assert load_task(write(tmp_path / "five", LIST)).spec.output.max_items == 5
    assert load_task(write(tmp_path / "ten", changed(LIST, ", max_items: 5", ""))).spec.output.max_items == 10


LIST_FAULTS = {
    "no items": (LIST, "max_items: 5", "max_items: 0", "output.max_items", ["greater than or equal to 1"]),
    "more than could be read": (LIST, "max_items: 5", "max_items: 101", "output.max_items", ["100"]),
    "a number in words": (LIST, "max_items: 5", "max_items: five", "output.max_items", ["integer"]),
    "a key of its own": (LIST, "max_items: 5", "separator: 、", "output.separator", ["remove it"]),
    "labels": (LIST, "max_items: 5", "labels: [{name: 好}, {name: 坏}]", "output", ["label"]),
    "items of a text": (LIST, "kind: list", "kind: text", "output", ["max_items", "remove it or change the kind"]),
    "items of a label": (LABEL, "kind: label", "kind: label\n  max_items: 3", "output", ["max_items", "remove it"]),
    "no such kind": (LIST, "kind: list, max_items: 5", "kind: xml", "output.kind", ["'list'"]),
    "JSON without a schema": (LIST, "kind: list, max_items: 5", "kind: json", "output", ["schema", "write both"]),
    "a schema of a list": (LIST, "max_items: 5", "schema: schema.json", "output", ["kind: json", "write both"]),
    "a schema elsewhere": (
        LIST,
        "kind: list, max_items: 5",
        "kind: json, schema: ../schema.json",
        "output.schema",
        ["pattern"],
    ),
}


@pytest.mark.parametrize(("prompt", "old", "new", "key", "words"), LIST_FAULTS.values(), ids=LIST_FAULTS)
def test_a_list_at_fault_is_named(tmp_path: Path, prompt: str, old: str, new: str, key: str, words: list[str]) -> None:
    folder = write(tmp_path / "task", changed(prompt, old, new))
    with pytest.raises(TaskFileError) as caught:
        load_task(folder)
    check_message(caught.value, folder / "prompt.md", key, *words)


def test_a_list_s_case_expects_words(tmp_path: Path) -> None:
    folder = write(tmp_path / "task", LIST, "- inputs: {text: 很好}\n  all: [房间, 早餐]\n  none: [前台]\n")
    [case] = load_cases(folder, load_task(folder))
    assert (case.all, case.none) == (("房间", "早餐"), ("前台",))


LABEL_CASE = "- inputs: {text: 很好}\n  label: 正面\n"
CHAT_CASE = "- inputs: {text: 很好}\n  any: [开心]\n"
CASE_FAULTS = {
    "an unknown key": (LABEL, "  label: 正面", "  label: 正面\n  lable: 正面", "case 2: lable", ["remove it"]),
    "a wrong label": (LABEL, "label: 正面", "label: 中性", "case 2: label", ["'中性'", "正面, 负面"]),
    "no label": (LABEL, "  label: 正面\n", "", "case 2: label", ["None", "正面, 负面"]),
    "words for a label task": (
        LABEL,
        "label: 正面",
        "label: 正面\n  any: [好]",
        "case 2",
        ["label tasks", "remove"],
    ),
    "a missing input": (LABEL, "{text: 很好}", "{}", "case 2: inputs", ["give exactly: text"]),
    "an input too many": (LABEL, "{text: 很好}", "{text: 很好, mood: 好}", "case 2: inputs", ["give exactly: text"]),
    "an input that is a number": (
        LABEL,
        "{text: 很好}",
        "{text: 5}",
        "case 2: inputs.text",
        ['quotes around it ("5")'],
    ),
    "no inputs": (LABEL, "inputs: {text: 很好}", "label: 正面", "(yaml)", ["twice"]),
    "no inputs at all": (
        CHAT,
        "inputs: {text: 很好}",
        "max_chars: 9",
        "case 2: inputs",
        ["is missing", "as in `inputs: {text: "],
    ),
    "words that are one word": (CHAT, "[开心]", "开心", "case 2: any", ["is not a list", "`any: [thanks, sorry]`"]),
    "all words for a label task": (LABEL, "label: 正面", "label: 正面\n  all: [好]", "case 2", ["all", "remove"]),
    "a label for a text task": (
        CHAT,
        "  any: [开心]",
        "  label: 正面",
        "case 2: label",
        ["any, all, none or max_chars"],
    ),
    "no expectation": (CHAT, "  any: [开心]\n", "", "case 2", ["expects nothing"]),
    "an expectation of nothing": (CHAT, "any: [开心]", "any: []", "case 2", ["expects nothing"]),
    "a length of zero": (CHAT, "any: [开心]", "max_chars: 0", "case 2: max_chars", ["greater than or equal to 1"]),
    "an entry that is a text": (
        CHAT,
        "- inputs: {text: 很好}\n  any: [开心]",
        "- 很好",
        "case 2",
        ["no mapping", "- inputs: {text: "],
    ),
}


@pytest.mark.parametrize(("prompt", "old", "new", "key", "words"), CASE_FAULTS.values(), ids=CASE_FAULTS)
def test_a_case_at_fault_is_named_by_its_number(
    tmp_path: Path, prompt: str, old: str, new: str, key: str, words: list[str]
) -> None:
    good = LABEL_CASE if prompt is LABEL else CHAT_CASE
    folder = write(tmp_path / "task", prompt, good + changed(good, old, new))
    task = load_task(folder)
    with pytest.raises(TaskFileError) as caught:
        load_cases(folder, task)
    check_message(caught.value, folder / "cases.yaml", key, *words)


@pytest.mark.parametrize(
    ("cases", "key", "word"),
    [
        ("inputs: {text: 很好}\n", "(top)", "list"),
        ("", "(top)", "list"),
        ("- [", "(yaml)", "correct the YAML"),
        (b"\xff\xfe", "(file)", "UTF-8"),
    ],
)
def test_cases_that_are_no_list_are_refused(tmp_path: Path, cases: str | bytes, key: str, word: str) -> None:
    folder = write(tmp_path / "task", LABEL, cases)
    task = load_task(folder)
    with pytest.raises(TaskFileError) as caught:
        load_cases(folder, task)
    check_message(caught.value, folder / "cases.yaml", key, word)


def test_a_task_may_have_no_cases(tmp_path: Path) -> None:
    folder = write(tmp_path / "task", LABEL)
    assert load_cases(folder, load_task(folder)) == []


def test_a_case_may_expect_the_abstain_label(tmp_path: Path) -> None:
    prompt = changed(LABEL, LABELS_LINE, LABELS_LINE + "\n  unknown: {name: 未知, below: 0.6}")
    folder = write(tmp_path / "task", prompt, changed(LABEL_CASE, "正面", "未知"))
    assert [case.label for case in load_cases(folder, load_task(folder))] == ["未知"]


def test_the_tasks_that_ship_load_with_thirty_cases_or_more(prompts_folder: Path) -> None:
    registry = Registry.load(prompts_folder)
    counts = {task.name: len(registry.cases(task.name)) for task in registry}
    assert {"chat", "sentiment"} <= set(counts)
    assert {name: count for name, count in counts.items() if count < 30} == {}


def test_every_label_that_ships_has_gold_cases(prompts_folder: Path) -> None:
    registry = Registry.load(prompts_folder)

    def labels_without_case(task: Task) -> set[str]:
        return set(task.labels) - {str(case.label) for case in registry.cases(task.name)}

    assert {task.name: labels_without_case(task) for task in registry if labels_without_case(task)} == {}


JSON = CHAT.replace("output: {kind: text}", "output: {kind: json, schema: answer.json}")


def test_a_json_task_follows_the_schema_beside_it(tmp_path: Path) -> None:
    folder = write(tmp_path / "task", JSON)
    (folder / "answer.json").write_text('{"type": "object"}', "utf-8")
    task = load_task(folder)
    assert task.grammar == grammar_of({"type": "object"})
    (folder / "answer.json").write_text('{"type": "array"}', "utf-8")
    assert load_task(folder).version != task.version


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (None, ["is missing"]),
        ("", ["Expecting"]),
        ("{", ["Expecting"]),
        ("[]", ["not an object"]),
        ('{"not": {}}', ["not"]),
    ],
)
def test_a_schema_at_fault_is_named(tmp_path: Path, schema: str | None, words: list[str]) -> None:
    folder = write(tmp_path / "task", JSON)
    if schema is not None:
        (folder / "answer.json").write_text(schema, "utf-8")
    with pytest.raises(TaskFileError) as caught:
        load_task(folder)
    assert caught.value.file == folder / "answer.json"
    assert all(word in str(caught.value) for word in words), caught.value


def test_the_fields_of_an_answer_are_gold_for_json_alone(tmp_path: Path) -> None:
    folder = write(tmp_path / "task", JSON)
    (folder / "answer.json").write_text('{"type": "object"}', "utf-8")
    (folder / "cases.yaml").write_text("- inputs: {text: 很好}\n  fields: {a: 1}\n", "utf-8")
    assert load_cases(folder, load_task(folder))[0].fields == {"a": 1}
    text = write(tmp_path / "text", CHAT)
    (text / "cases.yaml").write_text("- inputs: {text: 很好}\n  fields: {a: 1}\n", "utf-8")
    with pytest.raises(TaskFileError, match="fields"):
        load_cases(text, load_task(text))
