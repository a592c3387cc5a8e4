"""An endless, seeded stream of samples for each task beyond sentiment and chat.

python -m demo.corpus.jobs.jobs --count 5 [--task summary]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from demo.corpus.apart import Apart, measured_sentences
from demo.corpus.generate import Generator
from demo.corpus.jobs.bilingual import Bilingual
from demo.corpus.jobs.english import POLARITIES, English
from demo.corpus.jobs.formed import Reviews
from demo.corpus.jobs.intents import INTENTS, Intents
from demo.corpus.jobs.notices import Notices
from demo.corpus.jobs.routes import KEYWORDS, ROUTES, SUMMARY, TRANSLATE, Routes, requested
from demo.corpus.jobs.sample import Sample
from demo.corpus.lexicon import Lexicon
from qwen_allinone.tasks import clean

LABELS = {"intent": INTENTS, "sentiment_en": POLARITIES, "route": ROUTES}
WRITING = {"keywords": KEYWORDS, "summary": SUMMARY, "translate": TRANSLATE}  # tasks that write, by their route
# Once in how many texts a request stands before a text: `route` hands it on together with the text.
ASKED = 0.12


class Jobs:
    """Draws samples; the same seed gives the same stream for the same sequence of calls."""

    def __init__(self, lexicon: Lexicon, seed: int, apart: Apart | None = None) -> None:
        self._apart = apart or Apart(measured_sentences())
        texts = Generator(lexicon, seed, self._apart)
        self.rng = rng = texts.rng
        intents, english, notices, bilingual = (
            Intents(lexicon, rng),
            English(rng),
            Notices(lexicon, rng),
            Bilingual(rng),
        )
        self._draws: dict[str, Callable[[], Sample]] = {
            "intent": intents.draw,
            "sentiment_en": english.draw,
            "keywords": notices.keywords,
            "summary": notices.summary,
            "translate": bilingual.draw,
            "route": Routes(intents, english, notices, bilingual, texts).draw,
            "aspects": Reviews(lexicon, rng).draw,
        }

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks there are samples for."""
        return tuple(self._draws)

    def draw(self, task: str) -> Sample:
        """The next sample of `task`, kept apart from what is measured; its text is cleaned as the service does it."""
        while True:
            sample = self._draws[task]()
            if not self._apart.clear(sample.text):
                continue
            text = sample.text
            if task in WRITING and self.rng.random() < ASKED:
                text = requested(WRITING[task], text, self.rng)
            return Sample(clean(text), sample.answer)


def main() -> None:
    """Print a sample of each task, to read what the model reads."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--task", help="this task only")
    options = parser.parse_args()
    jobs = Jobs(Lexicon.load(), options.seed)
    for task in [options.task] if options.task else jobs.tasks:
        for _ in range(options.count):
            sample = jobs.draw(task)
            print(task, repr(sample.text), repr(sample.answer), sep="\t")


if __name__ == "__main__":
    main()
