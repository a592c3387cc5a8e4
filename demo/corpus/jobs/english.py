"""English reviews and moods of known polarity."""

from __future__ import annotations

from random import Random

from demo.corpus.jobs.sample import Sample, read

GOOD, BAD = POLARITIES = ("Positive", "Negative")
KEYS = {GOOD: "pos", BAD: "neg"}
HUMBLE = ("my", "the", "the", "this", "our", "the")


class English:
    """Draws texts of both polarities in turn."""

    def __init__(self, rng: Random) -> None:
        self.rng, self.data = rng, read("english")
        self._turn = 0

    def draw(self) -> Sample:
        """The next text with its label."""
        self._turn += 1
        label = POLARITIES[self._turn % 2]
        return Sample(self.text(label), label)

    def text(self, label: str) -> str:
        """One to four sentences that come out as `label`."""
        draw, other = self.rng.random(), GOOD if label == BAD else BAD
        if draw < 0.3:
            parts = [self._sentence(label)]
        elif draw < 0.7:
            parts = [self._sentence(label) for _ in range(self.rng.choice((2, 2, 3)))]
        elif draw < 0.9:
            parts = [self._contrast(label, other)]
            if self.rng.random() < 0.4:
                parts.append(self._sentence(label))
        else:
            parts = [self._sentence(other), self._contrast(label, other), self._verdict(label)]
        if self.rng.random() < 0.25:
            parts.insert(0, str(self.rng.choice(self.data["openers"])).rstrip("."))
        if self.rng.random() < 0.15:
            parts.append(self._verdict(label))
        return self._typed(parts)

    def clause(self, label: str) -> str:
        """A noun and what is said of it, or a plain judgement; no capital, no mark at its end."""
        pick, key, draw = self.rng.choice, KEYS[label], self.rng.random()
        if draw < 0.5:
            group = pick(self.data["groups"])
            return f"{pick(HUMBLE)} {pick(group['names'])} {pick(group[key])}"
        noun = pick(pick(self.data["groups"])["names"])
        adjective = pick(self.data[f"adj_{key}"])
        degree = pick(self.data["degree"])
        if draw < 0.75:
            return " ".join(f"{pick(HUMBLE)} {noun} {pick(('is', 'was'))} {degree} {adjective}".split())
        if draw < 0.87:
            wrong = pick(self.data["adj_neg" if key == "pos" else "adj_pos"])
            deny = ("is not", "was not", "was never", "is not at all")
            return f"{pick(HUMBLE)} {noun} {pick(deny)} {wrong}"
        return " ".join(f"{pick(('it', 'it', 'everything', 'this', 'I am', 'we were'))} "
                        f"{pick(('is', 'was'))} {degree} {adjective}".replace("I am is", "I am").replace("I am was", "I am")
                        .replace("we were is", "we were").replace("we were was", "we were").split())  # fmt: skip

    def _sentence(self, label: str) -> str:
        if self.rng.random() < 0.35:
            return str(self.rng.choice(self.data[KEYS[label]]))
        if self.rng.random() < 0.3:
            return f"{self.clause(label)} and {self.clause(label)}"
        return self.clause(label)

    def _contrast(self, label: str, other: str) -> str:
        """What comes after "but" decides."""
        first, last = self.clause(other), self.clause(label)
        draw = self.rng.random()
        if draw < 0.25:
            return f"although {first}, {last}"
        return f"{first}{self.rng.choice((', but', ', but', ' but', ', yet', ', however,'))} {last}"

    def _verdict(self, label: str) -> str:
        return str(self.rng.choice(self.data[f"verdict_{KEYS[label]}"])).rstrip(".")

    def _typed(self, parts: list[str]) -> str:
        """Capitals and marks as most people type them; now and then none."""
        draw = self.rng.random()
        if draw < 0.08:
            return self.rng.choice((", ", " ", ". ")).join(parts).lower()
        marks = [self.rng.choice((".", ".", ".", "!")) for _ in parts]
        if self.rng.random() < 0.2:
            marks[-1] = ""
        return " ".join(part[0].upper() + part[1:] + mark for part, mark in zip(parts, marks, strict=True))
