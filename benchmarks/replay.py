"""Send every row of a labelled CSV to /chat and compare the sentiment with the label.

python -m benchmarks.replay --url http://127.0.0.1:5000 --data reviews.csv --clients 8

The CSV has the columns `text` and `label`. Exits with 1 if any request failed.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.client import Answer, Target, closed_loop, percentile, read_csv


@dataclass(frozen=True)
class Row:
    """One labelled text."""

    text: str
    label: str


@dataclass(frozen=True)
class Reply:
    """What came back for one row; `error` is empty if it was a good answer."""

    row: Row
    seconds: float
    sentiment: str = ""
    error: str = ""


def read_rows(file: Path) -> list[Row]:
    """The rows of a CSV with the columns `text` and `label`; raises SystemExit if they are missing."""
    return [Row(text, label) for text, label in read_csv(file, "text", "label")]


def replay(target: Target, rows: list[Row], clients: int) -> Iterator[Reply]:
    """Send all rows, `clients` at a time."""
    for number, answer in closed_loop(target, ({"text": row.text} for row in rows), clients):
        yield _reply(rows[number], answer)


def _reply(row: Row, answer: Answer) -> Reply:
    error = answer.detail
    if not answer.problem and not answer.body.get("response"):
        error = f"{answer.status}: {answer.body}"
    return Reply(row, answer.seconds, str(answer.body.get("sentiment", "")), error)


def summarise(replies: list[Reply], seconds: float) -> dict[str, float]:
    """Figures of a run: counts, shares, seconds."""
    good = [reply for reply in replies if not reply.error]
    times = [reply.seconds for reply in good] or [math.nan]
    right = sum(reply.sentiment == reply.row.label for reply in good)
    return {
        "requests": len(replies),
        "errors": len(replies) - len(good),
        "accuracy": right / len(good) if good else math.nan,
        "p50_s": percentile(times, 0.50),
        "p95_s": percentile(times, 0.95),
        "requests_per_s": len(replies) / seconds,
        "seconds": seconds,
    }


def main(
    data: Annotated[Path, typer.Option(help="CSV with the columns text and label", exists=True, dir_okay=False)],
    url: Annotated[str, typer.Option(help="Where the service listens")] = "http://127.0.0.1:5000",
    clients: Annotated[int, typer.Option(min=1, max=64, help="Requests at a time")] = 8,
    limit: Annotated[int, typer.Option(min=0, help="Only the first N rows; 0: all")] = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here too")] = None,
) -> None:
    """Replay a labelled CSV against /chat."""
    rows = read_rows(data)[: limit or None]
    began = time.perf_counter()
    with Progress(console=Console(stderr=True)) as progress:
        stream = replay(Target(url), rows, clients)
        replies = list(progress.track(stream, total=len(rows), description=f"/chat x {clients}"))
    figures = summarise(replies, time.perf_counter() - began)
    table = Table("figure", "value", title=f"{data.name}, {clients} clients")
    for name, value in figures.items():
        table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
    Console().print(table)
    for error, count in Counter(reply.error for reply in replies if reply.error).most_common(5):
        Console(stderr=True).print(f"{count} x {error}", markup=False)
    if json_file:
        json_file.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    if figures["errors"]:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
