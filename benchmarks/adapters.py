"""What adapters cost a decode step: requests of several adapters in one batch against the same requests of none.

python -m benchmarks.adapters --model DIR [--weights fp32] [--batch 8] [--adapters 4] [--rank 8]

The adapters hold random numbers, on all seven projections; requests take them in turn, and with --spare N that many of
the batch have none. Steps are the engine's own, driven without its thread, each request with 200 tokens behind it.
Rounds with and without alternate; figures are medians. Nothing else should run meanwhile.
Asked for is a ratio of 1.25 at most with 4 adapters in a batch of 8.
"""

from __future__ import annotations

import json
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from safetensors.torch import save_file

from benchmarks.engine import CONTEXT, Kind
from qwen_allinone.engine import Generate, Sampling, Ticket
from qwen_allinone.engine.scheduler import Scheduler
from qwen_allinone.engine.slots import SlotTable
from qwen_allinone.engine.step import step
from qwen_allinone.host import compute_threads
from qwen_allinone.model import checkpoint
from qwen_allinone.model.config import ModelConfig
from qwen_allinone.model.kv import KVCache
from qwen_allinone.model.lora import Adapter, load_adapter, projection_sizes
from qwen_allinone.model.qwen2 import Qwen2
from qwen_allinone.tasks.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, MOST_RANK, load_adapter_files

_LENGTH, _STEP_TOKENS = 512, 256
_WARM_UP = 2


def random_adapter(config: ModelConfig, rank: int, seed: int) -> Adapter:
    """An adapter of all projections of all layers, by way of its two files."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for layer in range(config.num_hidden_layers):
        for module, (outputs, inputs) in projection_sizes(config).items():
            stem = f"base_model.model.model.layers.{layer}.{module}"
            tensors[f"{stem}.lora_A.weight"] = torch.randn(rank, inputs, generator=generator) * inputs**-0.5
            tensors[f"{stem}.lora_B.weight"] = torch.randn(outputs, rank, generator=generator) * 0.01
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / ADAPTER_CONFIG).write_text(json.dumps({"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank}))
        save_file(tensors, folder / ADAPTER_WEIGHTS)
        files = load_adapter_files(folder)
        assert files is not None
        return load_adapter(files, config, "", ["random"])


def step_ms(model: Qwen2, cache: KVCache, adapters: list[str | None], steps: int) -> float:
    """Median time of a step in which a request of each of `adapters` decodes."""
    chooser = random.Random(0)
    scheduler = Scheduler(
        SlotTable(cache, cache.slots, cache.slots * _LENGTH), step_tokens=_STEP_TOKENS, longest=_LENGTH
    )
    for name in adapters:
        prompt = [chooser.randrange(model.config.vocab_size // 2) for _ in range(CONTEXT)]
        sampling = Sampling(max_new_tokens=_LENGTH - CONTEXT)
        scheduler.submit(Ticket(Generate(prompt, sampling, frozenset(), adapter=name)))
    for _ in range(len(adapters) + _WARM_UP):  # a prompt takes at most one step
        step(model, cache, scheduler)
    times = []
    for _ in range(steps):
        began = time.perf_counter()
        step(model, cache, scheduler)
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e3


def measure(
    model: Qwen2, batch: int, adapters: int, rank: int, spare: int, rounds: int, steps: int, progress: Progress
) -> dict[str, Any]:
    """Milliseconds of a step with and without adapters, of each round, and their ratios."""
    for number in range(adapters):
        model.adapt(str(number), random_adapter(model.config, rank, number))
    cache = model.new_cache(batch)
    whose = [None if row >= batch - spare else str(row % adapters) for row in range(batch)]
    without, with_adapters = list[float](), list[float]()
    for _ in progress.track(range(rounds), description="rounds"):
        without.append(step_ms(model, cache, [None] * batch, steps))
        with_adapters.append(step_ms(model, cache, whose, steps))
    ratios = [slow / fast for slow, fast in zip(with_adapters, without, strict=True)]
    return {"without_ms": without, "with_ms": with_adapters, "ratios": ratios, "ratio": statistics.median(ratios)}


def main(
    model: Annotated[Path, typer.Option(help="Model folder", exists=True, file_okay=False)],
    weights: Annotated[Kind, typer.Option(help="How weights are stored")] = Kind.FP32,
    batch: Annotated[int, typer.Option(min=1, help="Requests that decode together")] = 8,
    adapters: Annotated[int, typer.Option(min=1, help="How many adapters they have")] = 4,
    rank: Annotated[int, typer.Option(min=1, max=MOST_RANK)] = 8,
    spare: Annotated[int, typer.Option(min=0, help="How many of the requests have none")] = 0,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    steps: Annotated[int, typer.Option(min=1, max=_LENGTH - CONTEXT - 32, help="Timed in a round, each way")] = 16,
    threads: Annotated[int, typer.Option(min=0, help="Compute threads; 0: all cores available")] = 0,
    torch_kernels: Annotated[bool, typer.Option("--torch-kernels", help="Torch's kernels, not the project's")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here too")] = None,
) -> None:
    """Measure decode steps with adapters against those without."""
    torch.set_num_threads(compute_threads(threads, 1))
    loaded = checkpoint.load(str(model), "main", weights.value, _LENGTH, "torch" if torch_kernels else "auto").model
    with Progress(console=Console(stderr=True)) as progress:
        figures = measure(loaded, batch, adapters, rank, min(spare, batch), rounds, steps, progress)
    table = Table(
        "round", "none, ms", "adapters, ms", "ratio", title=f"{weights.value} ({loaded.kernel}), batch {batch}"
    )
    for number, row in enumerate(zip(figures["without_ms"], figures["with_ms"], figures["ratios"], strict=True), 1):
        table.add_row(str(number), *(f"{value:.2f}" for value in row))
    console = Console()
    console.print(table)
    console.print(f"{adapters} adapters of rank {rank} in a batch of {batch} / none: {figures['ratio']:.2f}")
    if json_file:
        json_file.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
