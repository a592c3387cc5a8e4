"""What labelled feedback comes to. Grows with the number of days and products, not with that of rows."""

from __future__ import annotations

import heapq
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import count
from typing import Generic, TypeVar

from qwen_allinone.desk.asking import ALARMS, COMPLAINT, HELP, NEGATIVE, POSITIVE
from qwen_allinone.desk.journal import Answers
from qwen_allinone.desk.table import Feedback
from qwen_allinone.feedback_columns import as_date, as_rating
from qwen_allinone.invisible_characters import is_invisible

NEAR = 0.7  # a label that is less likely is near the line: it could as well have been the other
_QUOTE = 140
_MOST_NAMES = 5000
_MOST_ALARMS = 30
_MOST_NEAR = 6
_MOST_PROBLEMS = 20
_BINS = 5  # from one half to one
_MOST_DAYS, _MOST_WEEKS, _MOST_MONTHS = 45, 400, 2000  # in days

Key = TypeVar("Key")


@dataclass
class Group:
    """Rows that have something in common."""

    positive: int = 0
    negative: int = 0

    @property
    def rows(self) -> int:
        return self.positive + self.negative

    @property
    def bad(self) -> float:
        """Share of negative ones, of 1."""
        return self.negative / self.rows if self.rows else 0.0

    def add(self, sentiment: str) -> None:
        self.positive += sentiment == POSITIVE
        self.negative += sentiment == NEGATIVE


class Groups(Generic[Key]):
    """Rows by what they have in common. Names beyond the most that are held are counted together, without a name."""

    def __init__(self) -> None:
        self._groups: dict[Key, Group] = {}
        self.others = Group()

    def __bool__(self) -> bool:
        return bool(self._groups)

    def add(self, key: Key, sentiment: str) -> None:
        if key in self._groups or len(self._groups) < _MOST_NAMES:
            self._groups.setdefault(key, Group()).add(sentiment)
        else:
            self.others.add(sentiment)

    def items(self) -> list[tuple[Key, Group]]:
        return list(self._groups.items())

    def largest(self, most: int) -> tuple[list[tuple[Key, Group]], Group]:
        """Those with the most rows, and all others together."""
        ordered = sorted(self._groups.items(), key=lambda item: -item[1].rows)
        rest = Group(self.others.positive, self.others.negative)
        for _, group in ordered[most:]:
            rest.positive += group.positive
            rest.negative += group.negative
        return ordered[:most], rest


@dataclass
class Keyword:
    """How many rows name it, and what the one said of which the model was surest."""

    word: str
    rows: int = 0
    quote: str = ""
    sure: float = 0.0


class Keywords:
    """Words by how many rows name them. Where there are too many, those that are named least are forgotten."""

    def __init__(self) -> None:
        self._words: dict[str, Keyword] = {}

    def add(self, words: Iterable[str], quote: str, sure: float) -> None:
        for word in dict.fromkeys(words):
            known = self._words.setdefault(word, Keyword(word))
            known.rows += 1
            if sure > known.sure:
                known.quote, known.sure = quote, sure
        if len(self._words) > 2 * _MOST_NAMES:
            self._words = {known.word: known for known in self.most_named(_MOST_NAMES)}

    def most_named(self, most: int) -> list[Keyword]:
        return sorted(self._words.values(), key=lambda known: -known.rows)[:most]


@dataclass(frozen=True)
class Quote:
    """A row as a report shows it."""

    said: str
    where: str
    answers: Answers


