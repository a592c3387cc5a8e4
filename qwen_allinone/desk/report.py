"""report.html: one file that opens offline. Everything that comes from a file or a model is escaped by the template."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from qwen_allinone.desk.asking import ALARMS, CARE, COMPLAINT, INTENT, NEGATIVE, POSITIVE, SENTIMENT, TaskInfo
from qwen_allinone.desk.figures import NEAR, Figures, Group, level
from qwen_allinone.desk.table import Columns

_MOST_PRODUCTS = 12
_MOST_KEYWORDS = 10
_MOST_TICKS = 6
_TITLES = {SENTIMENT: "情感", INTENT: "意图", CARE: "求助"}


@dataclass(frozen=True)
class About:
    """What the figures do not tell. `tasks` are those that were asked; `sure`: from where on a negative label alarms;
    `doubles`: how many numbers of rows came twice."""

    files: tuple[str, ...]
    model: str
    columns: Columns
    tasks: dict[str, TaskInfo]
    sure: float
    made: datetime
    doubles: int = 0


@dataclass(frozen=True)
class Bar:
    """A column of a chart, in shares of its height from 0 to 100."""

    title: str
    positive: float
    negative: float


def render(figures: Figures, about: About) -> str:
    """The page."""
    kind, course = figures.course()
    bars = _bars(kind, course)
    products, other_products = figures.products.largest(_MOST_PRODUCTS)
    few, many = figures.unlike_stars()
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"percent": _percent, "number": _number}
    return environment.get_template("report.html").render(
        figures=figures,
        about=about,
        style=(Path(__file__).parent / "report.css").read_text("utf-8"),
        labels=(POSITIVE, NEGATIVE),
        complaint=COMPLAINT,
        alarm_names=ALARMS,
        level=level,
        near=NEAR,
        kind=kind,
        bars=bars,
        ticks=_ticks([bar.title for bar in bars]),
        most_a_step=max((group.rows for _, group in course), default=0),
        products=products,
        other_products=other_products,
        ratings=sorted(figures.ratings.items(), reverse=True),
        unlike_few=few,
        unlike_many=many,
        intents=figures.intents.most_common(),
        praise=figures.praise.most_named(_MOST_KEYWORDS),
        complaints=figures.complaints.most_named(_MOST_KEYWORDS),
        alarmed=figures.gravest(),
        span=_span(figures),
        product_column=about.columns.product,
        rating_column=about.columns.rating,
        gold=[(_TITLES.get(name, name), name, task.gold) for name, task in about.tasks.items() if task.labels],
    )


def _span(figures: Figures) -> str:
    days = [day for day, _ in figures.days.items()]
    return f"{min(days)} 至 {max(days)}" if days else ""


def _bars(kind: str, course: list[tuple[date, Group]]) -> list[Bar]:
    most = max((group.rows for _, group in course), default=0) or 1
    return [
        Bar(_step_name(kind, day), 100 * group.positive / most, 100 * group.negative / most) for day, group in course
    ]


def _step_name(kind: str, day: date) -> str:
    return {"年": f"{day:%Y}", "月": f"{day:%Y-%m}"}.get(kind, f"{day:%m-%d}")


def _ticks(titles: list[str]) -> list[str]:
    """A few of them, the first and the last among them, evenly spread."""
    if len(titles) <= _MOST_TICKS:
        return titles
    return [titles[round(i * (len(titles) - 1) / (_MOST_TICKS - 1))] for i in range(_MOST_TICKS)]


def _percent(share: float) -> str:
    """Of 1. What is not all is never shown as all, and what is not nothing never as nothing."""
    percent = round(100 * share, 1 if 0 < share < 0.1 else 0)
    if 0 < share < 0.001:
        return "<0.1%"
    return f"{min(percent, 99):g}%" if share < 1 else "100%"


def _number(count: int) -> str:
    return f"{count:,}"
