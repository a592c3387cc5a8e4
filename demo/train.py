"""Trains the demo model on two CPU cores.

    python -m demo.train --out demo/checkpoint --seed 7

What is drawn and what the teacher says of it is kept in `--work`, and so is the state of the training every few minutes:
`--resume` goes on from there. The same seed, sizes and number of steps give the same stream of texts.
"""

from __future__ import annotations

import argparse
import fcntl
import math
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import TextIO

import torch
import torch.distributed as group
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import nn
from torch.multiprocessing.spawn import spawn

from demo.batches import DRILLED, Batch, Batches, ChatBatch, Tokens
from demo.corpus.lexicon import LABELS
from demo.embeddings import informed
from demo.losses import arithmetic, of_moods, of_written
from demo.model import DemoModel, Shape
from demo.muon import Muon
from demo.readers import Readers
from demo.texts import Texts, make_tokenizer
from qwen_allinone.host import give_back

WARM_UP = 80
LABEL_WEIGHT, WORDS_WEIGHT, MEANING_WEIGHT = 1.5, 0.25, 1.0
KIND_WEIGHT, MESSAGE_WEIGHT, JOB_WEIGHT = 1.0, 0.5, 1.0
DRILL_ONLY_STEPS, DRILL_STEPS = 200, 450
SAVE_EVERY_S = 240.0
# For the processes that are started: glibc keeps what is freed, torch asks for large pages. Tensors of ever other sizes
# that are mapped anew for each operation took half the time of a step in page faults.
KEPT = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(16 << 30),
    "MALLOC_TOP_PAD_": str(256 << 20),
    "THP_MEM_ALLOC_ENABLE": "1",
}
TIDY_STEPS = 25


def begin_at(options: argparse.Namespace) -> None:
    """Take the tokenizer of another model of the same corpus, and with it its weights as they are."""
    options.out.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(options.begin / name, options.out / name)


def rate_at(step: int, done: float) -> float:
    """Share of the peak rate: linear warm-up, half a cosine down to 1 %; `done` is the share of training behind us."""
    return min(1.0, (step + 1) / WARM_UP) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))


