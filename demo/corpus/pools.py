"""What is read to learn moods: texts with the share of 正面 that is right for each, and what the teacher says of them.

A pool is finite, drawn once from a seed and kept in a folder that git ignores: the same inputs find it there again.

    composed   sentences and reviews out of the word lists, written ones among them
    shuffled   such texts with words exchanged at random: nobody knows their mood but the teacher, who has read more
    written    each hand-written text once more
    conversations  how they begin, in every wording
    calm       plain facts and questions, which are neither
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from rich.progress import Progress
from torch import Tensor
from torch.nn import functional

from demo.corpus.apart import Apart, measured_sentences
from demo.corpus.dialogues import CALM, NEGATIVE, POSITIVE, may_be_read, read_dialogues
from demo.corpus.generate import Generator
from demo.corpus.jobs.intents import ASK, Intents
from demo.corpus.lexicon import Lexicon
from demo.teacher import Teacher
from qwen_allinone.tasks import clean

SHARE = {POSITIVE: 1.0, NEGATIVE: 0.0, CALM: 0.5}
COMPOSED, SHUFFLED, CALM_TEXTS = 90_000, 30_000, 9_000
TRUST = 0.25  # of a composed text's target that is the teacher's: word lists are sometimes wrong
_AT_ONCE = 2048
_LONGEST = 320  # characters; longer reviews are cut

Rows = list[tuple[str, float | None]]  # a text, and the share of 正面; None where only the teacher can tell


@dataclass(frozen=True)
class Pool:
    """`shares` [texts]: how 正面 each is; `vectors` [texts, 384]: the teacher's, centred and scaled to variance one."""

    texts: list[str]
    shares: Tensor
    vectors: Tensor

    def __len__(self) -> int:
        return len(self.texts)


def build(folder: Path, seed: int, scale: float = 1.0) -> Pool:
    """All pools as one; `scale` below one draws less of what is drawn, to try something."""
    lexicon, apart = Lexicon.load(), Apart(measured_sentences())
    drawn: dict[str, Callable[[], Iterator[tuple[str, float | None]]]] = {
        "composed": lambda: _composed(lexicon, seed, round(COMPOSED * scale)),
        "shuffled": lambda: _shuffled(lexicon, seed + 1, round(SHUFFLED * scale)),
        "written": lambda: _written(lexicon),
        "conversations": _said,
        "calm": lambda: _calm(lexicon, seed + 2, round(CALM_TEXTS * scale)),
    }
    rows = {name: [(clean(text)[:_LONGEST], share) for text, share in draw()] for name, draw in drawn.items()}
    vectors = {name: _vectors(folder / f"{name}.pt", [text for text, _ in part]) for name, part in rows.items()}
    # What is measured is taken out last, so that another held-out file costs nobody the vectors of all texts.
    kept = {name: [may_be_read(apart, text) for text, _ in part] for name, part in rows.items()}
    rows = {name: [row for row, keep in zip(part, kept[name], strict=True) if keep] for name, part in rows.items()}
    vectors = {name: part[torch.tensor(kept[name])] for name, part in vectors.items()}
    return _joined(rows, vectors)


def _joined(rows: dict[str, Rows], vectors: dict[str, Tensor]) -> Pool:
    """The teacher's own opinion comes from a probe on the composed texts, whose label is known."""
    mean, spread = vectors["composed"].mean(0), vectors["composed"].std(0)
    known = {name: torch.tensor([-1.0 if share is None else share for _, share in part]) for name, part in rows.items()}
    probe = _probe((vectors["composed"] - mean) / spread, known["composed"])
    texts, shares, scaled = list[str](), list[Tensor](), list[Tensor]()
    for name, part in rows.items():
        x = (vectors[name] - mean) / spread
        guessed = torch.sigmoid(x @ probe[:-1] + probe[-1])
        trust = TRUST if name == "composed" else 0.0
        share = torch.where(known[name] < 0, guessed, (1 - trust) * known[name] + trust * guessed)
        texts += [text for text, _ in part]
        shares.append(share)
        scaled.append(x.half())
    return Pool(texts, torch.cat(shares), torch.cat(scaled))


