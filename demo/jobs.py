"""Measures the tasks beyond sentiment and chat on held-out texts, through the service, as callers meet them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from qwen_allinone.service import Answer, Service

JOBS = (
    "intent", "sentiment_en", "route", "urgency", "handover", "category", "satisfaction", "keywords", "summary",
    "translate",
)  # fmt: skip
AT_ONCE = 8
T = TypeVar("T")
R = TypeVar("R")
Row = tuple[str, str]  # the label, or words joined by 、 that must occur; the text


@dataclass(frozen=True)
class Score:
    """How well a task did: `right` of the answers, and what else is worth knowing of them."""

    right: float
    remark: str
    wrong: list[tuple[Row, str]]


def at_once(function: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """The results in order; as many together as the engine has slots."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(function, items))


def score(service: Service, task: str, rows: list[Row]) -> Score:
    """Run `task` on every row and judge the answers."""
    answers = at_once(lambda row: service.run(task, {"text": row[1]}), rows)
    pairs = list(zip(rows, answers, strict=True))
    wrong = [(row, _said(answer)) for row, answer in pairs if not _is_right(row, answer)]
    return Score(1 - len(wrong) / len(rows), _remark(pairs), wrong)


def _said(answer: Answer) -> str:
    return answer.label or ("、".join(answer.items) if answer.items is not None else answer.text)


def _is_right(row: Row, answer: Answer) -> bool:
    return answer.label == row[0] if answer.label else _found(row, answer) == len(row[0].split("、"))


def _found(row: Row, answer: Answer) -> int:
    said = _said(answer).lower()
    return sum(word.lower() in said for word in row[0].split("、"))


def _remark(pairs: list[tuple[Row, Answer]]) -> str:
    """For written answers: the share of wanted words that occur, and how the answers are shaped."""
    if pairs[0][1].label:
        return ""
    wanted = sum(len(row[0].split("、")) for row, _ in pairs)
    remark = f"{sum(_found(row, answer) for row, answer in pairs) / wanted:.1%} of {wanted} words"
    if pairs[0][1].items is None:
        shorter = sum(len(answer.text) < len(row[1]) for row, answer in pairs)
        return f"{remark}; {shorter} of {len(pairs)} shorter than the text"
    items = [(item, row) for row, answer in pairs for item in answer.items or ()]
    of_text = sum(item in row[1] for item, row in items)
    wanted_items = sum(any(word in item or item in word for word in row[0].split("、")) for item, row in items)
    return f"{remark}; of {len(items)} items {wanted_items} wanted, {of_text} in the text"
