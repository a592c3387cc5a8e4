"""Trains the demo model from scratch on two CPU cores.

    python -m demo.train --out demo/checkpoint --seed 7

The same seed and number of steps give the same stream of texts and the same model (on the same machine).
"""

from __future__ import annotations

import argparse
import math
import shutil
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as group
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from torch.nn import functional

from demo.batches import DRILL_ONLY_STEPS, DRILL_STEPS, DRILLED, ROOT, TURNS, Batch, Batches, Prompts
from demo.corpus.generate import Generator
from demo.corpus.jobs.english import GOOD
from demo.corpus.jobs.intents import INTENTS
from demo.corpus.jobs.jobs import Jobs
from demo.corpus.jobs.routes import ROUTES
from demo.corpus.lexicon import LABELS, POSITIVE, Lexicon
from demo.model import DemoModel, Shape
from demo.muon import Muon, multiplies_bfloat16
from demo.tokenizer import build_tokenizer, save_tokenizer
from qwen_allinone.model.tokenizer import Tokenizer

WARM_UP = 60
LABEL_WEIGHT, HINT_WEIGHT, REPLY_WEIGHT, JOB_WEIGHT = 1.5, 0.5, 1.0, 1.0
JOB_TEXTS = 2500  # of each further task, for the tokenizer


def build(options: argparse.Namespace, lexicon: Lexicon) -> None:
    """Make the tokenizer out of a sample of the corpus and write it to the checkpoint's folder."""
    generator = Generator(lexicon, options.seed)
    texts = []
    for _ in range(options.tokenizer_texts):
        triple = generator.triple()
        texts += [triple.text, triple.reply, generator.labelled()[0]]
    jobs = Jobs(lexicon, options.seed)
    drawn = [jobs.draw(task) for task in jobs.tasks for _ in range(JOB_TEXTS)]
    written = [text for sample in drawn for text in (sample.text, sample.answer)]
    prompts = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "prompts").glob("*/prompt.md"))]
    options.out.mkdir(parents=True, exist_ok=True)
    words = [*LABELS, *INTENTS, *ROUTES]
    save_tokenizer(build_tokenizer(texts + written + prompts * 50, words, options.vocabulary), options.out)
    made = Prompts(Tokenizer.load(options.out))
    for text in texts[:600] + written[::50]:
        made.check(text)


