"""YAML written by hand, read strictly: nothing is overwritten in silence, a complaint has its line and its fix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from pydantic import BaseModel

from qwen_allinone.did_you_mean import names_within
from qwen_allinone.wording import Said, complaint, meant, said

Path = tuple[str | int, ...]


# As pydantic calls what is wrong with a value.
_NO_MAPPING = ("model_type", "dict_type")
_NO_LIST = ("tuple_type", "list_type")


class Wrong(ValueError):
    """A value that is not taken: what is wrong with it, and what to do, both of the catalogue."""

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(said("and_fix", problem=problem, fix=fix))
        self.problem, self.fix = problem, fix


# libyaml's, which every wheel of PyYAML brings, reads the shipped folders in a tenth of the time.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class StrictLoader(_Loader):  # type: ignore[misc]
    """YAML 1.1 without silent overwriting: a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, said("key_given_twice", key=key), key_node.start_mark
                )
            seen.add(key)
        made: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return made


def lines_of(text: str) -> Mapping[Path, int]:
    """The line, counted from 1, on which each key or item of a YAML text begins, by its path from the top."""
    root = yaml.compose(text, Loader=StrictLoader)
    return dict(_lines((), root)) if root is not None else {}


def _lines(path: Path, node: yaml.Node) -> Iterator[tuple[Path, int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*path, str(key.value))
            yield inner, key.start_mark.line + 1
            yield from _lines(inner, value)
    elif isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            inner = (*path, number)
            yield inner, item.start_mark.line + 1
            yield from _lines(inner, item)


def yaml_problem(error: Exception, text: str, above: int = 0) -> tuple[str, str]:
    """Why `text` is no YAML, on which line of a file in which `above` lines stand before it, and the fix; a constructor
    may raise anything."""
    if isinstance(error, yaml.MarkedYAMLError) and (mark := error.problem_mark):
        problem = error.problem if isinstance(error.problem, Said) else said("no_yaml", problem=error.problem)
        is_tab = text[mark.index : mark.index + 1] == "\t"  # where a token ought to begin; libyaml does not name it
        problem, fix = (said("yaml_tab"), said("write_spaces")) if is_tab else (problem, said("correct_yaml"))
        return said("at_line", line=above + mark.line + 1, problem=problem), fix
    return said("no_yaml", problem=" ".join(str(error).split())), said("correct_yaml")


def wrong_in(detail: Any, model: type[BaseModel], example: str = "") -> tuple[str, str]:
    """The problem and the fix of one of the errors of a ValidationError of `model`; `example`: the right form.

    What pydantic says of a form (`valid dictionary or instance of Label`) helps nobody who writes YAML.
    """
    raised = detail.get("ctx", {}).get("error")
    if isinstance(raised, Wrong):
        return raised.problem, raised.fix
    kind = detail["type"]
    if kind == "missing":
        return said("is_missing"), said("add_key_as", example=example) if example else said("add_key")
    if kind in _NO_MAPPING or kind in _NO_LIST:
        problem = said("is_no_mapping") if kind in _NO_MAPPING else said("is_not_list")
        return problem, said("write_as", example=example) if example else fix_for(detail, model)
    return complaint(detail), fix_for(detail, model)


def fix_for(detail: Any, model: type[BaseModel]) -> str:
    """What to do about one of the errors of a ValidationError of `model`."""
    kind, value = detail["type"], detail["input"]
    if kind == "string_type" and isinstance(value, bool):
        return said("bare_words", value=value)
    if kind == "string_type":
        return said("put_quotes", value=value) if isinstance(value, int | float) else said("write_text")
    if kind == "extra_forbidden":
        spelling = meant(str(detail["loc"][-1]), names_within(model.model_json_schema()))
        return said("correct_spelling", meant=spelling, model_fields=model.model_fields)
    return said("change_value", value=repr(value))
