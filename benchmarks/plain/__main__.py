"""How many times faster the service is than the usual way, both as real servers, taking turns in one run.

python -m benchmarks.plain --model DIR --weights fp32,fp16 --load

Within a round every server does the same requests with the same texts, one server at a time, so that a machine that
drifts does so for all; a ratio is the median over rounds of plain seconds over ours. The plain app is always FP32 and
always fills its limits of 8 and 128 tokens. Ours answers the label in one pass and ends a reply where the model ends
it, so use a checkpoint that never does (random weights); tokens of the replies stand beside the figures, counted by
encoding their text again, which is nearly right.

--load sends `--clients` requests to /chat at once: to ours with one worker, to the plain app with two. All servers of
one part stay loaded: memory for one plain worker (two with --load) and one service for each of --weights.
"""

from __future__ import annotations

import itertools
import json
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.client import Answer, Target, closed_loop
from benchmarks.plain.servers import Server, plain, service
from qwen_allinone.model.tokenizer import Tokenizer

CHATS, LABELS = 2, 4  # requests a round
PLAIN_WORKERS = 2  # of the plain app under load, as tutorials start it
MOST_APART = 0.10  # replies whose lengths differ by more are no fair comparison
_TIMEOUT_S = 7200.0
_LINES = (
    "今天心情特别差，工作也不顺利",
    "终于通过了面试，想请大家吃饭",
    "房间很小，隔音也差，一夜没睡好",
    "和老朋友聊了一下午，特别放松",
    "快递又送错了，打电话也没有人接",
)
_TITLES = {
    "chat": "one /chat, s",
    "sentiment": "sentiment alone, s",
    "load": "/chat, many at once, requests/s",
}


@dataclass(frozen=True)
class Sample:
    """One server's part in one round: seconds for a request, tokens of a reply (None for a label)."""

    seconds: float
    tokens: float | None


Rounds = list[dict[str, Sample]]  # server's name -> its part, round by round


class Yardstick:
    """Sends the same texts to servers in turn. `done` is called after each request."""

    def __init__(self, tokenizer: Tokenizer, done: Callable[[], object]) -> None:
        self._tokenizer = tokenizer
        self._done = done
        self._days = itertools.count(1)

    def alone(self, servers: list[Server], rounds: int) -> dict[str, Rounds]:
        """One request at a time: chats and labels."""
        chats: Rounds = []
        labels: Rounds = []
        for number in range(rounds):
            for kept, count in ((chats, CHATS), (labels, LABELS)):
                texts = self._texts(count)
                done = {}
                for server in _turn(servers, number):
                    path = "/chat" if kept is chats else server.label_path
                    done[server.name] = self._sample(server, path, texts, clients=1)
                kept.append(done)
        return {"chat": chats, "sentiment": labels}

    def under_load(self, servers: list[Server], rounds: int, clients: int) -> dict[str, Rounds]:
        """All clients at once, one chat each."""
        load: Rounds = []
        for number in range(rounds):
            texts = self._texts(clients)
            load.append({s.name: self._sample(s, "/chat", texts, clients) for s in _turn(servers, number)})
        return {"load": load}

    def warm_up(self, servers: list[Server], at_once: int) -> None:
        """A label from each worker, uncounted: whatever a server does once, it has done then."""
        for server in servers:
            self._ask(server, server.label_path, self._texts(at_once), at_once)

    def _sample(self, server: Server, path: str, texts: list[str], clients: int) -> Sample:
        began = time.perf_counter()
        answers = self._ask(server, path, texts, clients)
        seconds = (time.perf_counter() - began) / len(texts)
        if path != "/chat":
            return Sample(seconds, None)
        return Sample(seconds, statistics.mean(self._tokens(str(answer.body["response"])) for answer in answers))

    def _ask(self, server: Server, path: str, texts: list[str], clients: int) -> list[Answer]:
        answers = []
        for _, answer in closed_loop(
            Target(server.url, path, timeout_s=_TIMEOUT_S), ({"text": text} for text in texts), clients
        ):
            if answer.problem:
                sys.exit(f"{server.name}: {path} failed: {answer.detail}")
            answers.append(answer)
            self._done()
        return answers

    def _tokens(self, reply: str) -> int:
        # A character cut at the limit is left out by ours, so it counts for nobody.
        return len(self._tokenizer.encode(reply.rstrip("\ufffd").strip()))

    def _texts(self, count: int) -> list[str]:
        """New texts: one that was sent before could be answered from what a server still holds."""
        return [f"第{day}天：{_LINES[day % len(_LINES)]}" for day in itertools.islice(self._days, count)]