class Hints(nn.Module):
    """Two linear readers of the label, used in training only: one of the mean embedding, one of the mean output.

    The label token alone teaches a word its polarity through all layers at once, slowly; these teach it directly,
    Chinese and English words alike.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.of_words = nn.Linear(hidden, 1)
        self.of_states = nn.Linear(hidden, 1)
        with torch.no_grad():
            self.of_words.weight.fill_(0.0)[:, 0] = 50.0  # embeddings are small: one of their axes is polarity

    def loss(self, words: Tensor, states: Tensor, batch: Batch, positive: int) -> Tensor:
        """Mean loss of both; `words` and `states` are [rows, length, hidden]."""
        share = (batch.filled / batch.filled.sum(1, keepdim=True)).unsqueeze(-1)
        wanted = (batch.targets == positive).float()
        losses = [
            functional.binary_cross_entropy_with_logits(reader((values * share).sum(1)).squeeze(1), wanted)
            for reader, values in ((self.of_words, words), (self.of_states, states))
        ]
        return torch.stack(losses).mean()


def losses_of(model: DemoModel, hidden: Tensor, batch: Batch) -> Tensor:
    """The loss of each token that is learned; scores only where something is learned."""
    scores = model.logits(hidden.reshape(-1, model.shape.hidden)[batch.positions])
    return functional.cross_entropy(scores.float(), batch.targets, reduction="none")


def rate_at(step: int, done: float) -> float:
    """Share of the peak rate: linear warm-up, half a cosine down to 2 %; `done` is the share of training behind us."""
    return min(1.0, (step + 1) / WARM_UP) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))


def optimizers_of(
    model: DemoModel, hints: Hints, options: argparse.Namespace, rank: int
) -> tuple[Muon, torch.optim.AdamW]:
    """Muon for the layers' matrices; AdamW for the embedding, norms and biases, which do not decay."""
    layers = list(model.model.layers.parameters())
    matrices = [weight for weight in layers if weight.dim() == 2]
    rest = [weight for weight in model.parameters() if not any(weight is matrix for matrix in matrices)]
    rest += hints.parameters()
    adam = torch.optim.AdamW(rest, lr=options.rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    return Muon(matrices, options.decay, slice(rank, None, options.processes), group.all_reduce), adam


def train(options: argparse.Namespace) -> None:
    """Build the tokenizer, then train in one single-threaded process for each core.

    Two processes that meet once a step use two cores better than one process whose threads meet at every operation.
    """
    started = time.monotonic()
    if options.resume is None:
        build(options, Lexicon.load())
    else:
        shutil.copytree(options.resume, options.out, dirs_exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        spawn(work, (options, f"file://{folder}/meet"), options.processes)  # type: ignore[no-untyped-call]
    print(f"done in {(time.monotonic() - started) / 60:.1f} minutes -> {options.out}")


def work(rank: int, options: argparse.Namespace, meet: str) -> None:
    """One process: its own stream of texts, the same weights as the others."""
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    group.init_process_group("gloo", init_method=meet, rank=rank, world_size=options.processes)
    prompts = Prompts(Tokenizer.load(options.out))
    model = DemoModel(Shape(prompts.ends[1] + 1, layers=options.layers), options.dropout)
    if options.resume is not None:
        model.load_state_dict(DemoModel.load(options.resume).state_dict())
    lexicon = Lexicon.load()
    generator = Generator(lexicon, options.seed * 1000 + rank)
    jobs = Jobs(lexicon, options.seed * 3000 + rank)
    size = (options.sentiment_tokens, options.chat_tokens, options.job_tokens)
    torch.manual_seed(options.seed * 1000 + rank)  # dropout
    if rank == 0:
        print(f"{sum(p.numel() for p in model.parameters()):,} parameters, vocabulary {model.shape.vocabulary}")
    run(model, Batches(prompts, generator, jobs, options.seed * 2000 + rank, size), options, rank)
    if rank == 0:
        model.save(options.out, prompts.ends)
    group.destroy_process_group()


def run(model: DemoModel, batches: Batches, options: argparse.Namespace, rank: int) -> None:
    """The training loop; the first process shows the progress and keeps the clock."""
    hints = Hints(model.shape.hidden)
    optimizers = optimizers_of(model, hints, options, rank)
    model.train()
    marks = {"label": 1.0, "reply": 9.0} | {task: 3.0 for task in (*batches.jobs.tasks, "copy")}
    step, done, tokens, started = 0, torch.zeros(1), 0, time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=rank > 0) as progress:
        task = progress.add_task("training", total=1.0)
        while float(done) < 1.0:
            if step >= DRILL_ONLY_STEPS:
                tokens += learn(model, hints, batches, step, marks)
            tokens += learn_job(model, hints, batches, step * options.processes + rank, options, marks)
            update(nn.ModuleList([model, hints]), optimizers, rate_at(step, float(done)), options)
            step += 1
            spent = time.monotonic() - started
            done.fill_(max(step / options.steps, spent / 60 / options.minutes))
            group.broadcast(done, 0)
            status = f"label {marks['label']:.3f} reply {marks['reply']:.3f}"
            progress.update(task, completed=float(done), description=status)
            if step % 100 == 0 and rank == 0:
                values = " ".join(f"{name} {value:.3f}" for name, value in marks.items())
                print(f"step {step}: {values}, {spent:.0f} s", flush=True)
                model.save(options.out, batches.prompts.ends)
    total = torch.tensor(float(tokens), dtype=torch.float64)
    group.all_reduce(total)
    if rank == 0:
        print(f"{step} steps, {int(total):,} tokens" + ("" if step >= options.steps else " (cut short by --minutes)"))


def update(
    model: nn.Module, optimizers: tuple[Muon, torch.optim.AdamW], share: float, options: argparse.Namespace
) -> None:
    """Average the gradients of all processes and take a step at `share` of the peak rates."""
    muon, adam = optimizers
    average(model, options.processes)
    muon.step(share * options.matrix_rate)
    adam.param_groups[0]["lr"] = share * options.rate
    adam.step()
    adam.zero_grad(set_to_none=True)


def average(model: nn.Module, processes: int) -> None:
    """The mean gradient of all processes, clipped."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    group.all_reduce(flat)
    flat /= processes
    for gradient, mean in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)


def learn(model: DemoModel, hints: Hints, batches: Batches, step: int, marks: dict[str, float]) -> int:
    """Accumulate the gradients of a sentiment and a chat batch; returns the number of tokens read."""
    batch = batches.sentiment()
    with arithmetic():
        hidden = model(batch.prefix, batch.rows)
        losses = losses_of(model, hidden, batch)
    positive = batches.prompts.labels[POSITIVE][0]
    hint = hints.loss(model.model.embed_tokens(batch.rows), hidden.float(), batch, positive)
    (losses.mean() * LABEL_WEIGHT + hint * HINT_WEIGHT).backward()  # type: ignore[no-untyped-call]
    _follow(marks, "label", float(losses.detach().mean()))
    chat = batches.chat(LABELS[step % len(LABELS)])  # one label a step: each label has a prefix of its own
    with arithmetic():
        losses = losses_of(model, model(chat.prefix, chat.rows), chat)
    ((losses * chat.weights).sum() * REPLY_WEIGHT / len(losses)).backward()  # type: ignore[no-untyped-call]
    _follow(marks, "reply", float(losses.detach().mean()))
    return batch.tokens + chat.tokens


def learn_job(
    model: DemoModel, hints: Hints, batches: Batches, turn: int, options: argparse.Namespace, marks: dict[str, float]
) -> int:
    """Accumulate the gradients of a batch of one of the further tasks; returns the number of tokens read."""
    task = TURNS[turn % len(TURNS)]
    step = turn // options.processes
    drills = step < DRILL_ONLY_STEPS or (step < DRILL_STEPS and step % 2 == 0)
    if drills:
        task = DRILLED[turn % len(DRILLED)]
    batch = batches.drill(task, marks["copy"]) if drills else batches.job(task)
    with arithmetic():
        hidden = model(batch.prefix, batch.rows)
        losses = losses_of(model, hidden, batch)
    loss = losses.mean() * JOB_WEIGHT
    if task == "sentiment_en":
        [positive] = batches.prompts.answer(batches.prompts.tasks[task], GOOD)
        loss = loss + hints.loss(model.model.embed_tokens(batch.rows), hidden.float(), batch, positive) * HINT_WEIGHT
    loss.backward()  # type: ignore[no-untyped-call]
    _follow(marks, "copy" if drills else task, float(losses.detach().mean()))
    return batch.tokens


def arithmetic() -> torch.autocast:
    """Matrix products in bfloat16 where that is faster; weights and their updates stay FP32."""
    return torch.autocast("cpu", torch.bfloat16, enabled=multiplies_bfloat16())


def _follow(marks: dict[str, float], name: str, value: float) -> None:
    marks[name] += (0.03 if name in ("label", "reply") else 0.1) * (value - marks[name])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("demo/checkpoint"))
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--minutes", type=float, default=math.inf, help="end by then even if steps are left")
    parser.add_argument("--resume", type=Path, help="checkpoint to go on from: its weights and its tokenizer")
    parser.add_argument("--processes", type=int, default=2, help="one for each core")
    parser.add_argument("--rate", type=float, default=3e-3, help="peak learning rate of AdamW")
    parser.add_argument("--matrix-rate", type=float, default=0.02, help="peak learning rate of Muon")
    parser.add_argument("--decay", type=float, default=0.05)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--vocabulary", type=int, default=9500)
    parser.add_argument("--sentiment-tokens", type=int, default=1200, help="a step and process")
    parser.add_argument("--chat-tokens", type=int, default=600, help="a step and process")
    parser.add_argument("--job-tokens", type=int, default=600, help="a step and process, one further task at a time")
    parser.add_argument("--tokenizer-texts", type=int, default=15000)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
