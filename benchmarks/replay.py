"""Send every row of a labelled CSV to /chat and compare the sentiment with the label.

python -m benchmarks.replay --url http://127.0.0.1:5000 --data reviews.csv --clients 8

The CSV has the columns `text` and `label`. Exits with 1 if any request failed.
"""

from __future__ import annotations

import csv
import http.client
import json
import math
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

_TIMEOUT_S = 300.0


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


class Client:
    """Posts to /chat over one connection a thread."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._path = parts.path.rstrip("/") + "/chat"
        self._local = threading.local()

    def send(self, row: Row) -> Reply:
        """Send one row; every failure becomes an error in the reply."""
        began = time.perf_counter()
        try:
            status, body = self._post(json.dumps({"text": row.text}).encode())
            error = "" if status == 200 and body.get("response") else f"{status}: {body}"
            return Reply(row, time.perf_counter() - began, str(body.get("sentiment", "")), error)
        except (OSError, http.client.HTTPException, ValueError) as problem:
            self._local.connection = None
            return Reply(row, time.perf_counter() - began, error=f"{type(problem).__name__}: {problem}")

    def _post(self, body: bytes) -> tuple[int, dict[str, Any]]:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=_TIMEOUT_S)
            self._local.connection = connection
        connection.request("POST", self._path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, json.loads(response.read())


def read_rows(file: Path) -> list[Row]:
    """The rows of a CSV with the columns `text` and `label`; raises SystemExit if they are missing."""
    with file.open(encoding="utf-8-sig", newline="") as source:
        reader = csv.DictReader(source)
        if not {"text", "label"} <= set(reader.fieldnames or ()):
            sys.exit(f"{file}: needs the columns text and label, has {reader.fieldnames}")
        return [Row(line["text"], line["label"]) for line in reader]


def replay(client: Client, rows: Iterable[Row], clients: int) -> Iterator[Reply]:
    """Send all rows, `clients` at a time."""
    with ThreadPoolExecutor(clients) as pool:
        yield from pool.map(client.send, rows)


def percentile(values: list[float], share: float) -> float:
    """The value that `share` of `values` do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


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
        stream = replay(Client(url), rows, clients)
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
