"""Replies that fit any message of a kind.

No two written replies are alike: a small network that is taught them alone learns to name what was said, and never to
finish a sentence. A frame comes again and again, in turns of its kind, with the turn's topic in its gap `{it}`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random

HERE = Path(__file__).parent / "frames"
GAP = "{it}"
RECALLED = ("记得{it}。", "我记得{it}。", "你说过{it}。")  # before a frame, where something known of the user matters
NAMED = 0.5  # frames with a gap, where there is a topic to name
# Whose mother it is: what the user calls 我妈 is 妈妈 to him who answers, and his 我家 is 你家.
_MINE = re.compile("^我([妈爸爷奶姐哥弟妹])$")
_HAN = re.compile(r"[\u3400-\u9fff]")


class FrameError(ValueError):
    """A line that is no frame; says which."""


@dataclass(frozen=True)
class Frames:
    """The frames of one kind: those with a gap, those without."""

    gapped: tuple[str, ...]
    whole: tuple[str, ...]

    def first(self, count: int) -> Frames:
        """The first `count` of them, nearly half with a gap if there are as many."""
        gapped = self.gapped[: count * 3 // 7]
        return Frames(gapped, self.whole[: count - len(gapped)])

    def draw(self, topic: str, rng: Random, recall: str = "") -> str:
        """One of them, its gap filled with `topic`; "" is none. Before it stands what is recalled of the user."""
        if recall:
            return recalled(recall, rng) + rng.choice(self.whole)
        if topic and self.gapped and (not self.whole or rng.random() < NAMED):
            return _filled(rng.choice(self.gapped), topic)
        return rng.choice(self.whole)


def recalled(memory: str, rng: Random) -> str:
    """`memory` as it is said to its user, whom it calls 用户; by his name, if that is what is known."""
    name = memory.removeprefix("用户叫")
    if name != memory:
        return f"{name}，"
    return rng.choice(RECALLED).replace(GAP, memory.replace("用户", "你", 1))


def _filled(frame: str, topic: str) -> str:
    topic = _MINE.sub(r"\1\1", topic)
    text = frame.replace(GAP, "你" + topic[1:] if topic.startswith("我") else topic)
    if frame.startswith(GAP) and not _HAN.search(frame):
        return text[:1].upper() + text[1:]
    return text.replace("the the ", "the ").replace("the my ", "your ")


def read_frames(folder: Path = HERE) -> Mapping[str, Frames]:
    """All frames by kind, which is the name of their file; raises FrameError."""
    kinds = dict[str, Frames]()
    for path in sorted(folder.glob("*.txt")):
        texts = list[str]()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            text = line.strip()
            if not text or text.startswith("#"):
                continue
            if text.count(GAP) > 1 or "{" in text.replace(GAP, "") or not 4 <= len(text) <= 160:
                raise FrameError(f"{path.name}:{number}: at most one {GAP}, no other brackets, 4 to 160 characters")
            texts.append(text)
        gapped, whole = (tuple(text for text in texts if (GAP in text) is wanted) for wanted in (True, False))
        if not whole:
            raise FrameError(f"{path.name}: a kind needs a frame without {GAP}")
        kinds[path.stem] = Frames(gapped, whole)
    return kinds
