"""Teaches a trained model the moods, `care` and the further tasks some more, at a rate that leaves its replies alone.

    python -m demo.labels --begin demo/checkpoint --out better

What has been written for these tasks since a model was trained is learned in minutes. Every step takes moods of the
pool, moods written by hand, `care`, and one of the further tasks in turn. demo/prefer.py learns the same beside its
verdicts.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from rich.progress import track

from demo.batches import Batches
from demo.corpus.lexicon import LABELS
from demo.losses import arithmetic, of_moods, of_written
from demo.model import DemoModel
from demo.texts import Texts
from demo.train import begin_at

ALWAYS = ("sentiment", "care")
WARM_UP = 20
TELL_STEPS = 50


class Labels:
    """Batches of about `tokens` tokens each, and what is learned of them."""

    def __init__(self, texts: Texts, seed: int, tokens: int) -> None:
        self._turns, self._turn = [task for task in texts.turns if task not in ALWAYS], 0
        size = (tokens, tokens, tokens)
        self._batches = Batches(texts.prompts, texts.pool, texts.dialogues, texts.jobs, seed, size, texts.frames)
        self._signs = torch.tensor([texts.prompts.labels[name][0] for name in LABELS])

    def learn(self, model: DemoModel) -> dict[str, float]:
        """Add the gradients of a batch of each; returns the losses by task."""
        task = self._turns[self._turn % len(self._turns)]
        self._turn += 1
        moods, found = self._batches.moods(), dict[str, float]()
        with arithmetic():
            loss = of_moods(model, model(moods.prefix, moods.rows), moods, self._signs)
        loss.backward()  # type: ignore[no-untyped-call]
        found["moods"] = float(loss.detach())
        for name in (*ALWAYS, task):
            batch = self._batches.job(name)
            with arithmetic():
                hidden = model(batch.prefix, batch.rows).reshape(-1, model.shape.hidden)
                found[name], loss = of_written(model, hidden, batch)
            loss.backward()  # type: ignore[no-untyped-call]
        return found


def learn(options: argparse.Namespace) -> None:
    """Learn, tell how it goes, and save."""
    begin_at(options)
    torch.manual_seed(options.seed)
    texts, model = Texts.read(options), DemoModel.load(options.begin)
    labels, marks, began = Labels(texts, options.seed, options.tokens), dict[str, float](), time.monotonic()
    adam = torch.optim.AdamW(model.parameters(), lr=options.rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    for step in track(range(options.steps), "labels"):
        for name, loss in labels.learn(model).items():
            marks[name] = marks.get(name, loss) * 0.95 + loss * 0.05
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for part in adam.param_groups:
            part["lr"] = options.rate * min(1.0, (step + 1) / WARM_UP, 1.5 * (options.steps - step) / options.steps)
        adam.step()
        adam.zero_grad(set_to_none=True)
        if (step + 1) % TELL_STEPS == 0:
            told = " ".join(f"{name} {loss:.3f}" for name, loss in marks.items())
            print(f"step {step + 1}: {told}, {time.monotonic() - began:.0f} s", flush=True)
            model.save(options.out, texts.prompts.ends)
    model.save(options.out, texts.prompts.ends)


def add_pools(parser: argparse.ArgumentParser) -> None:
    """Options that say what a training had drawn."""
    parser.add_argument("--work", type=Path, default=Path(".training"), help="folder of demo.train's pools")
    parser.add_argument("--scale", type=float, default=0.35, help="share of what is drawn for the pools")
    parser.add_argument("--frames", type=int, default=7, help="of each kind, as the training had them")
    parser.add_argument("--seed", type=int, default=7)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--begin", type=Path, default=Path("demo/checkpoint"), metavar="MODEL")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--tokens", type=int, default=420, help="of each batch")
    parser.add_argument("--rate", type=float, default=1e-4, help="peak learning rate")
    add_pools(parser)
    learn(parser.parse_args())


if __name__ == "__main__":
    main()
