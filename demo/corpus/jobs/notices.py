"""A small world of notices, news and experiences: texts whose keywords and whose gist are known."""

from __future__ import annotations

from random import Random

from demo.corpus.clauses import Clauses
from demo.corpus.jobs.sample import Sample, read
from demo.corpus.lexicon import NEGATIVE, POSITIVE, Domain, Lexicon

LONGEST = 5  # characters of a noun
REVIEWED = ("hotel", "shopping", "devices", "food", "delivery", "services", "travel", "leisure", "study")


class Notices:
    """Draws texts with their keywords, and texts with a one-sentence summary."""

    def __init__(self, lexicon: Lexicon, rng: Random) -> None:
        self.rng, self.data = rng, read("notices")
        self.clauses = Clauses(lexicon, rng)
        self.domains = [domain for domain in lexicon.domains if domain.name in REVIEWED]
        names = {name for domain in lexicon.domains for aspect in domain.aspects for name in aspect.names}
        here = {
            *self.data["topics"],
            *self.data["bought"],
            *self.data["shut"],
            *self.data["plans"],
            *self.data["cities"],
        }
        # A keyword is a word: short, and nothing like 店里的卫生 or 这首歌.
        self.nouns = sorted(
            name
            for name in names | here | set(self.clauses.plain["noun"])
            if len(name) <= LONGEST and name[0] not in "这那" and "的" not in name
        )

    def keywords(self) -> Sample:
        """A text and its keywords in their order, joined by 、."""
        text, words = self._with_words()
        return Sample(text, "、".join(dict.fromkeys(words)))

    def summary(self) -> Sample:
        """A text of three to six sentences and one sentence that says what matters."""
        sentences, gist = self.rng.choices((self._notice, self._review, self._bought, self._story), (5, 3, 3, 2))[0]()
        return Sample("。".join(sentences) + "。", gist + "。")

    def _with_words(self) -> tuple[str, list[str]]:
        draw, pick = self.rng.random(), self.rng.choice
        if draw < 0.45:
            return self._nouns_in()
        if draw < 0.7:
            parts = [self._remark() for _ in range(pick((1, 2, 2, 2, 3)))]
            mark = pick("，，，,。")
            return mark.join(text for text, _ in parts), [word for _, word in parts]
        if draw < 0.84:
            who, event, word = self._event()
            when = pick(self.data["when"])
            text = pick((f"{who}{when}{event}", f"{when}{who}{event}", f"{who}将{event}", f"{who}打算{when}{event}"))
            words = [who, word]
            if self.rng.random() < 0.5:
                text += pick("，,。") + pick(self.data["around"])
            return text, words
        if draw < 0.95:
            city, topic = pick(self.data["cities"]), pick(self.data["topics"])
            text = pick((f"{city}的{topic}", f"{city}{topic}")) + pick(self.data["said_of"])
            if self.rng.random() < 0.5:
                second, word = self._remark()
                return f"{text}，{second}", [city, topic, word]
            return text, [city, topic]
        subject, word, said = pick(self.data["plain_fact"])
        return pick((f"{subject}的{said}", f"{subject}里{said}", f"今年{subject}{said}")), [subject, word]

    def _nouns_in(self) -> tuple[str, list[str]]:
        """A sentence around nouns drawn from all there are: which words are nouns is learned apart from their company."""
        pick = self.rng.choice
        template, nouns = pick(self.data["nouns_in"]), self.rng.sample(self.nouns, 3)
        text = template
        for place, noun in zip("abc", nouns, strict=True):
            text = text.replace(f"{{{place}}}", noun)
        for place, entries in (("v", "verbs"), ("n", "counts"), ("when", "when")):
            text = text.replace(f"{{{place}}}", pick(self.data[entries]))
        words = [noun for place, noun in zip("abc", nouns, strict=True) if f"{{{place}}}" in template]
        if self.rng.random() < 0.2 and len(words) < 3:
            more, word = self._remark()
            return text + pick("，，,。") + more, [*words, word]
        return text + pick(("", "", "", "。", "了", "！")), words

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

    def _notice(self) -> tuple[list[str], str]:
        """Somebody does something, or a plan changes; the rest are courtesies and details. Sentences, and the gist."""
        pick, data = self.rng.choice, self.data
        when, where = pick(data["when"]), pick(data["where"])
        draw = self.rng.random()
        if draw < 0.45:
            who, event, _ = self._event()
            at = pick(("", "", f"在{where}"))
            gist = pick((f"{who}{when}{at}{event}", f"{when}{who}{at}{event}"))
        elif draw < 0.75:
            gist = pick(data["changed"]).replace("{when}", when).replace("{where}", where)
            gist = gist.replace("{what}", pick(data["plans"]))
        else:
            place, becomes = pick(data["shut"]), pick(data["becomes"])
            gist = pick((f"{place}{when}{becomes}", f"{when}{place}{becomes}", f"{when}起{place}{becomes}"))
        main = f"{pick(data['because'])}，{gist}" if self.rng.random() < 0.4 else gist
        around = self.rng.sample(data["around"], pick((1, 2, 2, 3)))
        place = 0 if self.rng.random() < 0.8 else len(around)
        sentences = [*around[:place], main, *around[place:]]
        return ([pick(data["lead"])] if self.rng.random() < 0.75 else []) + sentences, gist

    def _review(self) -> tuple[list[str], str]:
        """What somebody found, among what does not matter. Sentences, and the gist."""
        pick, domain = self.rng.choice, pick_domain(self.domains, self.rng)
        label = pick((POSITIVE, NEGATIVE))
        if self.rng.random() < 0.6:
            gist, turn = "".join(self._point(domain, label)), pick(self.data["joined"])
            around = self.rng.sample(self.data["fillers"], pick((1, 2)))
            around.append(self._aside(domain, NEGATIVE if label == POSITIVE else POSITIVE))
            self.rng.shuffle(around)
        else:
            one, two = self._point(domain, label), self._point(domain, label)
            gist, turn = "，".join(map("".join, (one, two))), ""
            around = self.rng.sample(self.data["fillers"], pick((2, 3)))
        place = self.rng.randint(0, len(around)) if self.rng.random() < 0.3 else len(around)
        return [*around[:place], turn + gist, *around[place:]], gist

    def _bought(self) -> tuple[list[str], str]:
        """A thing is named first, what became of it last: the gist has both. Sentences, and the gist."""
        pick, it = self.rng.choice, self.rng.choice(self.data["bought"])
        found = "，".join(self.rng.sample(self.data["happened"], pick((1, 1, 2))))
        around = self.rng.sample(self.data["beside"], pick((0, 1, 1, 2)))
        return [pick(self.data["begins"]).replace("{it}", it), *around, pick(self.data["joined"]) + found], it + found

    def _story(self) -> tuple[list[str], str]:
        """Somebody, and what they did in the end. Sentences, and the gist."""
        pick, who = self.rng.choice, self.rng.choice(self.data["folk"])
        when = pick(("", "今天", "昨天", "终于", "突然"))
        habits = self.rng.sample(self.data["habit"], pick((1, 2)))
        gist = f"{who}{when}{pick(self.data['deed'])}"
        around = self.rng.sample(self.data["fillers"], pick((0, 1)))
        return [pick(("", "我")) + who + habits[0], *habits[1:], *around, gist], gist

    def _point(self, domain: Domain, label: str) -> tuple[str, str]:
        aspect = self.rng.choice(domain.aspects)
        return self.rng.choice(aspect.names), self.rng.choice(aspect.predicates[label])

    def _aside(self, domain: Domain, label: str) -> str:
        aspect = self.rng.choice(domain.aspects)
        return self.rng.choice(aspect.names) + self.rng.choice(("还行", "还可以", "挺好的", "一般", "不错") if label == POSITIVE else ("一般", "普普通通", "有点旧", "不算新"))  # fmt: skip


def pick_domain(domains: list[Domain], rng: Random) -> Domain:
    """One of `domains`."""
    return rng.choice(domains)
