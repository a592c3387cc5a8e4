"""The same text in other looks: as another might type it, cut into other tokens, with some of them changed or left out."""

from __future__ import annotations

from random import Random

from demo.prompts import Prompts


class Variations:
    """Varies texts with the random numbers it is given."""

    def __init__(self, prompts: Prompts, rng: Random) -> None:
        self.rng = rng
        self._encode = prompts.tokenizer.encode
        self._top = prompts.ends[0]  # all ids below are of texts

    def typed(self, text: str) -> str:
        """A text as another might type it: without its last mark, with half-width marks, with a slip."""
        draw = self.rng.random()
        if draw < 0.12:
            return text.rstrip("。！？!?.～~") or text
        if draw < 0.2:
            return text.translate(str.maketrans("，。！？", ",.!?"))
        if draw < 0.24 and len(text) > 6:
            place = self.rng.randrange(len(text) - 1)
            return text[:place] + text[place + 1] + text[place] + text[place + 2 :]
        if draw < 0.3 and text[-1].isalnum():
            return text + self.rng.choice("。！？～，…")
        return text

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, three times in ten cut into shorter pieces than need be: characters must mean something."""
        draw = self.rng.random()
        if draw > 0.3:
            return self._encode(text)
        share = 1.0 if draw < 0.06 else self.rng.random() * 0.5
        ids: list[int] = []
        start = 0
        for place in range(1, len(text) + 1):
            if place == len(text) or self.rng.random() < share:
                ids += self._encode(text[start:place])
                start = place
        return ids

    def blur(self, ids: list[int]) -> list[int]:
        """In some texts a few tokens become random ones, or many are left out: no single word may decide."""
        draw = self.rng.random()
        if len(ids) > 12 and draw > 0.75:
            rate = self.rng.random() * 0.35
            return [token for token in ids if self.rng.random() > rate] or ids
        if len(ids) < 6 or draw > 0.25:
            return ids
        rate = self.rng.random() * 0.15
        return [self.rng.randrange(256, self._top) if self.rng.random() < rate else token for token in ids]
