"""Reads a task folder, strictly: anything doubtful is an error that names file, key and fix."""

from __future__ import annotations

import json
import re
from pathlib import Path
from string import Template
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

from qwen_allinone.errors import TaskFileError
from qwen_allinone.json_schema import SchemaError, grammar_of
from qwen_allinone.strict_yaml import StrictLoader, wrong_in, yaml_problem
from qwen_allinone.tasks.adapter_files import load_adapter_files
from qwen_allinone.tasks.prompt_forms import example_of
from qwen_allinone.tasks.role_slips import role_slip
from qwen_allinone.tasks.task import (
    CARE,
    CHAT,
    MEMORIES,
    ROUTE,
    Calibration,
    Case,
    FrontMatter,
    Message,
    Part,
    Role,
    Task,
    Variable,
    Vetted,
    short_hash,
)
from qwen_allinone.wording import meant, said

M = TypeVar("M", bound=BaseModel)

CALIBRATION = "calibration.yaml"
REPLY, REPLY_EN = "reply.md", "reply.en.md"

_ROLE_LINE = re.compile(r"^(system|user|assistant):[ \t]*", re.MULTILINE)
FOLDER_NAME = re.compile(r"^[a-z][a-z0-9_]{0,39}$")


def load_task(folder: Path) -> Task:
    """Load `folder`/prompt.md; the folder's name is the task's name.

    Raises:
        TaskFileError: with the file, the key and the fix.
    """
    file = folder / "prompt.md"
    if not FOLDER_NAME.match(folder.name):
        raise TaskFileError(folder, "folder name", said("task_name_invalid"), said("task_name_form"))
    text = _read(file)
    header, body = _split_front_matter(file, text)
    spec = _validated(FrontMatter, _parse_yaml(file, header, above=1), file)
    messages = _parse_messages(file, body)
    _check_variables(file, spec, messages)
    if spec.plain and messages[0].role is None:
        raise TaskFileError(file, "plain", said("plain_already"), said("remove_it"))
    if folder.name != CHAT and MEMORIES in spec.inputs:
        raise TaskFileError(file, f"inputs.{MEMORIES}", said("filled_for_chat_only"), said("rename_input"))
    if folder.name != ROUTE and any(label.task for label in spec.output.labels):
        raise TaskFileError(file, "output.labels: task", said("only_route_labels"), said("remove_it"))
    calibration = _load_calibration(folder, spec)
    schema = _read(folder / spec.output.schema_file) if spec.output.schema_file else ""
    vetted = _load_vetted(folder, spec) if folder.name == CARE else None
    grammar = _grammar(folder / spec.output.schema_file, schema) if spec.output.schema_file else ""
    adapter = load_adapter_files(folder)
    prompt_hash = short_hash(text + schema + (adapter.digest if adapter else ""))
    return Task(folder.name, spec, messages, prompt_hash, calibration, vetted, grammar, adapter)


def _grammar(file: Path, text: str) -> str:
    """What answers that fit the schema in `file` follow."""
    try:
        return grammar_of(json.loads(text))
    except (SchemaError, ValueError, RecursionError) as error:
        problem = said("no_json_schema", error=error)
        raise TaskFileError(file, "(schema)", problem, said("see_docs_task_folder")) from None


def _load_vetted(folder: Path, spec: FrontMatter) -> Vetted:
    """What /chat answers where the task `care` fires. Without an English text the other one is for everybody."""
    file = folder / "prompt.md"
    if spec.output.kind != "label":
        raise TaskFileError(file, "output.kind", said("does_not_suit_chat"), said("write_kind_label"))
    if set(spec.inputs) != {"text"}:
        raise TaskFileError(file, "inputs", said("do_not_suit_chat"), said("use_only_text"))
    chinese = _read_reply(folder / REPLY)
    return Vetted(chinese, _read_reply(folder / REPLY_EN) if (folder / REPLY_EN).exists() else chinese)


def _read_reply(file: Path) -> str:
    reply = _read(file).strip()
    if not reply:
        raise TaskFileError(file, "(file)", said("is_empty"), said("write_care_reply"))
    return reply


def _load_calibration(folder: Path, spec: FrontMatter) -> Calibration | None:
    """What `qwen-allinone calibrate` has left beside the prompt, if anything."""
    file = folder / CALIBRATION
    if not file.exists():
        return None
    if spec.output.kind != "label":
        raise TaskFileError(file, "(file)", said("only_labels_calibrate"), said("remove_it"))
    return _validated(Calibration, _parse_yaml(file, _read(file)), file)


def load_cases(folder: Path, task: Task) -> list[Case]:
    """Load the gold cases of `task`. A task may have none (no file): an empty list.

    Raises:
        TaskFileError: unknown keys, missing inputs, a label the task does not have.
    """
    file = folder / "cases.yaml"
    if not file.exists():
        return []
    raw = _parse_yaml(file, _read(file))
    if not isinstance(raw, list):
        raise TaskFileError(file, "(top)", said("is_not_list"), said("case_form"))
    cases = []
    for number, entry in enumerate(raw, start=1):
        case = _validated(Case, entry, file, prefix=f"case {number}")
        if set(case.inputs) != set(task.spec.given):
            wanted = ", ".join(task.spec.given)
            raise TaskFileError(
                file, f"case {number}: inputs", said("do_not_match_task"), said("give_exactly", wanted=wanted)
            )
        _check_expectation(file, number, case, task)
        cases.append(case)
    return cases


