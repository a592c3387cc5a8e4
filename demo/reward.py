"""What thousands of verdicts say of a reply: whether readers would find that it fits.

A small network reads the teacher's vectors of what was said and of the reply (demo/teacher.py), the mood, and how many
runs of characters the reply has that nobody wrote. It tells which of a model's replies to one message are the better
ones; in training only, nothing of it is shipped. It learns from verdicts, and from messages whose kind is known: a frame
of that kind fits, one of another does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional

from demo.corpus.dialogues import MOODS, Dialogue
from demo.corpus.frames import Frames
from demo.corpus.verdicts import Judged
from demo.teacher import Teacher

NETWORKS, EPOCHS, ROWS, RATE, DECAY = 4, 5, 512, 1e-3, 0.05
_VECTOR, _NARROW, _WIDE = 384, 128, 512
_CERTAIN = 0.94  # of a verdict: readers differ


Fit = tuple["Case", bool]  # whether it fits


@dataclass(frozen=True)
class Case:
    """A reply to what was said, by user and model in turn, the user last; and the mood of that."""

    said: tuple[str, ...]
    mood: str
    reply: str

    @property
    def texts(self) -> tuple[str, str, str]:
        """What vectors are wanted of: what the user says, that behind what he said before, and the reply."""
        return self.said[-1], "。".join(self.said[-3::2]), self.reply


class Vectors:
    """The teacher's, of all texts that were asked for so far; kept in a file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        kept = torch.load(file) if file.exists() else {"texts": [], "vectors": torch.empty(0, _VECTOR)}
        self._places = {text: place for place, text in enumerate(kept["texts"])}
        self._vectors = kept["vectors"]

    def learn(self, texts: Iterable[str], at_once: int = 2000) -> None:
        """Have the vectors of these; it takes a second for a hundred."""
        new = [text for text in dict.fromkeys(texts) if text not in self._places]
        teacher = Teacher() if new else None
        for start in track(range(0, len(new), at_once), "vectors", disable=not new):
            some = new[start : start + at_once]
            assert teacher
            self._vectors = torch.cat([self._vectors, teacher.vectors(some)])
            self._places |= {text: len(self._places) + place for place, text in enumerate(some)}
            torch.save({"texts": list(self._places), "vectors": self._vectors}, self._file)

    def of(self, texts: Sequence[str]) -> Tensor:
        """[texts, 384]"""
        return self._vectors[[self._places[text] for text in texts]]

    def middle(self) -> Tensor:
        """What all have in common, [384]."""
        return self._vectors.mean(0)


