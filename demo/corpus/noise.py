"""What real typing does to a text: dropped marks, slips, repeated characters, emoji, half- and full-width marks."""

from __future__ import annotations

from random import Random

from demo.corpus.lexicon import General

HALF_WIDTH = str.maketrans("，。！？；：（）", ",.!?;:()")
MARKS = "，。！？；、,.!?;…～ "
PARTICLES = "啊呀哦呢哈啦了的吧嘛"


class Noise:
    """Changes the look of a text, never its label."""

    def __init__(self, general: General, rng: Random) -> None:
        self.general, self.rng = general, rng

    def apply(self, text: str, label: str) -> str:
        """A noisier copy of `text`; most texts stay nearly clean."""
        rng = self.rng
        if rng.random() < 0.08:
            text = self._with_emoji(text, label)
        if rng.random() < 0.3:
            text = text.translate(HALF_WIDTH)
        if rng.random() < 0.04:
            text = "".join(c for c in text if c not in MARKS)
        if rng.random() < 0.06 and len(text) > 4:
            text = self._slip(text)
        if rng.random() < 0.04:
            text = self._stretch(text)
        return text

    def _with_emoji(self, text: str, label: str) -> str:
        emoji = self.rng.choice(self.general.both["emoji"][label])
        return text + emoji * self.rng.choice((1, 1, 1, 2, 3))

    def _slip(self, text: str) -> str:
        """One character lost, doubled or swapped with its neighbour."""
        place = self.rng.randrange(len(text) - 1)
        kind = self.rng.random()
        if kind < 0.4:
            return text[:place] + text[place + 1 :] if text[place] not in "不没无未别" else text
        if kind < 0.7:
            return text[: place + 1] + text[place:]
        return text[:place] + text[place + 1] + text[place] + text[place + 2 :]

    def _stretch(self, text: str) -> str:
        mark = self.rng.choice(("！！！", "!!!!", "~~", "。。。", "……", "啊啊啊", "哈哈哈", self.rng.choice(PARTICLES)))
        return text.rstrip("。！!，") + mark
