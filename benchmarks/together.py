"""Several tasks on one text in one call (POST /v1/analyze) against each of them alone.

python -m benchmarks.together --model DIR [--tasks sentiment,intent,keywords,summary] [--text TEXT] [--rounds 5]

In this process, without HTTP. A round runs every task alone and then all of them together; figures are medians over
rounds. Asked is a ratio of 1.5 at most to the slowest task alone. Weights that were never trained do not stop by
themselves: their replies are as long as the tasks allow, which a real model's rarely are.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from qwen_allinone.bootstrap import build_service
from qwen_allinone.engine import Status
from qwen_allinone.service import Service
from qwen_allinone.settings import Settings

TOGETHER = "together"
TEXT = "上周六带父母住了一晚，前台办理很快，房间也干净，就是隔音太差，走廊说话听得一清二楚，希望以后能改进。"


def measure(service: Service, tasks: list[str], text: str, rounds: int, progress: Progress) -> dict[str, float]:
    """Median seconds of each task alone and of all together."""
    took: dict[str, list[float]] = {name: [] for name in (*tasks, TOGETHER)}
    for number in progress.track(range(rounds + 1), description="rounds"):
        for name, names in [*((task, [task]) for task in tasks), (TOGETHER, tasks)]:
            # A text of its own each time, or all but the first would find it computed.
            asked = [(task, {"text": f"{number}{name}：{text}"}) for task in names]
            began = time.perf_counter()
            service.run_all(asked)
            if number:  # the first is for warming up
                took[name].append(time.perf_counter() - began)
    return {name: median(values) for name, values in took.items()}


def main(
    model: Annotated[str, typer.Option(help="Model folder, or demo")],
    tasks: Annotated[
        str, typer.Option(help="Tasks of one text, comma-separated")
    ] = "sentiment,intent,keywords,summary",
    text: Annotated[str, typer.Option(help="The text they are run on")] = TEXT,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here too")] = None,
) -> None:
    """Time several tasks on one text, alone and together."""
    names = tasks.split(",")
    service = build_service(Settings.model_validate({"model": model}))
    try:
        if service.engine.wait_until_settled() is not Status.READY:
            sys.exit(service.engine.problem)
        with Progress(console=Console(stderr=True)) as progress:
            seconds = measure(service, names, text, rounds, progress)
    finally:
        service.engine.stop()
    slowest = max(names, key=lambda name: seconds[name])
    figures = seconds | {"slowest": slowest, "ratio": seconds[TOGETHER] / seconds[slowest]}
    table = Table("task", "seconds", title=f"{len(names)} tasks on one text, median of {rounds}")
    for name, value in seconds.items():
        table.add_row(name, f"{value:.3f}")
    console = Console()
    console.print(table)
    console.print(f"together / slowest alone ({slowest}): {figures['ratio']:.2f}")
    if json_file:
        json_file.write_text(json.dumps(figures, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
