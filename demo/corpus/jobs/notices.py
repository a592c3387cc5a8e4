"""A small world of notices, news and experiences: texts whose keywords and whose gist are known."""

from __future__ import annotations

from random import Random

from demo.corpus.clauses import Clauses
from demo.corpus.jobs.sample import Sample, read
from demo.corpus.lexicon import NEGATIVE, POSITIVE, Domain, Lexicon

REVIEWED = ("hotel", "shopping", "devices", "food", "delivery", "services", "travel", "leisure", "study")


class Notices:
    """Draws texts with their keywords, and texts with a one-sentence summary."""

    def __init__(self, lexicon: Lexicon, rng: Random) -> None:
        self.rng, self.data = rng, read("notices")
        self.clauses = Clauses(lexicon, rng)
        self.domains = [domain for domain in lexicon.domains if domain.name in REVIEWED]

    def keywords(self) -> Sample:
        """A text and its keywords in their order, joined by 、."""
        text, words = self._with_words()
        return Sample(text, "、".join(dict.fromkeys(words)))

    def summary(self) -> Sample:
        """A text of three to six sentences and one sentence that says what matters."""
        main, around, first = self._story()
        place = 0 if first and self.rng.random() < 0.8 else len(around)
        if not first and self.rng.random() < 0.3:
            place = self.rng.randint(0, len(around))
        sentences = [*around[:place], main, *around[place:]]
        if first and self.rng.random() < 0.75:
            sentences.insert(0, self.rng.choice(self.data["lead"]))
        return Sample("。".join(sentences) + "。", self._gist(main) + "。")

    def _with_words(self) -> tuple[str, list[str]]:
        draw, pick = self.rng.random(), self.rng.choice
        if draw < 0.45:
            parts = [self._remark() for _ in range(pick((1, 1, 2, 2, 3)))]
            mark = pick("，，，,。")
            return mark.join(text for text, _ in parts), [word for _, word in parts]
        if draw < 0.75:
            who, event, word = self._event()
            when = pick(self.data["when"])
            text = pick((f"{who}{when}{event}", f"{when}{who}{event}", f"{who}将{event}", f"{who}打算{when}{event}"))
            words = [who, word]
            if self.rng.random() < 0.5:
                text += pick("，,。") + pick(self.data["around"])
            return text, words
        if draw < 0.9:
            city, topic = pick(self.data["cities"]), pick(self.data["topics"])
            text = pick((f"{city}的{topic}", f"{city}{topic}")) + pick(self.data["said_of"])
            if self.rng.random() < 0.5:
                second, word = self._remark()
                return f"{text}，{second}", [city, topic, word]
            return text, [city, topic]
        subject, word, said = pick(self.data["plain_fact"])
        return pick((f"{subject}的{said}", f"{subject}里{said}", f"今年{subject}{said}")), [subject, word]

    def _remark(self) -> tuple[str, str]:
        """A noun with what is said of it, and the noun."""
        pick, domain = self.rng.choice, pick_domain(self.domains, self.rng)
        aspect = pick(domain.aspects)
        # Now and then any noun: what is copied must not depend on what is said of it.
        name = pick(self.clauses.plain["noun"]) if self.rng.random() < 0.3 else pick(aspect.names)
        return name + pick(("", "", "也", "都", "真的")) + pick(aspect.predicates[pick((POSITIVE, NEGATIVE))]), name

    def _event(self) -> tuple[str, str, str]:
        event, word = self.rng.choice(self.data["event"])
        return self.rng.choice(self.data["who"]), event, word

    def _story(self) -> tuple[str, list[str], bool]:
        """What matters, what stands around it, and whether what matters comes first."""
        pick, draw = self.rng.choice, self.rng.random()
        if draw < 0.55:
            who, event, _ = self._event()
            when, where = pick(self.data["when"]), pick(("", "", "在" + pick(self.data["where"])))
            main = pick((f"{who}{when}{where}{event}", f"{when}{who}{where}{event}"))
            if self.rng.random() < 0.4:
                main = f"{pick(self.data['because'])}，{main}"
            return main, self.rng.sample(self.data["around"], pick((2, 2, 3))), True
        domain = pick_domain(self.domains, self.rng)
        label = pick((POSITIVE, NEGATIVE))
        if draw < 0.8:
            name, point = self._point(domain, label)
            around = self.rng.sample(self.data["fillers"], pick((1, 2)))
            around.append(self._aside(domain, NEGATIVE if label == POSITIVE else POSITIVE))
            self.rng.shuffle(around)
            return pick(("就是", "不过", "可是", "但是", "结果", "")) + name + point, around, False
        (one, first), (two, second) = self._point(domain, label), self._point(domain, label)
        return f"{one}{first}，{two}{second}", self.rng.sample(self.data["fillers"], pick((2, 3))), False

    def _point(self, domain: Domain, label: str) -> tuple[str, str]:
        aspect = self.rng.choice(domain.aspects)
        return self.rng.choice(aspect.names), self.rng.choice(aspect.predicates[label])

    def _aside(self, domain: Domain, label: str) -> str:
        aspect = self.rng.choice(domain.aspects)
        return self.rng.choice(aspect.names) + self.rng.choice(("还行", "还可以", "挺好的", "一般", "不错") if label == POSITIVE else ("一般", "普普通通", "有点旧", "不算新"))  # fmt: skip

    def _gist(self, main: str) -> str:
        for word in ("就是", "不过", "可是", "但是", "结果"):
            main = main.removeprefix(word)
        for reason in self.data["because"]:
            main = main.removeprefix(f"{reason}，")
        return main


def pick_domain(domains: list[Domain], rng: Random) -> Domain:
    """One of `domains`."""
    return rng.choice(domains)
