"""Answers in JSON: tickets that people wrote, and what composed reviews speak of."""

from __future__ import annotations

import json
from collections.abc import Sequence
from random import Random

from demo.corpus.clauses import Clauses
from demo.corpus.jobs.sample import Sample
from demo.corpus.lexicon import LABELS, Lexicon

POLARITIES = ("正面", "负面", "中性")
NOTHING = "-"
_JOINTS = ("，", "，", "，", "，不过", "，但是", "，就是", "，而且", "。", "；", " ")
_SPEAKS_OF_NOTHING = 0.08
_LONGEST_OPINION = 12  # characters, as in prompts/aspects/schema.json


def written(value: object) -> str:
    """As the service has the model write it: see qwen_allinone/json_schema.py."""
    return json.dumps(value, ensure_ascii=False, separators=(", ", ": "))


def ticket(cells: Sequence[str]) -> str:
    """The answer to a message: category, urgency, summary and product, which may be `-`."""
    category, urgency, summary, product = cells
    thing = None if product == NOTHING else product
    return written({"category": category, "urgency": urgency, "summary": summary, "product": thing})


def aspects(cell: str) -> str:
    """The answer to a review: `aspect|opinion|polarity`, joined by `;`, or `-`. Raises ValueError for another form."""
    found = []
    for part in cell.split(";") if cell != NOTHING else ():
        aspect, opinion, polarity = part.split("|")
        if polarity not in POLARITIES:
            raise ValueError(f"{polarity} is none of {'、'.join(POLARITIES)}")
        found.append({"aspect": aspect, "opinion": opinion, "polarity": polarity})
    return written(found)


class Reviews:
    """Draws short reviews whose aspects are known, since they were put together from them."""

    def __init__(self, lexicon: Lexicon, rng: Random) -> None:
        self._clauses, self._domains, self.rng = Clauses(lexicon, rng), lexicon.domains, rng

    def draw(self) -> Sample:
        """A review of one to four aspects, now and then a text that judges nothing."""
        rng = self.rng
        domain = rng.choice(self._domains)
        if rng.random() < _SPEAKS_OF_NOTHING:
            return Sample(self._clauses.opener(domain), written([]))
        text, found = "", list[str]()
        for _ in range(rng.choice((1, 2, 2, 2, 3, 3, 4))):
            label = rng.choice(LABELS)
            clause = self._clauses.everyday(label) if rng.random() < 0.4 else self._clauses.about(domain, label)
            assert clause.aspect
            opinion = clause.text.removeprefix(clause.aspect)
            if 0 < len(opinion) <= _LONGEST_OPINION:
                text += (rng.choice(_JOINTS) if text else "") + clause.text
                found.append(f"{clause.aspect}|{opinion}|{label}")
        return Sample(text + rng.choice(("", "", "。", "！")), aspects(";".join(found))) if found else self.draw()
