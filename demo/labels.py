"""Teaches a trained model the moods, `care` and the further tasks some more, and leaves its replies alone.

    python -m demo.labels --begin demo/checkpoint --out better

What has been written for these tasks since a model was trained is learned in minutes. Every step takes moods and `care`,
of which a mistake is worst, one of the further tasks in turn, and conversations, of which nothing is learned: every
token of a reply is to stay as likely as the model had it at first. Without that, 1,100 steps cost the replies more
sense than a round of verdicts gave.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.progress import track
from torch import Tensor
from torch.nn import functional

from demo.batches import Batches, ChatBatch, Tokens
from demo.corpus.lexicon import LABELS
from demo.corpus.pools import build_alone
from demo.losses import arithmetic, of_moods, of_written
from demo.model import DemoModel
from demo.texts import Texts
from demo.train import begin_at

CARE = "care"
WARM_UP = 20
HOLD_WEIGHT = 2.0
TELL_STEPS = 50


class Labels:
    """What is learned of `batches`: of `turns` one task a step, and one of `new` besides."""

    def __init__(self, batches: Batches, turns: Sequence[str], new: Sequence[str] = ()) -> None:
        self._batches, self._turn = batches, 0
        self._turns, self._new = [task for task in turns if task != CARE], new
        self._signs = torch.tensor([batches.prompts.labels[name][0] for name in LABELS])

    @classmethod
    def of(cls, texts: Texts, seed: int, tokens: int, new: Sequence[str] = ()) -> Labels:
        """Of all texts, in batches of about `tokens` tokens; of conversations twice as many."""
        size = Tokens(tokens, 2 * tokens, tokens, tokens)
        batches = Batches(texts.prompts, texts.pool, texts.dialogues, texts.jobs, seed, size, texts.frames)
        return cls(batches, texts.turns, new)

    def learn(self, model: DemoModel) -> dict[str, float]:
        """Add the gradients of a batch of each; returns the losses by task."""
        tasks = [CARE, *(turns[self._turn % len(turns)] for turns in (self._turns, self._new) if turns)]
        self._turn += 1
        moods, found = self._batches.moods(), dict[str, float]()
        with arithmetic():
            loss = of_moods(model, model(moods.prefix, moods.rows), moods, self._signs)
        loss.backward()  # type: ignore[no-untyped-call]
        found["moods"] = float(loss.detach())
        for name in tasks:
            batch = self._batches.job(name)
            with arithmetic():
                hidden = model(batch.prefix, batch.rows).reshape(-1, model.shape.hidden)
                found[name], loss = of_written(model, hidden, batch)
            loss.backward()  # type: ignore[no-untyped-call]
        return found

    def hold(self, model: DemoModel, first: DemoModel) -> float:
        """Add the gradient of how far the replies of `model` are from those of `first`; returns that, in nats a token."""
        batch = self._batches.chat()
        with arithmetic():
            with torch.no_grad():
                was = _scores(first, batch).log_softmax(-1)
            now = _scores(model, batch).log_softmax(-1)
        loss = functional.kl_div(now, was, reduction="batchmean", log_target=True)
        (loss * HOLD_WEIGHT).backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())


def _scores(model: DemoModel, batch: ChatBatch) -> Tensor:
    """Scores [tokens, vocabulary] of each token of the batch's replies."""
    hidden = model(batch.prefix, batch.rows).reshape(-1, model.shape.hidden)
    return model.logits(hidden[batch.positions]).float()


def learn(options: argparse.Namespace) -> None:
    """Learn, tell how it goes, and save."""
    begin_at(options)
    torch.manual_seed(options.seed)
    texts, model = Texts.read(options, build_alone(options.seed, options.scale)), DemoModel.load(options.begin)
    first = copy.deepcopy(model).requires_grad_(False)
    labels = Labels.of(texts, options.seed, options.tokens, options.new)
    marks, began = dict[str, float](), time.monotonic()
    adam = torch.optim.AdamW(model.parameters(), lr=options.rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    for step in track(range(options.steps), "labels"):
        for name, loss in (labels.learn(model) | {"replies": labels.hold(model, first)}).items():
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


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--begin", type=Path, default=Path("demo/checkpoint"), metavar="MODEL")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--tokens", type=int, default=420, help="of each batch")
    parser.add_argument("--rate", type=float, default=2e-4, help="peak learning rate")
    parser.add_argument(
        "--new", nargs="*", default=[], metavar="TASK", help="one of these a step besides: they are new"
    )
    parser.add_argument("--scale", type=float, default=0.35, help="share of what is drawn")
    parser.add_argument("--frames", type=int, default=7, help="of each kind, as the training had them")
    parser.add_argument("--seed", type=int, default=7)
    learn(parser.parse_args())


if __name__ == "__main__":
    main()
