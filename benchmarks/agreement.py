"""How near each kind of weights comes to transformers' FP32 logits, and what INT8 does to labels.

python -m benchmarks.agreement --model DIR [--data reviews.csv ...]

Logits: random token ids are read in one prompt and in batched decode steps, by every kind of weights and by
transformers (from tests/requirements.txt). Labels: every row of each CSV (columns `text` and `label`) goes through the
task `sentiment` with FP32 and with INT8 weights.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, get_args

import torch
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor

from benchmarks.client import read_csv
from qwen_allinone.bootstrap import build_service
from qwen_allinone.engine import Status
from qwen_allinone.host import compute_threads
from qwen_allinone.model import checkpoint
from qwen_allinone.model.attention import Chunk
from qwen_allinone.model.linear import Weights
from qwen_allinone.model.qwen2 import Qwen2
from qwen_allinone.service import Service
from qwen_allinone.settings import Settings
from qwen_allinone.tasks import SENTIMENT

_SEQUENCES, _PROMPT, _DECODED = 4, 64, 8
_AT_ONCE = 8
_COMPARED: tuple[Weights, Weights] = ("fp32", "int8")


def sequences(vocabulary: int) -> Tensor:
    """Random ids, [sequences, tokens]."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, vocabulary, (_SEQUENCES, _PROMPT + _DECODED), generator=generator)


@torch.inference_mode()
def reference_logits(folder: Path, ids: Tensor) -> Tensor:
    """transformers' FP32 logits of the last _DECODED + 1 positions, [sequences, positions, vocabulary]."""
    from transformers import Qwen2ForCausalLM

    model = Qwen2ForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model(input_ids=ids).logits[:, _PROMPT - 1 :]  # type: ignore[no-any-return]


def own_logits(model: Qwen2, ids: Tensor) -> Tensor:
    """The same of ours: a prompt each, then steps of all sequences together."""
    cache = model.new_cache(len(ids))
    rows: list[list[int]] = ids.tolist()
    steps = [torch.cat([model.forward([Chunk(i, 0, row[:_PROMPT])], cache) for i, row in enumerate(rows)])]
    for place in range(_PROMPT, _PROMPT + _DECODED):
        steps.append(model.forward([Chunk(i, place, row[place : place + 1]) for i, row in enumerate(rows)], cache))
    return torch.stack([model.logits(hidden) for hidden in steps], dim=1)


def compare(logits: Tensor, wanted: Tensor) -> dict[str, float]:
    """Largest difference, mean and largest KL divergence from the reference in nats, share of equal first choices.

    Of tokens that the tokenizer does not have, whose rows ours leaves out, nothing is compared.
    """
    wanted = wanted[..., : logits.shape[-1]]
    reference, other = wanted.log_softmax(-1), logits.log_softmax(-1)
    divergence = (reference.exp() * (reference - other)).sum(-1)
    return {
        "max_difference": float((logits - wanted).abs().max()),
        "mean_kl": float(divergence.mean()),
        "max_kl": float(divergence.max()),
        "same_first": float((logits.argmax(-1) == wanted.argmax(-1)).float().mean()),
    }


def labels(model: str, weights: Weights, texts: Sequence[str]) -> Iterator[str]:
    """The sentiment of each text, in order."""
    service = build_service(Settings.model_validate({"model": model, "weights": weights}))
    try:
        if service.engine.wait_until_settled() is not Status.READY:
            sys.exit(service.engine.problem)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            yield from pool.map(lambda text: _label(service, text), texts)
    finally:
        service.engine.stop()


def _label(service: Service, text: str) -> str:
    return str(service.run(SENTIMENT, {"text": text}).label)


def compare_labels(model: str, rows: Sequence[tuple[str, ...]], progress: Progress) -> dict[str, float]:
    """Share of (text, label) rows that FP32 and INT8 label alike, and the accuracy of both."""
    texts, right = [text for text, _ in rows], [label for _, label in rows]
    found = {}
    for weights in _COMPARED:
        answers = progress.track(labels(model, weights, texts), len(rows), description=f"labels {weights}")
        found[weights] = list(answers)
    full, small = found.values()
    return {"rows": len(rows), "agreement": _share(full, small)} | {
        f"accuracy_{weights}": _share(answers, right) for weights, answers in found.items()
    }


def _share(some: list[str], others: list[str]) -> float:
    return sum(a == b for a, b in zip(some, others, strict=True)) / len(some)


def main(
    model: Annotated[Path, typer.Option(help="Model folder", exists=True, file_okay=False)],
    data: Annotated[list[Path] | None, typer.Option(help="CSV with the columns text and label")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here too")] = None,
) -> None:
    """Compare logits with transformers, and labels between FP32 and INT8."""
    torch.set_num_threads(compute_threads(0, 1))
    console = Console()
    figures: dict[str, Any] = {"logits": {}, "labels": {}}
    with Progress(console=Console(stderr=True)) as progress:
        wanted: Tensor | None = None
        for weights in progress.track(get_args(Weights), description="logits"):
            loaded = checkpoint.load(str(model), "main", weights, _PROMPT + _DECODED)
            ids = sequences(loaded.model.config.vocab_size)
            wanted = reference_logits(model, ids) if wanted is None else wanted
            figures["logits"][weights] = compare(own_logits(loaded.model, ids), wanted)
        for file in data or []:
            figures["labels"][file.stem] = compare_labels(str(model), read_csv(file, "text", "label"), progress)
    _print(console, figures)
    if json_file:
        json_file.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def _print(console: Console, figures: dict[str, Any]) -> None:
    for title, rows in (("against transformers FP32", figures["logits"]), ("labels", figures["labels"])):
        if rows:
            columns = list(next(iter(rows.values())))
            table = Table("", *columns, title=title)
            for name, values in rows.items():
                table.add_row(name, *(f"{values[column]:.4g}" for column in columns))
            console.print(table)


if __name__ == "__main__":
    typer.run(main)
