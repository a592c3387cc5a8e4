"""Text that comes token by token, in pieces that never cut a character."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

# Regional indicators, pictographs, and what joins or changes them: the next token may still belong to these.
_OPEN_EMOJI = re.compile(
    "[\u200d\u20e3\u2600-\u27bf\u2b00-\u2bff\ufe0e\ufe0f\U0001f000-\U0001faff\U000e0020-\U000e007f]+$"
)
_BROKEN = "\ufffd"


class TextPieces:
    """Turns token ids of a byte-level tokenizer into pieces of text as early as they can be shown.

    Held back until more is known: bytes that are not yet a whole character, an emoji that a joiner, a skin tone or a
    second letter of a flag may continue, and white space, which is dropped at both ends. All pieces joined are the
    text that decoding the whole answer at once gives (stripped of white space and of a character cut at the end).
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._ids: list[int] = []  # since the last token that ended with a whole character
        self._taken = 0  # characters of these that are in `_held` or out
        self._held = ""
        self._begun = False

    def push(self, token: int) -> str:
        """The text that `token` makes certain; often empty."""
        self._ids.append(token)
        text = self._decode(self._ids)
        certain = text.rstrip(_BROKEN)
        self._held += certain[self._taken :]
        self._taken = len(certain)
        if certain == text:
            self._ids, self._taken = [], 0
        return self._release(len(_OPEN_EMOJI.sub("", self._held).rstrip()))

    def end(self) -> str:
        """What was held back and is text after all."""
        return self._release(len(self._held.rstrip()))

    def _release(self, count: int) -> str:
        piece, self._held = self._held[:count], self._held[count:]
        if not self._begun:
            piece = piece.lstrip()
            self._begun = bool(piece)
        return piece
