"""What the engine costs on this machine, and how near that is to what the machine can do.

python -m benchmarks.engine --model DIR --weights fp32

Steps are the engine's own (schedule, forward, sample, deliver), driven without its thread. Nothing else should run
meanwhile. Figures are medians; the resident size is that with 8 slots of 512 tokens in use; the bandwidth and the GEMM
peak are the best of several tries in the same run.
"""

from __future__ import annotations

import enum
import json
import random
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from qwen_allinone.engine import Classify, Generate, LabelTrie, Sampling, Ticket
from qwen_allinone.engine.scheduler import Scheduler
from qwen_allinone.engine.slots import SlotTable
from qwen_allinone.engine.step import step
from qwen_allinone.engine.work import Work
from qwen_allinone.host import compute_threads, give_back, resident_bytes
from qwen_allinone.model import checkpoint
from qwen_allinone.model.config import ModelConfig
from qwen_allinone.model.linear import Kernels, PackedLinear, Weights
from qwen_allinone.model.qwen2 import Qwen2

BATCHES = (1, 2, 4, 8, 16)
PREFILLS = (16, 64, 256)
CONTEXT = 200
LABEL_TEXT = 24  # tokens of a short text behind the fixed prompt
LABEL_PREFIX = 120
TURNS, TURN_TEXT, TURN_REPLY = 10, 24, 16
FULL_SLOTS = 8  # of _LENGTH tokens, when the resident size is taken
_SLOTS, _LENGTH = 16, 512
# Of a stored weight, by kernel.
_BYTES = {"native-exact": 2, "native-int8": 1, "dense": 4, "onednn-packed": 4, "fbgemm-fp16": 2, "fbgemm-int8": 1}


class Kind(enum.StrEnum):
    """The choices of --weights."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


class Bench:
    """A model with slots, stepped by hand."""

    def __init__(self, model: Qwen2) -> None:
        self._model = model
        self._cache = model.new_cache(_SLOTS)
        self._random = random.Random(0)
        self._fresh()

    def decode_ms(self, batch: int, steps: int) -> float:
        """One step of `batch` requests that each have CONTEXT tokens behind them."""
        self._fresh()
        greedy = Sampling(max_new_tokens=_LENGTH - CONTEXT)
        for _ in range(batch):
            self._submit(Generate(self._tokens(CONTEXT), greedy, frozenset()))
        for _ in range(batch + 1):  # at 256 tokens a step, each prompt takes at most one
            self._step()
        return _median_ms(self._step, steps)

    def prefill_ms(self, tokens: int, repeats: int) -> float:
        """A prompt of `tokens` new tokens up to its first logits."""
        self._fresh()
        return _median_ms(lambda: self._complete(Generate(self._tokens(tokens), _one_token(), frozenset())), repeats)

    def label_ms(self, repeats: int) -> float:
        """A label request behind a fixed prompt that is already in a slot."""
        self._fresh()
        prefix, trie = self._tokens(LABEL_PREFIX), LabelTrie(((1,), (2,)))
        self._complete(Classify(prefix + self._tokens(LABEL_TEXT), trie))
        return _median_ms(lambda: self._complete(Classify(prefix + self._tokens(LABEL_TEXT), trie)), repeats)

    def turns_ms(self) -> dict[str, float]:
        """Time to the first token of each turn of one conversation: the same amount of new text, a longer history."""
        self._fresh()
        history: list[int] = []
        times = {}
        for turn in range(1, TURNS + 1):
            history += self._tokens(TURN_TEXT)
            work = Generate(history, Sampling(max_new_tokens=TURN_REPLY), frozenset())
            self._submit(work)
            began = time.perf_counter()
            while len(work.tokens) == len(history):
                self._step()
            times[str(turn)] = (time.perf_counter() - began) * 1e3
            while self._scheduler.running:
                self._step()
            history = list(work.tokens)
        return times

    def _complete(self, work: Work) -> None:
        self._submit(work)
        while self._scheduler.waiting or self._scheduler.running:
            self._step()

    def _submit(self, work: Work) -> None:
        self._scheduler.submit(Ticket(work))

    def _step(self) -> None:
        step(self._model, self._cache, self._scheduler)

    def fill(self, slots: int) -> None:
        """Leave `slots` slots full, and no other memory in use for keys and values."""
        self._fresh()
        for _ in range(slots):
            self._submit(Generate(self._tokens(_LENGTH - 1), _one_token(), frozenset()))
        while self._scheduler.waiting or self._scheduler.running:
            self._step()

    def _fresh(self) -> None:
        for slot in range(_SLOTS):
            self._cache.discard(slot)
        slots = SlotTable(self._cache, _SLOTS, _SLOTS * _LENGTH)
        self._scheduler = Scheduler(slots, step_tokens=256, longest=_LENGTH)

    def _tokens(self, count: int) -> list[int]:
        return [self._random.randrange(1000, self._model.config.vocab_size) for _ in range(count)]


def read_gbps(tries: int = 5) -> float:
    """Bandwidth of reading memory once, GB/s: the best of a sum and of the packed kernel at four rows."""
    data = torch.ones(256 * 1024 * 1024 // 4)
    weight, rows = torch.ones(16384, 4096), torch.ones(4, 4096)
    linear = PackedLinear(weight, None)
    by_sum = max(data.nbytes / _seconds(data.sum) for _ in range(tries))
    by_kernel = max(weight.nbytes / _seconds(lambda: linear(rows)) for _ in range(tries))
    return max(by_sum, by_kernel) / 1e9


def gemm_gflops(size: int = 2048, tries: int = 5) -> float:
    """Peak of a tall FP32 matrix product, GFLOP/s."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    return max(2 * size**3 / _seconds(lambda: F.linear(a, b)) for _ in range(tries)) / 1e9