def optimizers_of(
    model: DemoModel, readers: Readers, options: argparse.Namespace, rank: int
) -> tuple[Muon, torch.optim.AdamW]:
    """Muon for the layers' matrices; AdamW for the embedding, norms and biases, which do not decay."""
    layers = list(model.model.layers.parameters())
    matrices = [weight for weight in layers if weight.dim() == 2]
    rest = [weight for weight in model.parameters() if not any(weight is matrix for matrix in matrices)]
    rest += readers.parameters()
    adam = torch.optim.AdamW(rest, lr=options.rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    return Muon(matrices, options.decay, slice(rank, None, options.processes), group.all_reduce), adam


def train(options: argparse.Namespace) -> None:
    """Draw what is read, then train in one single-threaded process for each core.

    Two processes that meet once a step use two cores better than one process whose threads meet at every operation.
    """
    started = time.monotonic()
    for name, value in KEPT.items():
        os.environ.setdefault(name, value)
    for rank in range(options.processes):
        claim(options.work, rank).close()
    if options.begin and not options.resume:
        begin_at(options)
    elif not options.resume:
        make_tokenizer(options)
    with tempfile.TemporaryDirectory() as folder:
        spawn(work, (options, f"file://{folder}/meet"), options.processes)  # type: ignore[no-untyped-call]
    print(f"done in {(time.monotonic() - started) / 60:.1f} minutes -> {options.out}")


def claim(folder: Path, rank: int) -> TextIO:
    """The right to train in `folder` as process `rank`, until what is returned is closed; raises SystemExit where another
    training has it. A killed one may have left processes that go on, and would write over what this one keeps."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = (folder / f"lock-{rank}").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise SystemExit(f"a training in {folder} is still running: end it first, or give another --work") from None
    return lock


def work(rank: int, options: argparse.Namespace, meet: str) -> None:
    """One process: its own stream of texts, the same weights as the others."""
    claimed = claim(options.work, rank)
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // options.processes))
    torch.manual_seed(options.seed)
    group.init_process_group("gloo", init_method=meet, rank=rank, world_size=options.processes)
    texts = Texts.read(options)
    shape = Shape(
        texts.prompts.ends[1] + 1, options.hidden, options.intermediate, options.layers, options.heads, options.kv_heads
    )
    model = DemoModel(shape, options.dropout)
    if options.begin and not options.resume:
        model.begin_at(DemoModel.load(options.begin))
    elif not options.resume:
        model.model.embed_tokens.weight.data.copy_(informed(texts.prompts.tokenizer, shape, options))
    size = Tokens(options.mood_tokens, options.chat_tokens, options.job_tokens, options.message_tokens)
    seed = options.seed * 2000 + rank
    batches = Batches(texts.prompts, texts.pool, texts.dialogues, texts.jobs, seed, size, texts.frames)
    torch.manual_seed(options.seed * 1000 + rank)  # dropout
    if rank == 0:
        print(f"{sum(p.numel() for p in model.parameters()):,} parameters, vocabulary {shape.vocabulary}")
        print(f"{len(texts.pool):,} texts with a mood, {len(texts.dialogues):,} conversations", flush=True)
        print({name: len(part) for name, part in texts.jobs.items()}, flush=True)
    Training(model, batches, texts, options, rank).run()
    group.destroy_process_group()
    claimed.close()


class Training:
    """The loop; the first process shows the progress and keeps the clock."""

    def __init__(
        self, model: DemoModel, batches: Batches, texts: Texts, options: argparse.Namespace, rank: int
    ) -> None:
        self.model, self.batches, self.texts, self.options, self.rank = model, batches, texts, options, rank
        self.readers = Readers(model.shape.hidden, len(texts.frames))
        self.muon, self.adam = optimizers_of(model, self.readers, options, rank)
        self.all = nn.ModuleList([model, self.readers])
        self.step, self.tokens, self.spent = 0, 0, 0.0
        self.can_copy = options.begin is not None
        self.marks = {"label": 0.7, "meaning": 1.0, "message": 1.0, "begun": 9.0, "reply": 9.0, "kind": 4.0} | {
            task: 3.0 for task in (*texts.turns, "copy")
        }
        labels = texts.prompts.labels
        self._signs = torch.tensor([labels[name][0] for name in LABELS])

    def run(self) -> None:
        """Train until the steps or the minutes are over."""
        if self.options.resume:
            self._load()
        self.model.train()
        done, began, saved = torch.zeros(1), time.monotonic() - self.spent, time.monotonic()
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*columns, disable=self.rank > 0) as progress:
            task = progress.add_task("training", total=1.0)
            while True:
                self.spent = time.monotonic() - began
                done.fill_(max(self.step / self.options.steps, self.spent / 60 / self.options.minutes))
                save = torch.tensor(float(time.monotonic() - saved > SAVE_EVERY_S))
                both = torch.cat([done, save.view(1)])
                group.broadcast(both, 0)
                done, keep = both[:1], bool(both[1])
                if float(done) >= 1.0:
                    break
                self._learn(float(done))
                self._tell(progress, task, float(done))
                if keep:
                    self._save()
                    saved = time.monotonic()
        self._save()
        total = torch.tensor(float(self.tokens), dtype=torch.float64)
        group.all_reduce(total)
        if self.rank == 0:
            cut = "" if self.step >= self.options.steps else " (ended by --minutes)"
            print(f"{self.step} steps, {int(total):,} tokens, {self.spent / 60:.1f} minutes{cut}")

    def _tell(self, progress: Progress, task, done: float) -> None:  # type: ignore[no-untyped-def]
        status = f"label {self.marks['label']:.3f} reply {self.marks['reply']:.3f}"
        progress.update(task, completed=done, description=status)
        if self.step % 100 == 0 and self.rank == 0:
            values = " ".join(f"{name} {value:.3f}" for name, value in self.marks.items())
            print(f"step {self.step}: {values}, {self.spent:.0f} s, {self.tokens:,} tokens", flush=True)

    def _learn(self, done: float) -> None:
        """One step: gradients of a batch of each kind, averaged over the processes."""
        if self.step >= DRILL_ONLY_STEPS or self.can_copy:
            if self.step % self.options.seldom == 0:
                self._moods()
            self._talk("begun", self.batches.messages())
            self._talk("reply", self.batches.talk())
        if self.step % self.options.seldom == self.options.seldom // 2:
            self._job(self.step // self.options.seldom * self.options.processes + self.rank)
        self._average()
        share = rate_at(self.step, done)
        self.muon.step(share * self.options.matrix_rate)
        for part in self.adam.param_groups:
            part["lr"] = share * self.options.rate
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        self.step += 1
        if self.step % TIDY_STEPS == 0:
            give_back()  # batches of ever other sizes leave the heap in pieces

    def _moods(self) -> None:
        batch, model = self.batches.moods(), self.model
        with arithmetic():
            hidden = model(batch.prefix, batch.rows)
            label = of_moods(model, hidden, batch, self._signs)
        polarity, meaning = self.readers.losses(model.model.embed_tokens(batch.rows), hidden.float(), batch)
        (label * LABEL_WEIGHT + polarity * WORDS_WEIGHT + meaning * MEANING_WEIGHT).backward()  # type: ignore[no-untyped-call]
        self._follow("label", float(label.detach()))
        self._follow("meaning", float(meaning.detach()))
        self.tokens += batch.tokens

    def _talk(self, name: str, batch: ChatBatch) -> None:
        model = self.model
        with arithmetic():
            hidden = model(batch.prefix, batch.rows).reshape(-1, model.shape.hidden)
            reply, loss = of_written(model, hidden, batch)
        kind, meaning = self.readers.of_messages(hidden.float(), batch)
        (loss + KIND_WEIGHT * kind + MESSAGE_WEIGHT * meaning).backward()  # type: ignore[no-untyped-call]
        self._follow(name, reply)
        self._follow("kind", float(kind.detach()))
        if len(batch.meant):
            self._follow("message", float(meaning.detach()))
        self.tokens += batch.tokens

    def _job(self, turn: int) -> None:
        """A batch of one of the further tasks, or a drill."""
        drills = self.step < DRILL_ONLY_STEPS or (self.step < DRILL_STEPS and self.step % 2 == 0)
        if drills and not self.can_copy:
            self._follow("copy", self._write(self.batches.drill(DRILLED[turn % 2], self.marks["copy"]), JOB_WEIGHT))
            return
        task = self.texts.turns[turn % len(self.texts.turns)]
        self._follow(task, self._write(self.batches.job(task), JOB_WEIGHT))

    def _write(self, batch: Batch, weight: float) -> float:
        """Learn what is written; returns the mean loss of what counts in full."""
        model = self.model
        with arithmetic():
            mean, loss = of_written(model, model(batch.prefix, batch.rows).reshape(-1, model.shape.hidden), batch)
        (loss * weight).backward()  # type: ignore[no-untyped-call]
        self.tokens += batch.tokens
        return mean

    def _average(self) -> None:
        """The mean gradient of all processes, clipped."""
        gradients = [p.grad for p in self.all.parameters() if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        group.all_reduce(flat)
        flat /= self.options.processes
        flat *= min(1.0, 1.0 / (float(flat.norm()) + 1e-6))
        for gradient, mean in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))

    def _follow(self, name: str, value: float) -> None:
        often = name in ("label", "meaning", "message", "begun", "reply", "kind")
        self.marks[name] += (0.03 if often else 0.1) * (value - self.marks[name])

    def _file(self) -> Path:
        return Path(self.options.work) / f"state-{self.rank}.pt"

    def _save(self) -> None:
        """Keep all that is needed to go on; the first process also writes the checkpoint as it is now."""
        state = {
            "model": self.model.state_dict(), "readers": self.readers.state_dict(), "adam": self.adam.state_dict(),
            "velocity": self.muon.velocity, "batches": self.batches.state(), "marks": self.marks, "step": self.step,
            "tokens": self.tokens, "spent": self.spent, "random": torch.get_rng_state(), "can_copy": self.can_copy,
        }  # fmt: skip
        fresh = self._file().with_suffix(".new")
        torch.save(state, fresh)
        fresh.replace(self._file())
        if self.rank == 0:
            self.model.save(self.options.out, self.texts.prompts.ends)

    def _load(self) -> None:
        state = torch.load(self._file(), weights_only=False)
        self.model.load_state_dict(state["model"])
        self.readers.load_state_dict(state["readers"])
        self.adam.load_state_dict(state["adam"])
        self.muon.velocity = state["velocity"]
        self.batches.restore(state["batches"])
        self.marks |= state["marks"]
        self.step, self.tokens, self.spent = state["step"], state["tokens"], state["spent"]
        self.can_copy = state["can_copy"]
        torch.set_rng_state(state["random"])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("demo/checkpoint"))
    parser.add_argument("--work", type=Path, default=Path(".training"), help="folder for pools and the state to resume")
    parser.add_argument("--resume", action="store_true", help="go on with the training whose state is in --work")
    parser.add_argument(
        "--begin",
        type=Path,
        metavar="MODEL",
        help="begin at the weights and tokenizer in this folder; with more --layers than it has, the new ones at nothing",
    )
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--minutes", type=float, default=math.inf, help="end by then even if steps are left")
    parser.add_argument("--scale", type=float, default=1.0, help="share of what is drawn, to try something")
    parser.add_argument("--frames", type=int, default=20, help="of each kind: fewer are learned sooner")
    parser.add_argument(
        "--seldom", type=int, default=1, help="moods and further tasks are learned in one step of so many, talk in all"
    )
    parser.add_argument("--processes", type=int, default=2, help="one for each core")
    parser.add_argument("--no-teacher", dest="teacher", action="store_false", help="embeddings begin at random")
    parser.add_argument("--rate", type=float, default=2e-3, help="peak learning rate of AdamW")
    parser.add_argument("--matrix-rate", type=float, default=0.02, help="peak learning rate of Muon")
    parser.add_argument("--decay", type=float, default=0.05)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=384)
    parser.add_argument("--intermediate", type=int, default=1024)
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--kv-heads", type=int, default=2)
    parser.add_argument("--vocabulary", type=int, default=9500)
    parser.add_argument("--mood-tokens", type=int, default=2000, help="a step and process")
    parser.add_argument("--message-tokens", type=int, default=1500, help="a step and process")
    parser.add_argument("--chat-tokens", type=int, default=3000, help="a step and process")
    parser.add_argument("--job-tokens", type=int, default=1200, help="a step and process, one further task at a time")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