def _probe(x: Tensor, wanted: Tensor) -> Tensor:
    """Weights and bias [385] of a logistic regression."""
    weights = torch.zeros(x.shape[1] + 1, requires_grad=True)
    search = torch.optim.LBFGS([weights], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        search.zero_grad()
        logits = x @ weights[:-1] + weights[-1]
        value = functional.binary_cross_entropy_with_logits(logits, wanted) + 1e-4 * (weights[:-1] ** 2).sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    search.step(loss)  # type: ignore[arg-type]
    return weights.detach()


def _vectors(file: Path, texts: list[str]) -> Tensor:
    """The teacher's vectors of `texts`, computed once and kept in `file`."""
    key = hashlib.sha256("\0".join(texts).encode()).hexdigest()
    if file.exists():
        kept = torch.load(file)
        if kept["key"] == key:
            return kept["vectors"].float()  # type: ignore[no-any-return]
    teacher, parts = Teacher(), list[Tensor]()
    with Progress() as progress:
        for start in progress.track(range(0, len(texts), _AT_ONCE), description=f"the teacher reads: {file.stem}"):
            parts.append(teacher.vectors(texts[start : start + _AT_ONCE]).half())
    file.parent.mkdir(parents=True, exist_ok=True)
    vectors = torch.cat(parts)
    torch.save({"key": key, "vectors": vectors}, file)
    return vectors.float()


def _composed(lexicon: Lexicon, seed: int, count: int) -> Iterator[tuple[str, float]]:
    generator = Generator(lexicon, seed, Apart([]))
    for _ in range(count):
        text, label = generator.labelled()
        yield text, SHARE[label]


def _shuffled(lexicon: Lexicon, seed: int, count: int) -> Iterator[tuple[str, None]]:
    """Texts in which pieces of others stand in for some: what a review says in words that no list has."""
    generator, rng = Generator(lexicon, seed, Apart([])), Random(seed)
    words = sorted({piece for written in lexicon.written for piece in _pieces(written.text, rng) if piece.isalnum()})
    for _ in range(count):
        pieces = _pieces(generator.labelled()[0], rng)
        rate = rng.uniform(0.15, 0.6)
        yield "".join(rng.choice(words) if p.isalnum() and rng.random() < rate else p for p in pieces), None


def _pieces(text: str, rng: Random) -> list[str]:
    """`text` cut at random into pieces of two to four characters; marks stand alone."""
    pieces, at = list[str](), 0
    while at < len(text):
        length = rng.randint(2, 4)
        end = next((i for i in range(at, min(at + length, len(text))) if not text[i].isalnum()), at + length)
        pieces.append(text[at : max(end, at + 1)])
        at = max(end, at + 1)
    return pieces


def _written(lexicon: Lexicon) -> Iterator[tuple[str, float]]:
    yield from ((written.text, SHARE[written.label]) for written in lexicon.written)


def _said() -> Iterator[tuple[str, float]]:
    """First turns only: what comes later may mean nothing on its own."""
    for dialogue in read_dialogues():
        yield from ((text, SHARE[dialogue.turns[0].mood]) for text in dialogue.turns[0].texts)


def _calm(lexicon: Lexicon, seed: int, count: int) -> Iterator[tuple[str, float]]:
    """Neutral remarks of the subjects, and what customers ask."""
    rng = Random(seed)
    intents = Intents(lexicon, rng)
    remarks = [text for domain in lexicon.domains for text in domain.neutral]
    for _ in range(count):
        asked = rng.random() < 0.4
        text = intents.message(ASK) if asked else "，".join(rng.sample(remarks, rng.choice((1, 1, 1, 2))))
        yield text, SHARE[CALM]
