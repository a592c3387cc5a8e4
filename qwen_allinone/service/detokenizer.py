"""Text that comes token by token, in pieces that never cut a character."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from qwen_allinone.model.tokenizer import Tokenizer

# Regional indicators, pictographs, and what joins or changes them: the next token may still belong to these.
_OPEN_EMOJI = re.compile(
    "[\u200d\u20e3\u2600-\u27bf\u2b00-\u2bff\ufe0e\ufe0f\U0001f000-\U0001faff\U000e0020-\U000e007f]+$"
)
_BROKEN = "\ufffd"


def reply_text(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """What a whole reply says."""
    # A reply cut at its limit may end inside a character.
    return tokenizer.decode(ids).rstrip(_BROKEN).strip()


class TextPieces:
    """Turns token ids of a byte-level tokenizer into pieces of text as early as they can be shown.

    Held back until more is known: bytes that are not yet a whole character, an emoji that a joiner, a skin tone or a
    second letter of a flag may continue, what may be the beginning of a stop text, and white space, which is dropped at
    both ends unless `strip` is off. All pieces joined are the text that decoding the whole answer at once gives
    (stripped, without a character cut at the end), up to the first of `stops`. Once that is there, `stopped` is set
    and further tokens are not heard.
    """

    def __init__(
        self, decode: Callable[[Sequence[int]], str], *, stops: Sequence[str] = (), strip: bool = True
    ) -> None:
        self.stopped = False
        self._decode = decode
        self._stops = tuple(stops)
        self._strip = strip
        self._ids: list[int] = []  # since the last token that ended with a whole character
        self._taken = 0  # characters of these that are in `_held` or out
        self._held = ""
        self._begun = not strip

    def push(self, token: int) -> str:
        """The text that `token` makes certain; often empty."""
        if self.stopped:
            return ""
        self._ids.append(token)
        text = self._decode(self._ids)
        certain = text.rstrip(_BROKEN)
        self._held += certain[self._taken :]
        self._taken = len(certain)
        if certain == text:
            self._ids, self._taken = [], 0
        if self._stops and self._cut_at_stop():
            return self.end()
        shown = _OPEN_EMOJI.sub("", self._held)
        return self._release(min(len(self._right_stripped(shown)), len(self._held) - self._begun_stop()))

    def end(self) -> str:
        """What was held back and is text after all."""
        return self._release(len(self._right_stripped(self._held)))

    def _cut_at_stop(self) -> bool:
        """Drop the first stop text and all behind it."""
        starts = [start for stop in self._stops if (start := self._held.find(stop)) >= 0]
        if starts:
            self.stopped, self._held = True, self._held[: min(starts)]
        return self.stopped

    def _begun_stop(self) -> int:
        """Length of the longest end of what is held that may become a stop text."""
        lengths = (
            length
            for stop in self._stops
            for length in range(min(len(stop) - 1, len(self._held)), 0, -1)
            if self._held.endswith(stop[:length])
        )
        return max(lengths, default=0)

    def _right_stripped(self, text: str) -> str:
        return text.rstrip() if self._strip else text

    def _release(self, count: int) -> str:
        piece, self._held = self._held[:count], self._held[count:]
        if not self._begun:
            piece = piece.lstrip()
            self._begun = bool(piece)
        return piece
