"""An endless, seeded stream of labelled texts, and of (text, label, reply) triples, which the shipped checkpoint learned from.

python -m demo.corpus.generate --count 20 --seed 1 [--replies]
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from random import Random

from demo.corpus.apart import Apart, measured_sentences
from demo.corpus.compose import Composer
from demo.corpus.lexicon import LABELS, Lexicon, Written
from demo.corpus.noise import Noise
from demo.corpus.replies import Replier

CHAT_LONG_SHARE = 0.06  # replies answer mostly short messages
WRITTEN_SHARE = 0.35  # labelled texts that are hand-written, alone or with more beside them
ALONE, BESIDE_CLAUSE = 0.5, 0.2  # of those; the rest are a few on one subject, run together as a long review is
EMPTY = re.compile(r"\W*")


@dataclass(frozen=True)
class Triple:
    """A text with its label and a reply to it."""

    text: str
    label: str
    reply: str


class Generator:
    """Everything the model is trained on; the same seed gives the same stream."""

    def __init__(self, lexicon: Lexicon, seed: int, apart: Apart | None = None) -> None:
        rng = Random(seed)
        self.rng, self.lexicon = rng, lexicon
        self._apart = apart or Apart(measured_sentences())
        self._composer = Composer(lexicon, rng)
        self._noise = Noise(lexicon.general, rng)
        self._replier = Replier(lexicon, rng)
        pairs = [*lexicon.general.pairs, *(pair for domain in lexicon.domains for pair in domain.pairs)]
        written = [*lexicon.written, *(Written("pairs", pair.text, pair.label) for pair in pairs)]
        clear = [text for text in written if self._apart.clear(text.text)]
        self._written = {label: [text for text in clear if text.label == label] for label in LABELS}
        self._turn = 0

    def labelled(self) -> tuple[str, str]:
        """The next (text, label); labels take turns, so they are balanced."""
        label = self._next_label()
        while True:
            text = self._written_text(label) if self.rng.random() < WRITTEN_SHARE else self._composer.text(label).text
            text = self._noise.apply(text, label)
            if self._usable(text):
                return text, label

    def triple(self) -> Triple:
        """The next (text, label, reply)."""
        label = self._next_label()
        while True:
            composed = self._composer.text(label, CHAT_LONG_SHARE)
            text = self._noise.apply(composed.text, label)
            if self._usable(text):
                return Triple(text, label, self._replier.reply(composed))

    def _written_text(self, label: str) -> str:
        first, draw = self.rng.choice(self._written[label]), self.rng.random()
        if draw < ALONE:
            return first.text
        if draw < ALONE + BESIDE_CLAUSE:
            parts = [first.text, self._composer.text(label, 0.0).text]
        else:
            same = [text.text for text in self._written[label] if text.subject == first.subject]
            parts = [first.text, *self.rng.sample(same, self.rng.choice((1, 1, 2, 3)))]
        self.rng.shuffle(parts)
        return self.rng.choice(("，", "。", ",", " ", "\n")).join(parts)

    def _next_label(self) -> str:
        self._turn += 1
        return LABELS[self._turn % 2]

    def _usable(self, text: str) -> bool:
        return self._apart.clear(text) or (EMPTY.fullmatch(text) is not None and text.strip() != "")


def main() -> None:
    """Print a sample, to read what the model reads."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--replies", action="store_true", help="print (text, label, reply) triples")
    options = parser.parse_args()
    generator = Generator(Lexicon.load(), options.seed)
    for _ in range(options.count):
        if options.replies:
            triple = generator.triple()
            print(triple.label, repr(triple.text), triple.reply, sep="\t")
        else:
            text, label = generator.labelled()
            print(label, repr(text), sep="\t")


if __name__ == "__main__":
    main()
