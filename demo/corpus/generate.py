"""An endless, seeded stream of labelled texts and of (text, label, reply) triples.

python -m demo.corpus.generate --count 20 --seed 1 [--replies]
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from random import Random

from demo.corpus.apart import Apart, measured_sentences
from demo.corpus.compose import Composer
from demo.corpus.lexicon import LABELS, Lexicon
from demo.corpus.noise import Noise
from demo.corpus.replies import Replier

CHAT_LONG_SHARE = 0.06  # replies answer mostly short messages
WRITTEN_SHARE = 0.3  # labelled texts that are hand-written, a third of them with a composed clause beside
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
        written = [*lexicon.written, *((pair.text, pair.label) for pair in pairs)]
        self._written = {
            label: [text for text, its in written if its == label and self._apart.clear(text)] for label in LABELS
        }
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
        text = self.rng.choice(self._written[label])
        if self.rng.random() > 0.35:
            return text
        parts = [text, self._composer.text(label, 0.0).text]
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
