"""Long reviews: many clauses of mixed polarity, where the majority and the verdict decide."""

from __future__ import annotations

from random import Random

from demo.corpus.clauses import Clause, Clauses
from demo.corpus.layout import join
from demo.corpus.lexicon import NEGATIVE, POSITIVE, Domain, opposite

PROS, CONS = ("优点", "好的地方", "满意的", "加分项", "好评"), ("缺点", "不足", "不满意的", "扣分项", "槽点")
VERDICT_LEADS = (
    "总之", "总体来说", "总的来说", "综合来看", "整体", "一句话", "反正", "最后说一句", "综上", "总体", "所以", "整体感觉",
)  # fmt: skip
# Of the clauses of a review, at most this share speaks against its label: who complains grants more than who praises.
MINORITY = {POSITIVE: 0.3, NEGATIVE: 0.5}


class Reviews:
    """Composes reviews out of clauses."""

    def __init__(self, clauses: Clauses, rng: Random) -> None:
        self.clauses, self.rng = clauses, rng

    def review(self, domain: Domain, label: str) -> tuple[str, str | None]:
        """A review where the majority and the verdict decide."""
        count = self.rng.choice((4, 5, 5, 6, 7, 8, 9, 10, 12, 14))
        minority = self.rng.randint(0, int(count * MINORITY[label]))
        clauses = [self.clauses.clause(domain, label) for _ in range(count - minority)]
        aspect = next((clause.aspect for clause in clauses if clause.aspect), None)
        others = [self.clauses.clause(domain, opposite(label)) for _ in range(minority)]
        if minority and self.rng.random() < 0.2:
            texts = self._pros_and_cons(label, clauses, others)
        else:
            texts = self._interleave(domain, label, clauses, others)
        if self.rng.random() < (0.6 if minority else 0.3):
            lead = self.rng.choice(VERDICT_LEADS) if self.rng.random() < 0.5 else ""
            verdict = self.rng.choice(
                self.clauses.both(self.rng.choice(("verdict", "verdict", "feeling", "tricky")), label)
            )
            texts.append(lead + self.rng.choice(("", "", ",")) * bool(lead) + verdict)
        return self._layout(texts), aspect

    def _interleave(self, domain: Domain, label: str, clauses: list[Clause], others: list[Clause]) -> list[str]:
        """Minority first, last-but-verdict, or scattered; plain facts in between."""
        plain = self.clauses.plain
        main, rest = [clause.text for clause in clauses], [clause.text for clause in others]
        draw = self.rng.random()
        if rest and draw < 0.45:
            texts = [*rest, self.rng.choice(plain["contrast"]) + main[0], *main[1:]]
        elif rest and draw < 0.7:
            texts = [
                *main,
                self.rng.choice(("就是", "不过", "唯一不足", "除了", "", "只是", "只有")) + rest[0],
                *rest[1:],
            ]
        else:
            texts = main + rest
            self.rng.shuffle(texts)
        for _ in range(self.rng.randint(0, 4)):
            texts.insert(self.rng.randint(0, len(texts)), self.clauses.opener(domain))
        return texts

    def _pros_and_cons(self, label: str, clauses: list[Clause], others: list[Clause]) -> list[str]:
        """Two headed lists, in the usual order more often than not."""
        good, bad = (clauses, others) if label == POSITIVE else (others, clauses)
        mark = self.rng.choice(("：", ":"))
        parts = [self.rng.choice(PROS) + mark + "，".join(clause.text for clause in good)]
        parts.append(self.rng.choice(CONS) + mark + "，".join(clause.text for clause in bad))
        return parts if self.rng.random() < 0.7 else parts[::-1]

    def _layout(self, texts: list[str]) -> str:
        draw = self.rng.random()
        if draw < 0.15:
            mark = self.rng.choice(("{}.", "{}、", "{}，", "({})", "（{}）", "第{}，"))
            gap = self.rng.choice(("\n", "；", "。", " ", "，", ""))
            return gap.join(mark.format(number) + text for number, text in enumerate(texts, 1))
        if draw < 0.25:
            return self.rng.choice(("\n", "。\n", " \n")).join(texts)
        return join(texts, self.rng)
