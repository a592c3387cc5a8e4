"""Warm replies for composed texts: an opening that names the subject, a follow-up, now and then a closing."""

from __future__ import annotations

import re
from random import Random

from demo.corpus.compose import Text
from demo.corpus.lexicon import Lexicon


class Replier:
    """Writes one reply for a text out of the reply lists.

    A reply names one of some hundred everyday topics if the text does, else the subject as a whole. A network of
    this size learns to recognise those; made to repeat any noun it names wrong ones.
    """

    def __init__(self, lexicon: Lexicon, rng: Random) -> None:
        self.lexicon, self.rng = lexicon, rng
        longest_first = sorted(lexicon.general.plain["topic"], key=lambda topic: (-len(topic), topic))
        self._topics = re.compile("|".join(map(re.escape, longest_first)))

    def reply(self, text: Text) -> str:
        """Opening + follow-up + sometimes a closing, for a text of its label."""
        general, pick = self.lexicon.general, self.rng.choice
        own = self.rng.random() < 0.6
        follow = pick((text.domain.reply_follow if own else general.both["reply_follow"])[text.label])
        sentences = [self._opening(text), follow.replace("{aspect}", text.domain.topics[0])]
        if self.rng.random() < 0.08:
            sentences.append(pick(general.plain["reply_close"]))
        return "".join(sentences)

    def _opening(self, text: Text) -> str:
        found = self._topics.findall(text.text)
        both, draw = self.lexicon.general.both, self.rng.random()
        if found and draw < 0.85:
            # What comes last is most often what a text is about.
            return self.rng.choice(both["reply_topic"][text.label]).replace("{aspect}", found[-1])
        if draw < 0.85:
            return self.rng.choice(text.domain.reply_open[text.label]).replace("{aspect}", text.domain.topics[0])
        return self.rng.choice(both["reply_open"][text.label])
