"""Requests a second and latency of a running service, for several numbers of clients.

python -m benchmarks.serve --url http://127.0.0.1:5000 --clients 1,8,16 --requests 64 --data reviews.csv

The CSV has a column `text`; rows are taken in turn and from the top again when they run out. Requests a second,
tokens a second and times are those of good answers. Exits with 1 if any request failed.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.client import EVENT_STREAM, Answer, Target, closed_loop, percentile, read_csv

# Key of a figure -> head of its column; a column that no run has a figure for is left out.
COLUMNS = {
    "clients": "clients",
    "requests": "requests",
    "errors": "errors",
    "sent_again": "sent again",
    "requests_per_s": "requests/s",
    "tokens_per_s": "tokens/s",
    "p50_s": "p50 s",
    "p95_s": "p95 s",
    "max_s": "max s",
    "first_p50_s": "first event p50 s",
    "first_p95_s": "first event p95 s",
}


def measure(
    target: Target, texts: Iterator[str], clients: int, requests: int, done: Callable[[], object]
) -> tuple[dict[str, Any], list[Answer]]:
    """Send `requests` texts from `clients` clients, calling `done` after each; the figures and all answers."""
    bodies = ({"text": text} for text in itertools.islice(texts, requests))
    answers = []
    began = time.perf_counter()
    for _, answer in closed_loop(target, bodies, clients):
        answers.append(answer)
        done()
    return summarise(answers, clients, time.perf_counter() - began), answers


def summarise(answers: list[Answer], clients: int, seconds: float) -> dict[str, Any]:
    """Figures of a run: counts, seconds, rates a second. What is not known is not there."""
    good = [answer for answer in answers if not answer.problem]
    times = [answer.seconds for answer in good]
    firsts = [answer.first_s for answer in good if answer.first_s is not None]
    tokens = [answer.tokens for answer in good if answer.tokens is not None]
    figures: dict[str, Any] = {
        "clients": clients,
        "requests": len(answers),
        "errors": dict(Counter(answer.problem for answer in answers if answer.problem).most_common()),
        "requests_per_s": len(good) / seconds,
        "seconds": seconds,
    }
    if again := sum(answer.sent_again for answer in answers):
        figures["sent_again"] = again
    if tokens and len(tokens) == len(good):
        figures["tokens_per_s"] = sum(tokens) / seconds
    if times:
        figures |= {"p50_s": percentile(times, 0.50), "p95_s": percentile(times, 0.95), "max_s": max(times)}
    if firsts:
        figures |= {"first_p50_s": percentile(firsts, 0.50), "first_p95_s": percentile(firsts, 0.95)}
    return figures


def table_of(runs: list[dict[str, Any]], title: str) -> Table:
    """One row for each number of clients."""
    shown = [key for key in COLUMNS if any(key in run for run in runs)]
    table = Table(*(COLUMNS[key] for key in shown), title=title)
    for run in runs:
        table.add_row(*(_cell(run.get(key)) for key in shown))
    return table


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{count} x {problem}" for problem, count in value.items()) or "0"
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _counts(clients: str, requests: int) -> list[int]:
    """`1,8,16` as numbers; raises BadParameter for what is no number of clients."""
    try:
        counts = [int(count) for count in clients.split(",")]
    except ValueError:
        raise typer.BadParameter(f"--clients {clients}: write numbers with commas, such as 1,8,16") from None
    if min(counts) < 1 or max(counts) > 256:
        raise typer.BadParameter(f"--clients {clients}: from 1 to 256")
    if max(counts) > requests:
        raise typer.BadParameter(f"--requests {requests}: too few for {max(counts)} clients")
    return counts


def main(
    data: Annotated[Path, typer.Option(help="CSV with a column text", exists=True, dir_okay=False)],
    url: Annotated[str, typer.Option(help="Where the service listens")] = "http://127.0.0.1:5000",
    clients: Annotated[str, typer.Option(help="Numbers of clients, with commas; one run each")] = "1,8,16",
    requests: Annotated[int, typer.Option(min=1, help="Requests in each run")] = 64,
    path: Annotated[str, typer.Option(help="Route that takes a text: /chat, /v1/tasks/sentiment")] = "/chat",
    stream: Annotated[bool, typer.Option("--stream", help="Ask for an event stream, time its first event")] = False,
    patient: Annotated[
        bool, typer.Option("--patient", help="Full server: wait Retry-After seconds and send again, no error")
    ] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here too")] = None,
) -> None:
    """Measure requests a second and latency over HTTP."""
    counts = _counts(clients, requests)
    texts = [text for (text,) in read_csv(data, "text")]
    if not texts:
        sys.exit(f"{data}: has no rows")
    target, errors = Target(url, path, stream, patient), Console(stderr=True)
    # One turn for all runs: a text that was just sent could be answered from what the server still holds.
    turn = itertools.cycle(texts)
    runs: list[dict[str, Any]] = []
    answers: list[Answer] = []
    with Progress(console=errors) as progress:
        for count in counts:
            bar = progress.add_task(f"{path} x {count}", total=requests)
            run, got = measure(target, turn, count, requests, partial(progress.advance, bar))
            runs.append(run)
            answers += got
    Console().print(table_of(runs, f"{url}{path}"))
    for detail, number in Counter(answer.detail for answer in answers if answer.problem).most_common(5):
        errors.print(f"{number} x {detail}", markup=False)
    if stream and (others := {answer.content_type for answer in answers if answer.content_type} - {EVENT_STREAM}):
        errors.print(f"no event stream but {', '.join(sorted(others))}: counted as plain answers", markup=False)
    if json_file:
        figures = {"url": url, "path": path, "stream": stream, "patient": patient, "runs": runs}
        json_file.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    if any(run["errors"] for run in runs):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
