"""Measure other engines and ours in turn, and print times and ratios.

python -m benchmarks.peers --model DIR --engines ours:fp32,openvino:fp32

All engines stay loaded and only one works at a time; every round goes through all measurements, and every engine
takes its turn at each, so that drift of the machine hits all alike. Nothing else should run meanwhile. The default
takes some 20 GB with the full-size model: choose fewer engines on a smaller machine.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from benchmarks.peers.engines import KINDS, RIVALS, Choice, parse_batches, parse_engines
from benchmarks.peers.environments import Workshop
from benchmarks.peers.figures import Cell, Round, by_size, medians, ratios, table_of
from benchmarks.peers.process import PeerFailed, Runner
from benchmarks.peers.runners.protocol import LENGTH, SEQUENCES
from qwen_allinone.host import compute_threads

CONTEXT = 200  # tokens behind each sequence that decodes
PREFILL = 256
WORK = Path("~/.cache/qwen-allinone-peers")


class Comparison:
    """Runners by name. One that fails is reported, and the rest goes on."""

    def __init__(self, progress: Progress) -> None:
        self.failed: dict[str, str] = {}
        self._runners: dict[str, Runner] = {}
        self._progress = progress
        self._stack = ExitStack()

    def load(self, choices: Sequence[Choice], model: Path, workshop: Workshop, threads: int) -> None:
        """Make what each engine needs and start it, one after the other."""
        for choice in self._progress.track(choices, description="preparing"):
            try:
                command = command_of(choice, model, workshop, threads)
                self._runners[str(choice)] = runner = Runner(command, workshop.log(str(choice)))
                self._stack.callback(runner.close)
            except PeerFailed as problem:
                self._report(str(choice), problem)

    def measure(self, cells: Sequence[Cell], rounds: int, steps: int) -> Sequence[Round]:
        """All rounds."""
        done: list[dict[str, dict[Cell, float]]] = []
        task = self._progress.add_task("measuring", total=rounds * len(cells) * len(self._runners))
        for _ in range(rounds):
            done.append({})
            for cell in cells:
                for name, runner in list(self._runners.items()):
                    self._progress.update(task, description=f"{name}, {cell}")
                    try:
                        done[-1].setdefault(name, {})[cell] = _measured(runner, cell, steps)
                    except PeerFailed as problem:
                        self._report(name, problem)
                        del self._runners[name]
                    self._progress.advance(task)
        return done

    def close(self) -> None:
        """End all runners."""
        self._stack.close()

    def _report(self, name: str, problem: PeerFailed) -> None:
        self.failed[name] = str(problem)
        self._progress.console.print(f"{name} failed: {problem}", markup=False, soft_wrap=True)


def command_of(choice: Choice, model: Path, workshop: Workshop, threads: int) -> list[str]:
    """How to start the runner of `choice`; makes its environment and converts the model if need be."""
    kind = KINDS[choice.engine]
    python = sys.executable if kind.environment is None else str(workshop.python(kind.environment))
    form = kind.modes[choice.mode]
    source = workshop.converted(model, form) if form else model
    program = ["-m", f"benchmarks.peers.runners.{kind.runner}"]
    return [python, *program, "--model", str(source), "--mode", choice.mode, "--threads", str(threads)]


def figures_of(model: Path, rounds: Sequence[Round], steps: int, cells: Sequence[Cell]) -> dict[str, object]:
    """What --json writes: medians in ms, and ratios of a peer's time over ours."""
    return {
        "model": str(model),
        "rounds": len(rounds),
        "steps": steps,
        "cells": {
            name: {"decode_ms": by_size(figures, "decode"), "prefill_ms": by_size(figures, "prefill")}
            for name, figures in medians(rounds, cells).items()
        },
        "ratios": {
            name: {"decode": by_size(figures, "decode"), "prefill": by_size(figures, "prefill")}
            for name, figures in ratios(rounds, cells, RIVALS).items()
        },
    }


def _measured(runner: Runner, cell: Cell, steps: int) -> float:
    if cell.what == "prefill":
        return runner.prefill_ms(cell.size, max(3, steps // 8))
    return runner.decode_ms(cell.size, CONTEXT, steps)


def _print(rounds: Sequence[Round], cells: Sequence[Cell], rivals: Mapping[str, str]) -> None:
    console = Console()
    times = medians(rounds, cells)
    console.print(table_of(f"ms: a decode step behind {CONTEXT} tokens, a prompt", times.items(), cells, digits=1))
    rows = [(f"{peer} / {rivals[peer]}", values) for peer, values in ratios(rounds, cells, rivals).items()]
    if rows:
        console.print(table_of("peer / ours: above 1, ours is faster", rows, cells, digits=2))


def main(
    model: Annotated[Path, typer.Option(help="Model folder", exists=True, file_okay=False)],
    engines: Annotated[
        str, typer.Option(help="Such as ours:fp32,openvino:fp32; empty: all but openvino:fp32-kv32")
    ] = "",
    work: Annotated[Path, typer.Option(help="Environments, converted models and logs are kept here")] = WORK,
    rounds: Annotated[int, typer.Option(min=1, help="How often every engine is measured")] = 3,
    steps: Annotated[int, typer.Option(min=3, max=LENGTH - CONTEXT - 8, help="Decode steps timed")] = 24,
    batches: Annotated[str, typer.Option(help="Batch sizes to decode at")] = "1,4,8,16",
    threads: Annotated[int, typer.Option(min=0, help="Compute threads; 0: all cores available")] = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here too")] = None,
) -> None:
    """Compare engines on one model. Ends with 1 if one of them failed."""
    try:
        choices = parse_engines(engines)
        cells = [*(Cell("decode", batch) for batch in parse_batches(batches, SEQUENCES)), Cell("prefill", PREFILL)]
    except ValueError as problem:
        sys.exit(str(problem))
    with Progress(console=Console(stderr=True), refresh_per_second=1) as progress:  # drawn while engines are timed
        comparison = Comparison(progress)
        try:
            workshop = Workshop(work.expanduser().resolve())
            comparison.load(choices, model.resolve(), workshop, compute_threads(threads, 1))
            done = comparison.measure(cells, rounds, steps)
        finally:
            comparison.close()
    _print(done, cells, RIVALS)
    if json_file:
        json_file.write_text(json.dumps(figures_of(model, done, steps, cells), indent=2) + "\n", encoding="utf-8")
    if comparison.failed:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
