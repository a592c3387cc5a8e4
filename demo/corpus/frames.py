"""Replies that fit any message of a kind, and which of them go with each turn of the written conversations.

No two written replies are alike: a small network that is taught them alone learns to name what was said, and never to
finish a sentence. A frame comes again and again, in turns of the same kind, with a word of the turn in its gap `{it}`.
The teacher finds the frames that mean most nearly what the written replies mean.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from demo.corpus.dialogues import CALM, NEGATIVE, POSITIVE, Dialogue, Turn
from demo.corpus.dialogues import MOODS as ALL_MOODS

HERE = Path(__file__).parent / "frames"
GAP = "{it}"
NEAREST = 6  # frames of a turn, with a gap and without
# The moods of the turns that the frames of a file may answer, by how its name begins; all where none is named.
MOODS = {
    "bad_": (NEGATIVE,), "good_": (POSITIVE,), "review_bad": (NEGATIVE,), "review_good": (POSITIVE,),
    "relief": (POSITIVE,), "proud": (POSITIVE,), "better": (POSITIVE,), "lonely": (NEGATIVE,), "afraid": (NEGATIVE,),
    "angry": (NEGATIVE,), "ashamed": (NEGATIVE,), "tired": (NEGATIVE,), "low": (NEGATIVE,), "despair": (NEGATIVE,),
    "plain": (CALM,), "en_good": (POSITIVE,), "en_bad": (NEGATIVE,), "service_complaint": (NEGATIVE,),
    "service_praise": (POSITIVE,), "praise_you": (POSITIVE,),
}  # fmt: skip
DESPAIR = "despair"  # these answer the conversations of the same kind, and no others do
_HELP = re.compile("12356|110|120")
_HAN = re.compile(r"[\u3400-\u9fff]")
# What stands in many messages and says nothing of what they are about.
_EMPTY = frozenset(
    "今天 明天 昨天 现在 刚才 刚刚 已经 真的 怎么 什么 为什么 这个 那个 一个 我们 你们 他们 自己 觉得 知道 感觉 有点 非常 终于 还是 就是 "
    "不是 没有 可以 因为 所以 但是 如果 一下 一点 时候 一直 这么 那么 好像 可能 应该 特别 早上 晚上 下午 上午 中午 大家 别人 东西 事情".split()
)


class FrameError(ValueError):
    """A line that is no frame; says which."""


@dataclass(frozen=True)
class Frame:
    """One frame; `kind` is the name of its file."""

    text: str
    kind: str

    @property
    def is_english(self) -> bool:
        return not _HAN.search(self.text)

    @property
    def moods(self) -> tuple[str, ...]:
        """Of the turns that it may answer."""
        return next((moods for begin, moods in MOODS.items() if self.kind.startswith(begin)), ALL_MOODS)

    def answers(self, mood: str, english: bool, despair: bool) -> bool:
        """Whether it may answer a turn of this kind at all."""
        if despair != (self.kind == DESPAIR) or english != self.is_english:
            return False
        return mood in self.moods


def read_frames(folder: Path = HERE) -> list[Frame]:
    """All frames, in the order of the files' names; raises FrameError."""
    frames = list[Frame]()
    for path in sorted(folder.glob("*.txt")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            text = line.strip()
            if not text or text.startswith("#"):
                continue
            if text.count(GAP) > 1 or "{" in text.replace(GAP, "") or not 4 <= len(text) <= 160:
                raise FrameError(f"{path.name}:{number}: at most one {GAP}, no other brackets, 4 to 160 characters")
            frames.append(Frame(text, path.stem))
    return frames


@dataclass(frozen=True)
class Framed:
    """The frames that go with one turn: those with a gap, those without."""

    gapped: tuple[str, ...]
    whole: tuple[str, ...]


def framed(
    dialogues: Sequence[Dialogue], frames: Sequence[Frame], vectors: Callable[[list[str]], Tensor]
) -> dict[Turn, Framed]:
    """The frames nearest to what each turn's written replies mean. `vectors` are the teacher's, [texts, size]."""
    turns = list(dict.fromkeys(turn for dialogue in dialogues for turn in dialogue.turns))
    if not frames or not turns:
        return {}
    meant = vectors([frame.text.replace(GAP, "that" if frame.is_english else "这件事") for frame in frames])
    said = vectors([reply for turn in turns for reply in turn.replies])
    centre = torch.cat([meant, said]).mean(0)  # all of the teacher's vectors point one way
    meant, said = functional.normalize(meant - centre, dim=1), functional.normalize(said - centre, dim=1)
    found, place = dict[Turn, Framed](), 0
    for turn in turns:
        mine = said[place : place + len(turn.replies)].mean(0)
        place += len(turn.replies)
        english = not any(map(_HAN.search, (turn.texts[0], *turn.replies)))
        despair = any(map(_HELP.search, turn.replies))
        fitting = [number for number, frame in enumerate(frames) if frame.answers(turn.mood, english, despair)]
        order = (meant[fitting] @ mine).argsort(descending=True).tolist() if fitting else []
        texts = [frames[fitting[place]].text for place in order]
        gapped, whole = ([text for text in texts if (GAP in text) == wanted] for wanted in (True, False))
        found[turn] = Framed(tuple(gapped[:NEAREST]), tuple(whole[:NEAREST]))
    return found


def topic_of(text: list[str], replies: Sequence[str]) -> str:
    """The longest word of a text, given in pieces, that some reply takes up; "" if there is none."""
    named = [word for word in text if _names_something(word) and any(word in reply for reply in replies)]
    return max(named, key=len, default="")


def _names_something(word: str) -> bool:
    return 2 <= len(word) <= 5 and all(map(_HAN.match, word)) and word not in _EMPTY


def key_of(frames: Sequence[Frame], dialogues: Sequence[Dialogue]) -> str:
    """Changes with every frame and every turn."""
    texts = [f"{frame.kind} {frame.text}" for frame in frames]
    texts += [repr(turn) for dialogue in dialogues for turn in dialogue.turns]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()
