"""Which column of a table of feedback holds what: what people say, when, of what, how many stars, under which number.

For the command line and for the web page.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from datetime import UTC, date, datetime

Sample = Sequence[Sequence[str]]
Taken = Container[int]  # columns that hold something else

_TEXT = re.compile(
    r"留言|反馈|评论|评价|评语|点评|意见|内容|正文|建议|说法|text|review|comment|feedback|message|content", re.I
)
_DATE = re.compile(r"时间|日期|date|time|(?:^|_)at$|^day$", re.I)
_RATING = re.compile(r"星|评分|得分|打分|分数|rating|stars?$|score", re.I)
_PRODUCT = re.compile(r"商品|产品|品名|货品|product|item|sku|goods", re.I)
_PLACE = re.compile(r"门店|店铺|店名|酒店|餐厅|型号|类目|品类|shop|store|hotel|restaurant|brand|category|model", re.I)
_NUMBER = re.compile(r"编号|序号|单号|\bid\b|(?:_|[\u4e00-\u9fff])id$|^no\.?$", re.I)
# A column of such a name is about the feedback, and does not hold it.
_ABOUT_IT = re.compile(r"时间|日期|编号|序号|次数|数量|星级|评分|得分|人$|\bid\b|date|time|count|score|rating", re.I)

_DAY = re.compile(r"\s*(\d{4})(?:\s*[-/.年]\s*(\d{1,2})\s*[-/.月]\s*(\d{1,2})|(\d{2})(\d{2})(?!\d))")
_EPOCH = re.compile(r"\s*(\d{10})(\d{3})?(?:\.\d+)?\s*")
_FIGURE = re.compile(r"\d+(?:\.\d+)?")
# Words that dates, times and ratings are written with.
_OF_FIGURES = re.compile(
    r"[年月日号时点分秒星期周一二三四五六天上下午]|(?<=\d)[tz]|\b(?:[ap]m|utc|gmt|stars?"
    r"|jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?"
    r"|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?"
    r"|(?:mon|tues?|wed(?:nes)?|thu(?:rs)?|fri|sat(?:ur)?|sun)(?:day)?)\b",
    re.I,
)
_MOST_OF_THEM = 0.8
_MOST_STARS = 100
_YEARS = range(1970, 2101)


def as_date(cell: str) -> date | None:
    """The day that a cell names, in the forms that exports have; None if it names none."""
    try:
        if found := _DAY.match(cell):
            year, month, day, *joined = found.groups()
            named = date(int(year), int(month or joined[0]), int(day or joined[1]))
            return named if named.year in _YEARS else None
        if seconds := _EPOCH.fullmatch(cell):
            return datetime.fromtimestamp(int(seconds[1]), UTC).date()
    except ValueError:
        pass
    return None


def as_rating(cell: str) -> int | None:
    """How many stars, halves rounded up: 5, 4.5, 3星, ★★★☆☆; None where it says none."""
    if stars := cell.count("★"):
        return stars
    found = _FIGURE.search(cell)
    rating = float(found[0]) if found else None
    return int(rating + 0.5) if rating is not None and rating <= _MOST_STARS else None


def holds_text(cells: Iterable[str]) -> bool:
    """Whether anybody says something there: not only numbers, dates, times, ratings and nothing at all."""
    return any(map(_letters, cells))


def likely_text(columns: Sequence[str], sample: Sample) -> int:
    """The column that holds the feedback: of those that are named so, else of those that hold words, the one with
    the longest texts. A date or a number can be longer than what people say."""

    def likely(column: int) -> tuple[bool, int, int]:
        cells = [row[column] for row in sample]
        named = bool(_TEXT.search(columns[column])) and not _ABOUT_IT.search(columns[column])
        letters = sum(map(_letters, cells))
        return named and letters > 0, letters, sum(map(len, cells))

    return max(range(len(columns)), key=likely)


def likely_date(columns: Sequence[str], sample: Sample, taken: Taken = ()) -> int | None:
    """The first column that is named so and holds days; none of those that hold something else."""
    return _first(columns, sample, taken, _DATE, as_date)


def likely_rating(columns: Sequence[str], sample: Sample, taken: Taken = ()) -> int | None:
    """The first column that is named so and holds stars; none of those that hold something else."""
    return _first(columns, sample, taken, _RATING, as_rating)


def likely_product(columns: Sequence[str], sample: Sample, taken: Taken = ()) -> int | None:
    """The first column that is named as products are, else as shops are; numbers of them are none, nor are columns that
    hold something else."""
    for kind in (_PRODUCT, _PLACE):
        for column, cells in _named(columns, sample, taken, kind):
            if cells and not _ABOUT_IT.search(columns[column]) and not _NUMBER.search(columns[column]):
                return column
    return None


def likely_number(columns: Sequence[str], sample: Sample, taken: Taken = ()) -> int | None:
    """The first column that is named as one that tells rows apart, and does, but for a few that come twice; none of
    those that hold something else."""
    named = _named(columns, sample, taken, _NUMBER)
    return next((i for i, cells in named if cells and len(set(cells)) >= _MOST_OF_THEM * len(cells)), None)


def _letters(cell: str) -> int:
    """How many letters there are in what is no figure: 2026年9月1日, 1 Sep 2026, 09:00Z and 5星 say nothing."""
    if any(map(str.isdigit, cell)) and not any(map(str.isalpha, _OF_FIGURES.sub("", cell))):
        return 0
    return sum(map(str.isalpha, cell))


def _first(
    columns: Sequence[str], sample: Sample, taken: Taken, name: re.Pattern[str], read: Callable[[str], object]
) -> int | None:
    for column, cells in _named(columns, sample, taken, name):
        if cells and sum(read(cell) is not None for cell in cells) >= _MOST_OF_THEM * len(cells):
            return column
    return None


def _named(
    columns: Sequence[str], sample: Sample, taken: Taken, name: re.Pattern[str]
) -> Iterator[tuple[int, list[str]]]:
    """Columns of such a name, with their cells that are not empty."""
    for column, found in enumerate(columns):
        if column not in taken and name.search(found):
            yield column, [row[column].strip() for row in sample if row[column].strip()]