@dataclass
class Figures:
    """Filled row by row with `add`."""

    rows: int = 0
    labelled: int = 0
    sentiments: Group = field(default_factory=Group)
    intents: Counter[str] = field(default_factory=Counter)
    days: Groups[date] = field(default_factory=Groups)
    products: Groups[str] = field(default_factory=Groups)
    ratings: Groups[int] = field(default_factory=Groups)
    praise: Keywords = field(default_factory=Keywords)
    complaints: Keywords = field(default_factory=Keywords)
    sure: list[int] = field(default_factory=lambda: [0] * _BINS)
    near: int = 0
    alarms: Counter[str] = field(default_factory=Counter)
    alarmed: int = 0
    suggested: int = 0
    drafts_dropped: int = 0
    problems: Counter[str] = field(default_factory=Counter)
    near_quotes: list[Quote] = field(default_factory=list)
    problem_lines: list[tuple[str, str]] = field(default_factory=list)  # where, and why
    _alarms: list[tuple[tuple[float, ...], int, Quote]] = field(default_factory=list)
    _ordinal: Iterator[int] = field(default_factory=count)

    def add(self, feedback: Feedback, answers: Answers) -> None:
        self.rows += 1
        if answers.problem or not answers.sentiment:
            self._add_problem(feedback, answers)
            return
        self.labelled += 1
        self.sentiments.add(answers.sentiment)
        if answers.intent:
            self.intents[answers.intent] += 1
        self._add_groups(feedback, answers)
        quote = Quote(_shortened(feedback.text), _where(feedback), answers)
        self._add_sureness(quote)
        named = self.praise if answers.sentiment == POSITIVE and answers.intent != COMPLAINT else self.complaints
        named.add(_standing(answers.keywords, feedback.text), quote.said, answers.probability)
        self.suggested += bool(answers.suggestion)
        self.drafts_dropped += answers.draft_dropped
        if answers.alarms:
            self._add_alarm(quote)

    def gravest(self) -> list[Quote]:
        """Alarms, the gravest first."""
        return [quote for _, _, quote in sorted(self._alarms, key=lambda entry: entry[:2], reverse=True)]

    def course(self) -> tuple[str, list[tuple[date, Group]]]:
        """Rows by day, week or month, whichever the span asks for, with none left out in between; and which it is."""
        days = sorted(self.days.items())
        if not days:
            return "", []
        span = (days[-1][0] - days[0][0]).days
        kind = "日" if span < _MOST_DAYS else "周" if span < _MOST_WEEKS else "月" if span < _MOST_MONTHS else "年"
        steps: dict[date, Group] = {}
        step = _begin(days[0][0], kind)
        while step <= days[-1][0]:
            steps[step] = Group()
            step = _next(step, kind)
        for day, group in days:
            held = steps[_begin(day, kind)]
            held.positive += group.positive
            held.negative += group.negative
        return kind, list(steps.items())

    def unlike_stars(self) -> tuple[int, int]:
        """Rows with few stars and a positive label, and with many and a negative one, where five is the most."""
        groups = dict(self.ratings.items())
        if not groups or max(groups) > 5:
            return 0, 0
        few = sum(group.positive for stars, group in groups.items() if stars <= 2)
        return few, sum(group.negative for stars, group in groups.items() if stars >= 4)

    def _add_groups(self, feedback: Feedback, answers: Answers) -> None:
        if day := as_date(feedback.date):
            self.days.add(day, answers.sentiment)
        if feedback.product:
            self.products.add(_shortened(feedback.product, 40), answers.sentiment)
        if (stars := as_rating(feedback.rating)) is not None:
            self.ratings.add(stars, answers.sentiment)

    def _add_sureness(self, quote: Quote) -> None:
        probability = quote.answers.probability
        self.sure[min(max(int((probability - 0.5) * 2 * _BINS), 0), _BINS - 1)] += 1
        if probability < NEAR:
            self.near += 1
            if len(self.near_quotes) < _MOST_NEAR:
                self.near_quotes.append(quote)

    def _add_alarm(self, quote: Quote) -> None:
        answers = quote.answers
        self.alarmed += 1
        self.alarms.update(answers.alarms)
        grave = (*(float(name in answers.alarms) for name in ALARMS), answers.probability)
        entry = (grave, -next(self._ordinal), quote)
        if len(self._alarms) < _MOST_ALARMS:
            heapq.heappush(self._alarms, entry)
        else:
            heapq.heappushpop(self._alarms, entry)

    def _add_problem(self, feedback: Feedback, answers: Answers) -> None:
        self.problems["内容为空" if answers.problem == "内容为空" else "其他原因"] += 1
        if len(self.problem_lines) < _MOST_PROBLEMS:
            self.problem_lines.append((f"{feedback.file} 第 {feedback.row.line} 行", _shortened(answers.problem)))


def level(alarms: Sequence[str]) -> str:
    """How soon somebody should look."""
    return "紧急" if HELP in alarms else "高" if len(alarms) > 1 else "一般"


def _standing(keywords: Sequence[str], text: str) -> list[str]:
    """Those that stand in the text, in capitals or full width or not: a small model makes some up or misspells them."""
    said = _folded(text) if keywords else ""
    return [word for word in keywords if _folded(word) in said]


def _folded(text: str) -> str:
    visible = (character for character in text if not is_invisible(character))  # the model was not shown all of them
    return unicodedata.normalize("NFKC", "".join(visible)).casefold()


def _begin(day: date, kind: str) -> date:
    """Of the step that the day is in."""
    if kind == "周":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1, month=1) if kind == "年" else day.replace(day=1) if kind == "月" else day


def _next(step: date, kind: str) -> date:
    if kind in "日周":
        return step + timedelta(days=1 if kind == "日" else 7)
    return _begin(step + timedelta(days=366 if kind == "年" else 31), kind)


def _shortened(text: str, most: int = _QUOTE) -> str:
    flat = " ".join(text[: 4 * most].split())
    return flat if len(flat) <= most else flat[: most - 1] + "…"


def _where(feedback: Feedback) -> str:
    day = as_date(feedback.date)
    return " · ".join(
        part
        for part in (day.isoformat() if day else "", _shortened(feedback.product, 40), f"第 {feedback.row.line} 行")
        if part
    )