def _check_expectation(file: Path, number: int, case: Case, task: Task) -> None:
    kind = task.spec.output.kind
    expects = bool(case.any or case.all or case.none or case.max_chars or case.fields)
    if kind == "label":
        allowed = list(task.labels) + ([task.spec.output.unknown.name] if task.spec.output.unknown else [])
        if case.label not in allowed:
            raise TaskFileError(
                file,
                f"case {number}: label",
                said("not_an_answer", label=case.label, label2=meant(str(case.label), allowed)),
                said("use_one_of", allowed=allowed),
            )
        if expects:
            problem = said("not_for_labels")
            raise TaskFileError(file, f"case {number}", problem, said("remove_them"))
    elif case.label is not None:
        fix = said("use_checks")
        raise TaskFileError(file, f"case {number}: label", said("other_kind", kind=kind), fix)
    elif case.fields and kind != "json":
        raise TaskFileError(file, f"case {number}: fields", said("other_kind", kind=kind), said("use_other_checks"))
    elif not expects:
        checks = ["any", "all", "none", "max_chars", *(["fields"] if kind == "json" else [])]
        fix = said("give_a_check", checks=checks)
        raise TaskFileError(file, f"case {number}", said("expects_nothing"), fix)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")  # editors on Windows put a byte order mark first
    except FileNotFoundError:
        raise TaskFileError(file, "(file)", said("is_missing"), said("create_it")) from None
    except OSError as error:
        raise TaskFileError(
            file, "(file)", said("is_unreadable", error=error.strerror), said("make_readable_file")
        ) from None
    except UnicodeDecodeError as error:
        raise TaskFileError(file, "(file)", said("is_not_utf8", reason=error.reason), said("save_as_utf8")) from None


def _split_front_matter(file: Path, text: str) -> tuple[str, str]:
    match = re.match(r"\A---[ \t]*\n(.*?)^---[ \t]*\n(.*)\Z", text.replace("\r\n", "\n"), re.DOTALL | re.MULTILINE)
    if not match:
        raise TaskFileError(file, "(front matter)", said("front_matter_not_closed"), said("front_matter_form"))
    return match.group(1), match.group(2)


def _parse_yaml(file: Path, text: str, above: int = 0) -> Any:
    try:
        return yaml.load(text, Loader=StrictLoader)
    except Exception as error:  # YAML's constructors raise what they like on impossible dates and numbers
        raise TaskFileError(file, "(yaml)", *yaml_problem(error, text, above)) from None


def _validated(model: type[M], raw: Any, file: Path, prefix: str = "") -> M:
    try:
        return TypeAdapter(model).validate_python(raw)
    except ValidationError as error:
        # A misspelt key is also a missing one: the misspelling is what to correct.
        detail = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
        key = ".".join(str(part) for part in detail["loc"])
        problem, fix = wrong_in(detail, model, example_of(detail["loc"], detail["input"], of_case=model is Case))
        where = ": ".join(part for part in (prefix, key) if part) or "(front matter)"
        raise TaskFileError(file, where, problem, fix) from None


def _parse_messages(file: Path, body: str) -> tuple[Message, ...]:
    """Split roles first, find variables after: what a user sends can never become a role line."""
    if not body.strip():
        raise TaskFileError(file, "(body)", said("is_empty"), said("write_prompt_below"))
    _check_dollar_signs(file, body)
    _check_role_lines(file, body)
    pieces = _ROLE_LINE.split(body)
    if len(pieces) == 1:
        return (Message(role=None, parts=_parse_parts(body.strip("\n"))),)
    if pieces[0].strip():
        raise TaskFileError(file, "(body)", said("text_before_roles"), said("move_under_role"))
    roles, texts = pieces[1::2], pieces[2::2]
    if roles[-1] != "user":
        raise TaskFileError(file, "(body)", said("ends_with", roles=roles[-1]), said("end_with_user_message"))
    if "system" in roles[1:]:
        raise TaskFileError(file, "(body)", said("late_system_line"), said("keep_one_at_top"))
    return tuple(
        Message(role=_role(role), parts=_parse_parts(text.strip())) for role, text in zip(roles, texts, strict=True)
    )


def _check_role_lines(file: Path, body: str) -> None:
    """A slip in a role would be a part of the text before it, which nobody sees but the model."""
    if slip := role_slip(body):
        problem = said("begins_like_role", written=slip.written)
        raise TaskFileError(file, f"(body) line {slip.line}", problem, said("write_role_or_blank", role=slip.role))


def _role(word: str) -> Role:
    assert word in ("system", "user", "assistant")
    return word  # type: ignore[return-value]


def _check_dollar_signs(file: Path, body: str) -> None:
    for match in Template.pattern.finditer(body):
        if match.group("invalid") is not None:
            line = body.count("\n", 0, match.start()) + 1
            raise TaskFileError(
                file, f"(body) line {line}", said("dollar_names_no_variable"), said("write_two_dollars")
            )


def _parse_parts(text: str) -> tuple[Part, ...]:
    parts: list[Part] = []
    position = 0
    for match in Template.pattern.finditer(text):
        parts.append(text[position : match.start()])
        position = match.end()
        name = match.group("named") or match.group("braced")
        parts.append(Variable(name) if name else "$")
    parts.append(text[position:])
    return tuple(part for part in parts if part != "")


def _check_variables(file: Path, spec: FrontMatter, messages: tuple[Message, ...]) -> None:
    used = {part.name for message in messages for part in message.parts if isinstance(part, Variable)}
    undeclared, unused = sorted(used - set(spec.inputs)), sorted(set(spec.inputs) - used)
    for name in undeclared:
        fix = said("add_under_inputs", name=name)
        if len(undeclared) == len(unused) == 1:  # one thing under two names: declared, the other would be unused
            fix = said("write_the_input", name=name, declared=unused[0])
        raise TaskFileError(file, f"${name}", said("is_not_declared"), fix)
    for name in unused:
        raise TaskFileError(file, f"inputs.{name}", said("is_never_used"), said("write_or_remove_input", name=name))