class Written:
    """Which runs of two and three characters stand in what people wrote: a broken reply has others."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._pairs, self._threes = set[str](), set[str]()
        for text in texts:
            self._pairs.update(_runs(text, 2))
            self._threes.update(_runs(text, 3))

    def read(self, case: Case) -> list[float]:
        """Runs nobody wrote, of three, those with nothing of the message in them, and of two; runs that come again;
        runs of the message; whether there are any of these, and none of the first; whether it was said before."""
        pairs, said = _runs(case.reply, 2), case.said[-1]
        strange = [run for run in _runs(case.reply, 3) if run not in self._threes]
        own = [run for run in strange if run[:2] not in said and run[1:] not in said]
        unknown = [run for run in pairs if run not in self._pairs]
        copied = [run for run in pairs if run in said]
        again = 1 - len(set(pairs)) / len(pairs)
        counts = [len(strange) / 5, len(own) / 5, len(unknown) / 3, again * 5, len(copied) / 4]
        return [*counts, float(bool(copied)), float(not strange), float(case.reply in "".join(case.said))]


def _runs(text: str, length: int) -> list[str]:
    text = f"^{text}$"
    return [text[place : place + length] for place in range(len(text) - length + 1)]


class Network(nn.Module):
    """Says of message, message in its conversation, and reply, [rows, 384] each, and what else there is, how well the
    reply fits: [rows], above 0 if it does."""

    def __init__(self, others: int) -> None:
        super().__init__()
        self.message, self.talk, self.reply = (nn.Linear(_VECTOR, _NARROW) for _ in range(3))
        read = 2 * _VECTOR + 5 * _NARROW + 2 + others
        self.verdict = nn.Sequential(
            nn.Linear(read, _WIDE), nn.GELU(), nn.Dropout(0.4),
            nn.Linear(_WIDE, _WIDE // 2), nn.GELU(), nn.Dropout(0.3),
            nn.Linear(_WIDE // 2, 1),
        )  # fmt: skip
        self.dropout = nn.Dropout(0.2)

    def forward(self, message: Tensor, talk: Tensor, reply: Tensor, others: Tensor) -> Tensor:
        likeness = [(one * reply).sum(1, keepdim=True) for one in (message, talk)]
        message, talk, reply = (self.dropout(8 * one) for one in (message, talk, reply))  # of a size with weights
        m, t, r = self.message(message), self.talk(talk), self.reply(reply)
        read = [message, reply, m * r, (m - r).abs(), t * r, m, r, others, *likeness]
        verdict: Tensor = self.verdict(torch.cat(read, 1))
        return verdict.squeeze(1)


def of_verdicts(judged: Sequence[Judged]) -> list[Fit]:
    """Every reply that readers judged."""
    return [
        (Case(one.said, one.moods[-1], reply), fits)
        for one in judged
        for replies, fits in ((one.fitting, True), (one.unfit, False))
        for reply in replies
    ]


def of_kinds(messages: Sequence[Dialogue], frames: Mapping[str, Frames], rng: Random) -> list[Fit]:
    """Of each first message a frame of its kind, which fits, and one of another, which does not."""
    found, kinds = list[Fit](), sorted(frames)
    for turn in (message.turns[0] for message in messages):
        for kind in dict.fromkeys((turn.kind, rng.choice(kinds))):
            case = Case(turn.texts[:1], turn.mood, rng.choice(frames[kind].whole))
            found.append((case, kind == turn.kind))
    return found


class Reward:
    """Several networks that have learned from what is `known`, each from another beginning: their mean is better than any
    of them."""

    def __init__(
        self,
        known: Sequence[Fit],
        vectors: Vectors,
        written: Written,
        *,
        seed: int = 7,
        networks: int = NETWORKS,
        epochs: int = EPOCHS,
    ) -> None:
        self._vectors, self._written = vectors, written
        cases = [case for case, _ in known]
        vectors.learn(text for case in cases for text in case.texts)
        self._middle = vectors.middle()
        read, fits = self._read(cases), torch.tensor([float(fits) for _, fits in known])
        told = range(seed, seed + networks)
        self._networks = [_learned(read, fits, number, epochs) for number in track(told, "verdicts")]

    @torch.no_grad()
    def of(self, cases: Sequence[Case]) -> list[float]:
        """How likely readers would find that each reply fits."""
        self._vectors.learn(text for case in cases for text in case.texts)
        found = list[Tensor]()
        for start in range(0, len(cases), 8 * ROWS):
            read = self._read(cases[start : start + 8 * ROWS])
            found.append(torch.stack([network(*read) for network in self._networks]).mean(0).sigmoid())
        return torch.cat(found).tolist() if found else []

    def _read(self, cases: Sequence[Case]) -> tuple[Tensor, ...]:
        texts = zip(*(case.texts for case in cases), strict=True)
        vectors = [functional.normalize(self._vectors.of(some) - self._middle, dim=1) for some in texts]
        others = [
            [*(float(case.mood == mood) for mood in MOODS), float(len(case.said) > 1), len(case.reply) / 30,
             len(case.said[-1]) / 30, *self._written.read(case)]
            for case in cases
        ]  # fmt: skip
        return *vectors, torch.tensor(others)


def _learned(read: tuple[Tensor, ...], fits: Tensor, seed: int, epochs: int) -> Network:
    torch.manual_seed(seed)
    network, count = Network(read[-1].shape[1]), len(fits)
    adam = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
    wanted, total = fits * _CERTAIN + (1 - _CERTAIN) / 2, epochs * max(1, count // ROWS)
    order = torch.cat([torch.randperm(count) for _ in range(epochs)])
    for step in range(total):
        chosen = order[step * ROWS : (step + 1) * ROWS]
        verdicts = network(*(part[chosen] for part in read))
        functional.binary_cross_entropy_with_logits(verdicts, wanted[chosen]).backward()  # type: ignore[no-untyped-call]
        for part in adam.param_groups:
            part["lr"] = RATE * min(1.0, 8 * (step + 1) / total, 1.2 * (total - step) / total)
        adam.step()
        adam.zero_grad()
    return network.eval()
