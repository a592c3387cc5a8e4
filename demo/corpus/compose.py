"""Composes clauses of known polarity into texts of known label. Structure carries the label as much as words do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from demo.corpus.clauses import Clause, Clauses
from demo.corpus.layout import join
from demo.corpus.lexicon import Domain, Lexicon, opposite
from demo.corpus.reviews import Reviews

ENDINGS = (
    "了",
    "啊",
    "呀",
    "哦",
    "呢",
    "哈",
    "吧",
    "啦",
    "的",
    "得很",
    "极了",
    "死了",
    "哈哈",
    "哈哈哈",
    "呜呜",
    "嘛",
    "唉",
)
REVIEWED = ("hotel", "shopping", "devices", "food", "delivery", "travel")  # subjects of long reviews


@dataclass(frozen=True)
class Text:
    """A composed text before noise. `aspect` is the noun of the clause that decides."""

    text: str
    label: str
    domain: Domain
    aspect: str | None


class Composer:
    """Draws texts from a lexicon with the random numbers it is given."""

    def __init__(self, lexicon: Lexicon, rng: Random) -> None:
        self.lexicon, self.rng = lexicon, rng
        self.clauses = Clauses(lexicon, rng)
        self.reviews = Reviews(self.clauses, rng)
        self._shapes: list[Callable[[Domain, str], list[Clause]]] = [
            self._single, self._scene, self._run, self._contrast, self._concede, self._diary, self._short, self._request, self._plain,
        ]  # fmt: skip
        self._shape_weights = [16, 14, 18, 16, 8, 14, 12, 4, 45]

    def text(self, label: str, long_share: float = 0.2) -> Text:
        """One text with `label`; `long_share` of them are reviews of 4-14 clauses."""
        domain = self.rng.choice(self.lexicon.domains)
        if self.rng.random() < long_share:
            if self.rng.random() < 0.4:
                domain = self.rng.choice([entry for entry in self.lexicon.domains if entry.name in REVIEWED])
            body, aspect = self.reviews.review(domain, label)
            return Text(body, label, domain, aspect)
        shape = self.rng.choices(self._shapes, self._shape_weights)[0]
        clauses = shape(domain, label)
        aspect = next((clause.aspect for clause in reversed(clauses) if clause.aspect), None)
        return Text(join([clause.text for clause in clauses if clause.text], self.rng), label, domain, aspect)

    def _single(self, domain: Domain, label: str) -> list[Clause]:
        return [self.clauses.clause(domain, label)]

    def _scene(self, domain: Domain, label: str) -> list[Clause]:
        return [Clause(self.clauses.opener(domain))] + self._run(domain, label, self.rng.choice((1, 1, 1, 2)))

    def _run(self, domain: Domain, label: str, count: int | None = None) -> list[Clause]:
        clauses = [self.clauses.clause(domain, label) for _ in range(count or self.rng.choice((2, 2, 2, 3, 3, 4)))]
        if self.rng.random() < 0.12:
            clauses.insert(0, Clause(self.rng.choice(self.clauses.both("exclaim", label))))
        return clauses

    def _contrast(self, domain: Domain, label: str) -> list[Clause]:
        """Whatever comes first, what comes after "but" decides."""
        plain, other = self.clauses.plain, opposite(label)
        first = self.clauses.clause(domain, other)
        if self.rng.random() < 0.3:
            first = Clause(self.rng.choice(self.clauses.both("concede", label)))
        if self.rng.random() < 0.45:
            first = Clause(self.rng.choice(plain["although"]) + first.text)
        turns = plain["contrast"] + self.clauses.both("contrast", label) * 2
        last = self.clauses.clause(domain, label)
        clauses = [first, Clause(self.rng.choice(turns) + last.text, last.aspect)]
        if self.rng.random() < 0.35:
            clauses += self._run(domain, label, 1)
        if self.rng.random() < 0.2:
            clauses.insert(0, Clause(self.clauses.opener(domain)))
        return clauses

    def _concede(self, domain: Domain, label: str) -> list[Clause]:
        """A blemish mentioned by the way, before or after the point."""
        blemish = Clause(self.rng.choice(self.clauses.both("concede", label)))
        clauses = self._run(domain, label, self.rng.choice((1, 2)))
        if self.rng.random() < 0.7:
            return [blemish, *clauses]
        even = self.rng.choice(("除了", "就是", "唯一的是", "当然"))
        return [*clauses, Clause(even + blemish.text), Clause(self.rng.choice(self.clauses.both("verdict", label)))]

    def _diary(self, domain: Domain, label: str) -> list[Clause]:
        plain, pick = self.clauses.plain, self.rng.choice
        event = pick(domain.clauses[label]) if self.rng.random() < 0.5 else pick(self.clauses.both("event", label))
        if self.rng.random() < 0.5:
            event = pick(plain["when"]) + event
        clauses = [Clause(event)]
        if self.rng.random() < 0.6:
            clauses.append(Clause(pick(self.clauses.both("feeling", label))))
        elif self.rng.random() < 0.4:
            clauses.insert(0, Clause(pick(plain["who"]) + self.clauses.degree() + self.clauses.adjective(label)))
        if self.rng.random() < 0.15:
            clauses.insert(0, Clause(pick(plain["when"])))
        return clauses

    def _short(self, domain: Domain, label: str) -> list[Clause]:
        pick = self.rng.choice
        draw = self.rng.random()
        if draw < 0.2:
            return [Clause(self.clauses.degree() + self.clauses.adjective(label) + pick(("", "", *ENDINGS)))]
        if draw < 0.45:
            return [self.clauses.about(domain, label) for _ in range(pick((1, 1, 2)))]
        if draw < 0.55:
            return [Clause(pick(self.clauses.both("exclaim", label))), Clause(self.clauses.remark(label))]
        stem = self.rng.choices(("adj", "verdict", "feeling", "idiom", "slang", "exclaim", "tricky", "emoji", "event"),
                                (18, 14, 16, 12, 14, 6, 12, 1, 20))[0]  # fmt: skip
        return [Clause(pick(self.clauses.both(stem, label)))]

    def _plain(self, domain: Domain, label: str) -> list[Clause]:
        """Everyday talk: a clause or two of the commonest words."""
        clauses = [self.clauses.everyday(label) for _ in range(self.rng.choice((1, 1, 2, 2, 3)))]
        if self.rng.random() < 0.4:
            clauses[0] = Clause(self.rng.choice(("今天", "最近", "这几天", "昨天", "我")) + clauses[0].text)
        return clauses

    def _request(self, domain: Domain, label: str) -> list[Clause]:
        return [
            *self._run(domain, label, self.rng.choice((1, 2))),
            Clause(self.rng.choice(self.clauses.both("wish", label))),
        ]
