"""What asking ten questions about one text in one call saves against ten calls with one question each.

python -m benchmarks.decisions --model DIR --weights fp32

The calls are the service's own, without HTTP. Single calls are timed twice: as they come, where all but the first find
the text's keys and values still in a slot, and each about a text that nobody has read before. Every round has a text of
its own, the order of the three changes from round to round, figures are medians. Nothing else should run meanwhile.
"""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Callable
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.engine import Kind
from qwen_allinone.bootstrap import build_service
from qwen_allinone.engine import Status
from qwen_allinone.service import Service, Terms
from qwen_allinone.service.questions import Option, TypedQuestion, decide
from qwen_allinone.settings import Settings

TEXT_TOKENS = 200
_WORDS = "房间干净服务热情早餐丰富位置方便隔音很差等了半天价格公道下次再来物流太慢包装破损客服耐心"
_SHORT = tuple(map(Option, ("正面", "负面", "中性")))
QUESTIONS = [
    TypedQuestion("predicate", "说话人满意"),
    TypedQuestion("choice", "整体态度", _SHORT),
    TypedQuestion("predicate", "提到了价格"),
    TypedQuestion("choice", "对服务的态度", _SHORT),
    TypedQuestion("predicate", "需要客服跟进"),
    TypedQuestion("score", "生气的程度", tuple(map(Option, ("低", "中", "高")))),
    TypedQuestion("predicate", "提到了物流"),
    TypedQuestion("choice", "对房间的态度", _SHORT),
    TypedQuestion("predicate", "会再来"),
    TypedQuestion("choice", "属于哪一类", tuple(map(Option, ("投诉", "表扬", "咨询")))),
]


def measure(service: Service, rounds: int) -> dict[str, float]:
    """Median seconds of ten questions in one call and of ten calls, and the ratios."""
    dice = random.Random(0)

    def text() -> str:
        encode = service.codec.tokenizer.encode
        written = ""
        while len(encode(written)) < TEXT_TOKENS:
            written += dice.choice(_WORDS)
        return written

    def together(about: str) -> None:
        decide(service, [("user", about)], QUESTIONS, Terms())

    def singly(about: str) -> None:
        for question in QUESTIONS:
            decide(service, [("user", about)], [question], Terms())

    def singly_unread(_: str) -> None:
        for question, about in zip(QUESTIONS, unread, strict=True):
            decide(service, [("user", about)], [question], Terms())

    ways: dict[str, Callable[[str], None]] = {
        "one_call_s": together,
        "ten_calls_s": singly,
        "ten_calls_unread_s": singly_unread,
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    together(text())  # warm
    for number in range(rounds):
        names = list(ways)
        for name in names[number % 3 :] + names[: number % 3]:
            about, unread = text(), [text() for _ in QUESTIONS]
            began = time.perf_counter()
            ways[name](about)
            seconds[name].append(time.perf_counter() - began)
    figures = {name: statistics.median(taken) for name, taken in seconds.items()}
    figures["ratio"] = figures["ten_calls_s"] / figures["one_call_s"]
    figures["ratio_unread"] = figures["ten_calls_unread_s"] / figures["one_call_s"]
    return figures


def main(
    model: Annotated[str, typer.Option(help="Folder of the checkpoint, or demo")],
    weights: Annotated[Kind, typer.Option(help="As QAIO_WEIGHTS")] = Kind.FP32,
    threads: Annotated[int, typer.Option(help="As QAIO_THREADS")] = 0,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON and no table")] = False,
) -> None:
    """Time one call with ten questions against ten calls."""
    given = {"QAIO_MODEL": model, "QAIO_WEIGHTS": weights.value, "QAIO_THREADS": str(threads)}
    service = build_service(Settings.load(given))
    if service.engine.wait_until_settled() is not Status.READY:
        raise SystemExit(service.engine.problem)
    figures = measure(service, rounds)
    service.engine.stop()
    if as_json:
        print(json.dumps(figures))
        return
    table = Table("figure", "median")
    for name, value in figures.items():
        table.add_row(name, f"{value:.3f}" + (" s" if name.endswith("_s") else ""))
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
