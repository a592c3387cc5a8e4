"""What is read to learn moods: texts with the share of 正面 that is right for each, and what the teacher says of them.

A pool is finite, drawn once from a seed and kept in a folder that git ignores: the same inputs find it there again.

    composed   sentences and reviews out of the word lists, written ones among them
    shuffled   such texts with words exchanged at random: nobody knows their mood but the teacher, who has read more
    written    the hand-written texts on their own, those in labelled/ among them
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
from demo.corpus.dialogues import CALM, NEGATIVE, POSITIVE, may_be_read
from demo.corpus.generate import Generator
from demo.corpus.jobs.intents import ASK, Intents
from demo.corpus.lexicon import Lexicon
from demo.corpus.messages import read_conversations
from demo.teacher import Teacher
from qwen_allinone.tasks import clean

SHARE = {POSITIVE: 1.0, NEGATIVE: 0.0, CALM: 0.5}
COMPOSED, SHUFFLED, CALM_TEXTS = 90_000, 9_000, 9_000
TIMES, TIMES_ALONE = {"written": 4}, {"written": 16}  # how often a text stands in the pool
CERTAIN_ALONE = 0.88  # the largest share where no teacher doubts
TRUST = 0.25  # of a composed text's target that is the teacher's: word lists are sometimes wrong
CORPUS = Path(__file__).parent
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
    apart, rows, vectors = Apart(measured_sentences()), dict[str, Rows](), dict[str, Tensor]()
    for name, draw in _parts(seed, scale).items():
        rows[name], vectors[name] = _read(folder / f"{name}.pt", f"{name} {seed} {scale} {_corpus_now()}", draw)
    # What is measured is taken out last, so that another held-out file costs nobody the vectors of all texts.
    kept = {name: [may_be_read(apart, text) for text, _ in part] for name, part in rows.items()}
    rows = {name: [row for row, keep in zip(part, kept[name], strict=True) if keep] for name, part in rows.items()}
    vectors = {name: part[torch.tensor(kept[name])] for name, part in vectors.items()}
    return _joined(rows, vectors)


def build_alone(seed: int, scale: float = 1.0) -> Pool:
    """The same without the teacher and what only he knows, and so without vectors: in seconds. What was written by hand
    comes more often. No share is beyond `CERTAIN_ALONE`: with shares of 1 and 0 the reviews' probabilities, that the
    teacher's doubts had made honest, were wrong by 0.12 instead of 0.06."""
    apart, rows = Apart(measured_sentences()), list[tuple[str, float]]()
    for name, draw in _parts(seed, scale).items():
        known = [(clean(text)[:_LONGEST], _doubted(share)) for text, share in draw() if share is not None]
        rows += [row for row in known if may_be_read(apart, row[0])] * TIMES_ALONE.get(name, 1)
    return Pool([text for text, _ in rows], torch.tensor([share for _, share in rows]), torch.empty(len(rows), 0))


def _doubted(share: float) -> float:
    return min(max(share, 1 - CERTAIN_ALONE), CERTAIN_ALONE)


def _parts(seed: int, scale: float) -> dict[str, Callable[[], Iterator[tuple[str, float | None]]]]:
    lexicon = Lexicon.load()
    return {
        "composed": lambda: _composed(lexicon, seed, round(COMPOSED * scale)),
        "shuffled": lambda: _shuffled(lexicon, seed + 1, round(SHUFFLED * scale)),
        "written": lambda: _written(lexicon),
        "conversations": _said,
        "calm": lambda: _calm(lexicon, seed + 2, round(CALM_TEXTS * scale)),
    }


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
        times = TIMES.get(name, 1)
        texts += [text for text, _ in part] * times
        shares.append(share.repeat(times))
        scaled.append(x.half().repeat(times, 1))
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


def _read(file: Path, key: str, draw: Callable[[], Iterator[tuple[str, float | None]]]) -> tuple[Rows, Tensor]:
    """Texts and the teacher's vectors of them, kept in `file` until the corpus or another part of `key` changes."""
    kept = torch.load(file) if file.exists() else {}
    if kept.get("key") == key:
        return kept["rows"], kept["vectors"].float()
    rows = [(clean(text)[:_LONGEST], share) for text, share in draw()]
    texts = [text for text, _ in rows]
    # Another corpus, but most of its texts may be as they were.
    known = {text: vector for (text, _), vector in zip(kept.get("rows", ()), kept.get("vectors", ()), strict=True)}
    unread = [text for text in dict.fromkeys(texts) if text not in known]
    known |= dict(zip(unread, _vectors(unread, file.stem), strict=True))
    kept = {"key": key, "rows": rows, "vectors": torch.stack([known[text] for text in texts])}
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(kept, file)
    return rows, kept["vectors"].float()


def _vectors(texts: list[str], name: str) -> Tensor:
    teacher, parts = Teacher(), list[Tensor]()
    with Progress() as progress:
        for start in progress.track(range(0, len(texts), _AT_ONCE), description=f"the teacher reads: {name}"):
            parts.append(teacher.vectors(texts[start : start + _AT_ONCE]).half())
    return torch.cat(parts) if parts else torch.empty(0)


def _corpus_now() -> str:
    """Changes with every word of the corpus and every line of what composes it."""
    files = sorted(path for path in CORPUS.rglob("*") if path.suffix in (".py", ".yaml", ".tsv", ".txt"))
    return _hash([path.read_text(encoding="utf-8") for path in files])


def _hash(texts: list[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


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
    for path in sorted((CORPUS / "labelled").glob("*.tsv")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            label, tab, text = line.partition("\t")
            if not tab or label not in SHARE or not text.strip():
                raise ValueError(f"{path.name}:{number}: a label, a tab and a text are wanted")
            yield text, SHARE[label]


def _said() -> Iterator[tuple[str, float]]:
    """First turns only: what comes later may mean nothing on its own."""
    for dialogue in read_conversations():
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