def figures_of(measured: dict[str, Rounds], name: str) -> dict[str, dict[str, float]]:
    """Ours under `name` against plain: medians over the rounds, and of the ratio within a round."""
    figures: dict[str, dict[str, float]] = {}
    for what, rounds in measured.items():
        ours, plains = [each[name] for each in rounds], [each["plain"] for each in rounds]
        ours_s = statistics.median(sample.seconds for sample in ours)
        plain_s = statistics.median(sample.seconds for sample in plains)
        if what == "load":
            cell = {"ours_requests_per_s": 1 / ours_s, "plain_requests_per_s": 1 / plain_s}
        else:
            cell = {"ours_s": ours_s, "plain_s": plain_s}
        cell["ratio"] = statistics.median(b.seconds / a.seconds for a, b in zip(ours, plains, strict=True))
        if what != "sentiment":
            cell |= {"ours_tokens": _mean_tokens(ours), "plain_tokens": _mean_tokens(plains)}
        figures[what] = cell
    return figures


def table_of(figures: dict[str, dict[str, dict[str, float]]]) -> Table:
    """One row for each kind of weights and each comparison."""
    head = ("what", "weights", "ours", "plain", "times faster", "tokens a reply")
    table = Table(*head, title="against the plain way (FP32)")
    for what, title in _TITLES.items():
        for weights, cells in figures.items():
            if cell := cells.get(what):
                ours, plains, ratio, *tokens = cell.values()
                lengths = " / ".join(f"{count:.0f}" for count in tokens)  # ours / plain
                table.add_row(title, weights, f"{ours:.3g}", f"{plains:.3g}", f"{ratio:.1f}", lengths)
    return table


def unequal(figures: dict[str, dict[str, dict[str, float]]]) -> Iterator[str]:
    """A line for each comparison of replies whose lengths differ too much."""
    for weights, cells in figures.items():
        for what, cell in cells.items():
            ours, plains = cell.get("ours_tokens", 0.0), cell.get("plain_tokens", 0.0)
            if abs(ours - plains) > MOST_APART * max(ours, plains):
                yield f"{_TITLES[what]} ({weights}): replies of {ours:.0f} and {plains:.0f} tokens are not comparable"


def _turn(servers: list[Server], number: int) -> list[Server]:
    """Every other round backwards: a steady drift then favours nobody."""
    return servers if number % 2 == 0 else servers[::-1]


def _mean_tokens(samples: list[Sample]) -> float:
    return statistics.mean(sample.tokens or 0.0 for sample in samples)


def measure(
    model: Path, weights: list[str], rounds: int, clients: int, load: bool, python: str, progress: Progress
) -> dict[str, Any]:
    """Start the servers, measure, end them; figures by weights."""
    each = 1 + rounds * (CHATS + LABELS)
    total = each * (1 + len(weights))
    if load:
        total += PLAIN_WORKERS + rounds * clients * (1 + len(weights))
    bar = progress.add_task("starting", total=total)
    yardstick = Yardstick(Tokenizer.load(model), lambda: progress.advance(bar))
    with tempfile.TemporaryDirectory() as folder, ExitStack() as ours_running:
        home = Path(folder)
        ours = [ours_running.enter_context(service(model, name, home)) for name in weights]
        with plain(model, 1, home, python) as other:
            yardstick.warm_up([other, *ours], at_once=1)
            progress.update(bar, description="one at a time")
            measured = yardstick.alone([other, *ours], rounds)
        if load:
            with plain(model, PLAIN_WORKERS, home, python) as other:
                yardstick.warm_up([other], at_once=PLAIN_WORKERS)
                progress.update(bar, description=f"{clients} at once")
                measured |= yardstick.under_load([other, *ours], rounds, clients)
    return {name: figures_of(measured, name) for name in weights}


def main(
    model: Annotated[Path, typer.Option(help="Model folder", exists=True, file_okay=False)],
    weights: Annotated[str, typer.Option(help="Kinds of weights of ours, with commas")] = "fp32,fp16",
    rounds: Annotated[int, typer.Option(min=1, help="Turns of every server")] = 2,
    clients: Annotated[int, typer.Option(min=1, max=32, help="Requests at once, for --load")] = 8,
    load: Annotated[bool, typer.Option("--load", help="Also many clients at once; takes minutes")] = False,
    plain_python: Annotated[
        Path, typer.Option(help="Interpreter that runs the plain app", exists=True, show_default="this one")
    ] = Path(sys.executable),
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here too")] = None,
) -> None:
    """Compare the service with the usual way of serving the same model."""
    names = list(dict.fromkeys(weights.split(",")))
    errors = Console(stderr=True)
    with Progress(console=errors) as progress:
        figures = measure(model, names, rounds, clients, load, str(plain_python.absolute()), progress)
    Console().print(table_of(figures))
    for line in unequal(figures):
        errors.print(f"warning: {line}", markup=False)
    if json_file:
        written = {"model": str(model), "rounds": rounds, "clients": clients, "weights": figures}
        json_file.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    # So that servers are ended too when this is.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    typer.run(main)
