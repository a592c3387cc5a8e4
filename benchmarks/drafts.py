"""What drafts gain: tokens a second with and without them, on replies that copy from their prompt and on chat.

python -m benchmarks.drafts --model DIR [--weights fp32] [--batches 1,2,4] [--tokens 96]

Steps are the engine's own, driven without its thread, greedy and to the last token, stop or not: both ways say the
same, which is checked. Rounds with and without alternate, each from the first step that gives every reply a token;
figures are medians. `price`: what a row more adds to a step of one row, measured as at a start; `--price` sets it.
Nothing else should run meanwhile.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.engine import Kind
from qwen_allinone.engine import Generate, Result, Sampling, Ticket
from qwen_allinone.engine.drafts import Drafting, price_of_a_row
from qwen_allinone.engine.scheduler import Scheduler
from qwen_allinone.engine.slots import SlotTable
from qwen_allinone.engine.step import step
from qwen_allinone.host import compute_threads
from qwen_allinone.model import checkpoint
from qwen_allinone.model.checkpoint import Checkpoint
from qwen_allinone.model.kv import KVCache
from qwen_allinone.tasks import Chat

_LENGTH, _STEP_TOKENS = 1024, 512
_REVIEWS = (
    "房间很干净，床也舒服，前台的小姑娘很热情，还帮我们升级了房型，早餐种类也多，下次还会来。",
    "等了两个小时才送到，汤全洒了，打电话给客服一直没人接，退款也说要七个工作日，再也不会点了。",
    "The room was clean and the staff were friendly, but the street was loud until two in the morning.",
    "手机用了三天就自动关机，去门店说要寄回厂家检测，来回半个月，希望能给一个说法。",
)
KINDS = {
    "copying": "逐字重复下面的文字，一个字也不要改：\n",
    "key words": "抄出下面文字里的关键词，用顿号分开：\n",
    "JSON": '把下面的文字按句子拆开，原样放进 JSON 数组，例如 ["第一句", "第二句"]：\n',
}
_CHATS = (
    "今天心情特别差，工作也不顺利",
    "周末想带孩子出去玩，有什么好主意？",
    "我刚学会做红烧肉！",
    "晚上总是睡不着怎么办",
)


@dataclass(frozen=True)
class Round:
    """One batch computed to its end: tokens a second, and what was said."""

    per_second: float
    results: list[Result]


def prompts(loaded: Checkpoint, kind: str, batch: int) -> list[list[int]]:
    """As many prompts of a kind, `chat` or one of KINDS, as there are requests in a batch."""
    asked = _CHATS if kind == "chat" else tuple(KINDS[kind] + review for review in _REVIEWS)
    texts = [asked[number % len(asked)] for number in range(batch)]
    return [loaded.tokenizer.encode_rendered(Chat((("user", text),))) for text in texts]


def run(
    loaded: Checkpoint, cache: KVCache, asked: Sequence[list[int]], tokens: int, drafting: Drafting | None
) -> Round:
    """Greedy replies of `tokens` tokens to prompts that decode together."""
    scheduler = Scheduler(
        SlotTable(cache, cache.slots, cache.slots * _LENGTH),
        step_tokens=_STEP_TOKENS,
        longest=_LENGTH,
        drafting=drafting,
    )
    works = [Generate(prompt, Sampling(max_new_tokens=tokens), frozenset()) for prompt in asked]
    tickets = [Ticket(work) for work in works]
    for ticket in tickets:
        scheduler.submit(ticket)
    while not all(work.ids for work in works):
        step(loaded.model, cache, scheduler)
    already, began = sum(len(work.ids) for work in works), time.perf_counter()
    while scheduler.running:
        step(loaded.model, cache, scheduler)
    seconds = time.perf_counter() - began
    results = [ticket.future.result(0) for ticket in tickets]
    return Round((sum(len(result.ids) for result in results) - already) / seconds, results)


def compare(
    loaded: Checkpoint, kind: str, batch: int, tokens: int, rounds: int, drafting: Drafting
) -> dict[str, float | bool]:
    """Tokens a second without and with drafts, their ratio, and how the drafts fared.

    `same`: both said the same; with torch's kernels near ties may fall otherwise.
    """
    cache, asked = loaded.model.new_cache(batch), prompts(loaded, kind, batch)
    without, drafted = list[Round](), list[Round]()
    for _ in range(rounds):
        without.append(run(loaded, cache, asked, tokens, None))
        drafted.append(run(loaded, cache, asked, tokens, drafting))
    slow, fast = (statistics.median(one.per_second for one in made) for made in (without, drafted))
    results = drafted[0].results
    return {
        "without": slow,
        "with": fast,
        "ratio": fast / slow,
        "drafted": sum(result.drafted_tokens for result in results),
        "accepted": sum(result.accepted_tokens for result in results),
        "same": [result.ids for result in results] == [result.ids for result in without[0].results],
    }


def main(
    model: Annotated[Path, typer.Option(help="Model folder", exists=True, file_okay=False)],
    weights: Annotated[Kind, typer.Option(help="How weights are stored")] = Kind.FP32,
    batches: Annotated[str, typer.Option(help="Requests that decode together, comma-separated")] = "1,2,4",
    tokens: Annotated[int, typer.Option(min=8, max=_LENGTH // 2, help="Of each reply")] = 96,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    price: Annotated[float, typer.Option(min=0, help="What a row more costs; 0: measured")] = 0.0,
    threads: Annotated[int, typer.Option(min=0, help="Compute threads; 0: all cores available")] = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here too")] = None,
) -> None:
    """Measure replies with drafts against replies without."""
    torch.set_num_threads(compute_threads(threads, 1))
    loaded = checkpoint.load(str(model), "main", weights.value, _LENGTH)
    drafting = Drafting(price or price_of_a_row(loaded.model, loaded.model.new_cache(1)))
    figures: dict[str, Any] = {"model": str(model), "weights": weights.value, "price": drafting.price, "figures": {}}
    cases = [(kind, int(batch)) for kind in (*KINDS, "chat") for batch in batches.split(",")]
    with Progress(console=Console(stderr=True)) as progress:
        for kind, batch in progress.track(cases, description="replies"):
            figures["figures"][f"{kind}, batch {batch}"] = compare(loaded, kind, batch, tokens, rounds, drafting)
    state = "drafts pay" if drafting.pays else "too dear for drafts"
    title = f"{weights.value} ({loaded.model.kernel}): a row more costs {drafting.price:.0%}, {state}"
    table = Table("what", "tokens/s without", "with", "times", "drafted", "accepted", "same", title=title)
    for what, row in figures["figures"].items():
        counts = (str(row["drafted"]), str(row["accepted"]), "yes" if row["same"] else "no")
        table.add_row(what, f"{row['without']:.1f}", f"{row['with']:.1f}", f"{row['ratio']:.2f}", *counts)
    Console().print(table)
    if json_file:
        json_file.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