def measure(
    model_dir: Path, weights: Weights, steps: int, progress: Progress, kernels: Kernels = "auto"
) -> dict[str, Any]:
    """All figures of one model, in the units their names say."""
    began = time.perf_counter()
    loaded = checkpoint.load(str(model_dir), "main", weights, _LENGTH, kernels)
    load_s = time.perf_counter() - began
    bench = Bench(loaded.model)

    def each(values: Iterable[int], name: str, run: Callable[[int], float]) -> dict[str, float]:
        return {str(value): run(value) for value in progress.track(list(values), description=name)}

    figures: dict[str, Any] = {"model": str(model_dir), "weights": weights, "kernel": loaded.model.kernel}
    figures["threads"] = torch.get_num_threads()
    figures["load_s"] = load_s
    figures["decode_ms"] = each(BATCHES, "decode", lambda batch: bench.decode_ms(batch, steps))
    figures["prefill_ms"] = each(PREFILLS, "prefill", lambda tokens: bench.prefill_ms(tokens, max(3, steps // 8)))
    figures["label_ms"] = bench.label_ms(max(5, steps // 4))
    figures["turns_ms"] = bench.turns_ms()
    bench.fill(FULL_SLOTS)
    give_back()  # as the engine does when idle
    figures["rss_mb"] = resident_bytes() / 1e6
    figures["read_gbps"], figures["gemm_gflops"] = read_gbps(), gemm_gflops()
    config = loaded.model.config
    figures["layer_weights"] = _layer_weights(config)
    figures["head_weights"] = config.vocab_size * config.hidden_size
    return figures


def table_of(figures: dict[str, Any]) -> Table:
    """The figures with their share of what the machine can do: weights over bandwidth, products over the GEMM peak."""
    table = Table("what", "figure", "of the limit", title=f"{figures['weights']} ({figures['kernel']})")
    weights = figures["layer_weights"] + figures["head_weights"]
    stored = max(_BYTES[kernel] for kernel in figures["kernel"].split(", "))
    floor_ms = weights * stored / figures["read_gbps"] / 1e6
    for batch, value in figures["decode_ms"].items():
        share = f"{floor_ms / value:.0%} of the bandwidth" if batch == "1" else ""
        table.add_row(f"decode, batch {batch}, ms a step", f"{value:.1f}", share)
    for tokens, value in figures["prefill_ms"].items():
        gflops = 2 * (figures["layer_weights"] * int(tokens) + figures["head_weights"]) / value / 1e6
        table.add_row(f"prefill, {tokens} tokens, ms", f"{value:.1f}", f"{gflops / figures['gemm_gflops']:.0%} of GEMM")
    turns = figures["turns_ms"]
    share = f"{turns[str(TURNS)] / turns['2']:.2f} x turn 2"
    table.add_row(f"first token of turn {TURNS}, ms", f"{turns[str(TURNS)]:.1f}", share)
    for name in ("label_ms", "load_s", "rss_mb", "read_gbps", "gemm_gflops"):
        table.add_row(name, f"{figures[name]:.4g}", "")
    return table


def _one_token() -> Sampling:
    return Sampling(max_new_tokens=1)


def _layer_weights(config: ModelConfig) -> int:
    """Matrix elements of all layers, which each token multiplies once."""
    heads = 2 * config.num_attention_heads + 2 * config.num_key_value_heads  # of q, k, v and the output
    attention = config.hidden_size * config.head_dim * heads
    return config.num_hidden_layers * (attention + 3 * config.hidden_size * config.intermediate_size)


def _seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def _median_ms(action: Callable[[], object], repeats: int) -> float:
    return statistics.median(_seconds(action) for _ in range(repeats)) * 1e3


def main(
    model: Annotated[Path, typer.Option(help="Model folder", exists=True, file_okay=False)],
    weights: Annotated[Kind, typer.Option(help="How weights are stored")] = Kind.FP32,
    steps: Annotated[int, typer.Option(min=3, help="Decode steps timed at each batch size")] = 24,
    threads: Annotated[int, typer.Option(min=0, help="Compute threads; 0: all cores available")] = 0,
    torch_kernels: Annotated[bool, typer.Option("--torch-kernels", help="Torch's kernels, not the project's")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here too")] = None,
) -> None:
    """Measure decode, prefill, labels, load time and memory."""
    torch.set_num_threads(compute_threads(threads, 1))
    with Progress(console=Console(stderr=True)) as progress:
        figures = measure(model, weights.value, steps, progress, "torch" if torch_kernels else "auto")
    Console().print(table_of(figures))
    if json_file:
        json_file.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
