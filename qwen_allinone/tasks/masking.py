"""Numbers that concern nobody but their owner: replaced in what a model or a log sees, given back in replies.

Found by their form, not by a model. A number may be written in full width, in groups, or with characters in it that
nobody sees; written in words it is not found.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterator
from typing import Literal, get_args

from qwen_allinone.invisible_characters import is_invisible

MaskKind = Literal["phone", "id_card", "bank_card", "email", "order"]

_SEP = "[ -]?"
_FORMS: dict[MaskKind, str] = {
    "email": r"[\w.+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}",
    "id_card": r"(?<!\d)[1-9]\d{5}(?:18|19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[\dXx](?![\dA-Za-z])",
    "bank_card": rf"(?<!\d)[3-69](?:{_SEP}\d){{14,18}}(?!\d)",
    "phone": (
        rf"(?<!\d)(?:(?:\+|00)?86{_SEP})?1[3-9]\d{_SEP}\d{{4}}{_SEP}\d{{4}}(?!\d)"
        rf"|(?<!\d)(?:\(0\d{{2,3}}\)|0\d{{2,3}}){_SEP}[1-9]\d{{2,3}}{_SEP}\d{{4}}(?!\d)"
        rf"|(?<!\d)[48]00{_SEP}\d{{3}}{_SEP}\d{{4}}(?!\d)"
        rf"|\+\d{{1,3}}(?:{_SEP}\d){{7,12}}(?!\d)"
    ),
    # Long runs of digits, and shorter ones behind a word that says what they are.
    "order": (
        r"(?<![A-Za-z0-9])[A-Za-z]{0,4}\d{10,30}(?![A-Za-z0-9])"
        r"|(?<=[单号])(?:[^\w\n]|[编号是为码]){0,6}[A-Za-z]{0,4}-?\d[\d-]{4,30}(?![A-Za-z0-9])"
    ),
}
_PATTERNS = {kind: re.compile(form) for kind, form in _FORMS.items()}
_WORDS: dict[MaskKind, str] = {
    "email": "邮箱",
    "id_card": "身份证",
    "bank_card": "银行卡",
    "phone": "电话",
    "order": "单号",
}
assert set(_FORMS) == set(get_args(MaskKind))


class Masking:
    """Hides the numbers of one request or conversation: the same number is the same word in all of its texts.

    To be given the texts in their order; `restore` then turns the words back.
    """

    def __init__(self) -> None:
        self._words: dict[str, str] = {}  # by what stands for the number: its digits and letters alone
        self._numbers: dict[str, str] = {}  # as they were first written, by word

    def hide(self, text: str, kinds: Collection[MaskKind]) -> str:
        """The text with a word such as [电话1] in the place of each number of these kinds."""
        for kind in _FORMS:
            if kind in kinds:
                text = self._hide(text, kind)
        return text

    def restore(self, text: str) -> str:
        """The text with the numbers in the places of their words."""
        for word, number in self._numbers.items():
            text = text.replace(word, number)
        return text

    @property
    def words(self) -> tuple[str, ...]:
        """All that `restore` turns back."""
        return tuple(self._numbers)

    def _hide(self, text: str, kind: MaskKind) -> str:
        plain, places = _plain(text)
        done, parts = 0, list[str]()
        for begin, end in _found(kind, plain):
            first, last = places[begin], places[end - 1] + 1
            parts += [text[done:first], self._word(kind, plain[begin:end], text[first:last], text)]
            done = last
        return "".join([*parts, text[done:]])

    def _word(self, kind: MaskKind, plain: str, number: str, text: str) -> str:
        key = f"{kind} {re.sub(r'[^0-9A-Za-z@.]', '', plain).lower()}"
        if key not in self._words:
            count = 1
            # Not one that somebody wrote: it would be turned into a number that was never there.
            while (word := f"[{_WORDS[kind]}{count}]") in self._numbers or word in text:
                count += 1
            self._words[key] = word
            self._numbers[word] = number
        return self._words[key]


class RestoredPieces:
    """Restores a text that comes in pieces; `tell` gets it in pieces that cut no word."""

    def __init__(self, masking: Masking, tell: Callable[[str], None]) -> None:
        self._masking, self._tell, self._held = masking, tell, ""

    def push(self, piece: str) -> None:
        self._held += piece
        begun = max((self._begun(word) for word in self._masking.words), default=0)
        certain, self._held = self._held[: len(self._held) - begun], self._held[len(self._held) - begun :]
        if certain:
            self._tell(self._masking.restore(certain))

    def end(self) -> None:
        """What was held back was no word after all."""
        held, self._held = self._held, ""
        if held:
            self._tell(held)

    def _begun(self, word: str) -> int:
        """How much of the end may be the beginning of `word`."""
        return next((size for size in range(len(word) - 1, 0, -1) if self._held.endswith(word[:size])), 0)


def _found(kind: MaskKind, plain: str) -> Iterator[tuple[int, int]]:
    for match in _PATTERNS[kind].finditer(plain):
        begin, end = match.span()
        if kind == "bank_card" and not _luhn(match.group()):
            continue
        if kind == "order":  # without the words before it
            begin += re.search(r"[A-Za-z0-9]", match.group()).start()  # type: ignore[union-attr]
        yield begin, end


def _luhn(number: str) -> bool:
    """Whether the last digit is the one that cards have."""
    digits = [int(digit) for digit in reversed(number) if digit.isdigit()]
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[1::2])
    return (sum(digits[::2]) + sum(doubled)) % 10 == 0


def _plain(text: str) -> tuple[str, list[int]]:
    """What can be seen of the text, digits and signs as on a keyboard, and where each character stands in it."""
    if text.isascii() and text.isprintable():
        return text, list(range(len(text)))
    seen = [(_as_typed(char), at) for at, char in enumerate(text) if char.isspace() or not is_invisible(char)]
    return "".join(char for char, _ in seen), [place for _, place in seen]


def _as_typed(char: str) -> str:
    if "\u4e00" <= char <= "\u9fff" or char.isascii():
        return char
    if char.isspace():
        return " "
    if char in "‐‑‒–—―−":
        return "-"
    digit = unicodedata.decimal(char, None)
    if digit is not None:
        return str(digit)
    typed = unicodedata.normalize("NFKC", char)
    return typed if len(typed) == 1 else char
