"""Messages to a service: questions, complaints, suggestions, and small talk."""

from __future__ import annotations

from random import Random

from demo.corpus.clauses import Clauses
from demo.corpus.jobs.sample import Sample, fill, read
from demo.corpus.lexicon import LABELS, NEGATIVE, POSITIVE, Lexicon

ASK, COMPLAIN, SUGGEST, TALK = INTENTS = ("咨询", "投诉", "建议", "闲聊")
SERVED = ("hotel", "shopping", "devices", "food", "delivery", "services", "travel")  # what people complain about
LIVED = ("mood", "family", "leisure", "work", "study", "health")  # what people chat about


class Intents:
    """Draws messages of each intent in turn."""

    def __init__(self, lexicon: Lexicon, rng: Random) -> None:
        self.rng, data = rng, read("intent")
        self.slots = data["slots"]
        self.templates = {intent: data[intent] for intent in INTENTS}
        self.served = [domain for domain in lexicon.domains if domain.name in SERVED]
        self.lived = [domain for domain in lexicon.domains if domain.name in LIVED]
        self.clauses = Clauses(lexicon, rng)
        self._turn = 0

    def draw(self) -> Sample:
        """The next message with its intent."""
        self._turn += 1
        intent = INTENTS[self._turn % len(INTENTS)]
        return Sample(self.message(intent), intent)

    def message(self, intent: str) -> str:
        """One message of `intent`."""
        draw = self.rng.random()
        if intent == COMPLAIN and draw < 0.45:
            return self._complaint()
        if intent == TALK and draw < 0.4:
            return self._small_talk()
        text = fill(self.rng.choice(self.templates[intent]), self.slots, self.rng)
        if intent in (ASK, SUGGEST) and draw < 0.2:
            # A scene first: the intent is in what is asked for, not in how the message begins.
            scene = self.clauses.opener(self.rng.choice(self.served))
            text = scene + self.rng.choice("，,。 ") + text
        return text + self._end(intent)

    def _complaint(self) -> str:
        domain, pick = self.rng.choice(self.served), self.rng.choice
        parts = [
            self.clauses.clause(domain, NEGATIVE).text if self.rng.random() < 0.4 else pick(domain.clauses[NEGATIVE])
        ]
        if self.rng.random() < 0.8:
            demand = pick(self.slots["demand"])
            parts = [*parts, demand] if self.rng.random() < 0.7 else [demand, *parts]
        return pick("，，,！ ").join(parts) + pick(("", "", "！", "。", "！！"))

    def _small_talk(self) -> str:
        domain, label, pick = self.rng.choice(self.lived), pick_label(self.rng), self.rng.choice
        draw = self.rng.random()
        if draw < 0.35:
            return self.clauses.opener(domain) + pick(("", "。", "～"))
        if draw < 0.65:
            return pick(domain.clauses[label]) + pick(("", "。", "～", "！"))
        return self.clauses.everyday(label).text + pick(("", "，你呢", "，哈哈" if label == POSITIVE else "，唉", "。"))

    def _end(self, intent: str) -> str:
        ends = {ASK: ("", "", "？", "?", "呢", "，谢谢"), COMPLAIN: ("", "！", "！！", "。")}
        return self.rng.choice(ends.get(intent, ("", "", "。", "！", "～")))


def pick_label(rng: Random) -> str:
    """Either polarity."""
    return rng.choice(LABELS)
