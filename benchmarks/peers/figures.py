"""From what was measured in each round to medians, ratios and tables."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table


@dataclass(frozen=True)
class Cell:
    """One measurement: `decode` at a batch size, or `prefill` of a number of tokens."""

    what: str
    size: int

    def __str__(self) -> str:
        return f"{self.what} {self.size}"


Figures = Mapping[Cell, float]
Round = Mapping[str, Figures]  # of each engine that answered, ms


def medians(rounds: Sequence[Round], cells: Sequence[Cell]) -> dict[str, dict[Cell, float]]:
    """Each engine's median over the rounds in which it answered, ms."""
    names = dict.fromkeys(name for figures in rounds for name in figures)
    return {name: _over(cells, {cell: _values(rounds, name, cell) for cell in cells}) for name in names}


def ratios(rounds: Sequence[Round], cells: Sequence[Cell], rivals: Mapping[str, str]) -> dict[str, dict[Cell, float]]:
    """Peer's time over ours: the median of the ratios within each round. Above 1: ours is faster.

    Only rounds in which both answered count; a pair without one is left out.
    """
    found = {}
    for peer, ours in rivals.items():
        within = {
            cell: [
                one[peer][cell] / one[ours][cell] for one in rounds if _has(one, peer, cell) and _has(one, ours, cell)
            ]
            for cell in cells
        }
        if any(within.values()):
            found[peer] = _over(cells, within)
    return found


def by_size(figures: Figures, what: str) -> dict[str, float]:
    """The cells of one kind, by size, as JSON wants them."""
    return {str(cell.size): value for cell, value in figures.items() if cell.what == what}


def table_of(title: str, rows: Iterable[tuple[str, Figures]], cells: Sequence[Cell], digits: int) -> Table:
    """One row for each name, one column for each cell."""
    table = Table(title=title)
    table.add_column("engine", no_wrap=True)
    for cell in cells:
        table.add_column(f"{cell.what}\n{cell.size}", justify="right")
    for name, figures in rows:
        table.add_row(name, *(f"{figures[cell]:.{digits}f}" if cell in figures else "-" for cell in cells))
    return table


def _over(cells: Sequence[Cell], values: Mapping[Cell, Sequence[float]]) -> dict[Cell, float]:
    return {cell: statistics.median(values[cell]) for cell in cells if values[cell]}


def _values(rounds: Sequence[Round], name: str, cell: Cell) -> list[float]:
    return [one[name][cell] for one in rounds if _has(one, name, cell)]


def _has(one: Round, name: str, cell: Cell) -> bool:
    return cell in one.get(name, {})
