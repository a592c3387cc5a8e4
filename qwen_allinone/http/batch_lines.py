"""The lines of a batch's file: what each must hold, and what is wrong with it."""

from __future__ import annotations

import codecs
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from qwen_allinone.errors import InvalidInput
from qwen_allinone.http.body import parse_json
from qwen_allinone.state import InputLine, LineProblem
from qwen_allinone.wording import said

# What OpenAI knows of an endpoint: the path. Tasks have theirs beside these.
ENDPOINTS = ("/chat", "/v1/chat/completions", "/v1/classify", "/v1/embeddings")
TASKS = "/v1/tasks/"
_FIELDS = ("custom_id", "method", "url", "body")
_LONGEST_ID = 512
# A line may be asked twice, when a worker is killed, and its neighbours at the same time: so it may change nothing.
_NOT_IN_BATCHES = {
    "stream": said("batch_stream"),
    "session": said("batch_session"),
    "session_id": said("batch_session"),
    "user": said("batch_user"),
    "memory": said("batch_memory"),
}
_SPACE = b" \t\r\n"


@dataclass(frozen=True)
class RawLine:
    """A line with something in it: its number, counted from 1, where it starts, and its bytes without the end.

    `is_too_long`: it has more bytes than may be, and these were let go.
    """

    number: int
    start: int
    raw: bytes
    is_too_long: bool = False


def endpoints(tasks: Iterable[str]) -> list[str]:
    """All that lines may ask."""
    return [*ENDPOINTS, *(f"{TASKS}{name}" for name in tasks)]


def split(blocks: Iterable[bytes], most_bytes: int) -> Iterator[RawLine]:
    """The lines of a file that have something in them; a byte order mark is no part of the first.

    Holds no more than a block and a line of `most_bytes`, and looks at each byte a few times, however long a line is.
    """
    line = _Line(1, 0, most_bytes)
    for block in blocks:
        first, *others = block.split(b"\n")
        line.add(first)
        for piece in others:
            yield from line.end()
            line = _Line(line.number + 1, line.start + line.length + 1, most_bytes)
            line.add(piece)
    yield from line.end()


class _Line:
    """The line that is being read, of which more may come."""

    def __init__(self, number: int, start: int, most_bytes: int) -> None:
        self.number, self.start, self.length = number, start, 0
        self._most_bytes = most_bytes
        self._held = bytearray()
        self._is_blank = True

    def add(self, piece: bytes) -> None:
        self.length += len(piece)
        self._is_blank = self._is_blank and not piece.strip(_SPACE)
        if self.length <= self._most_bytes + len(codecs.BOM_UTF8):
            self._held += piece
        else:
            self._held.clear()

    def end(self) -> Iterator[RawLine]:
        """The line, if it has something in."""
        raw, start = bytes(self._held), self.start
        if self.length > len(raw):
            if not self._is_blank:
                yield RawLine(self.number, start, b"", is_too_long=True)
            return
        if self.number == 1 and raw.startswith(codecs.BOM_UTF8):
            start, raw = start + len(codecs.BOM_UTF8), raw[len(codecs.BOM_UTF8) :]
        if raw.strip(_SPACE):
            is_too_long = len(raw) > self._most_bytes
            yield RawLine(self.number, start, b"" if is_too_long else raw, is_too_long)


class Checker:
    """Looks through the lines of one file, which must have ids of their own."""

    def __init__(self, endpoint: str, known: Collection[str], most_bytes: int) -> None:
        """`most_bytes`: of a line, as of a request's body."""
        self._endpoint = endpoint
        self._known = known
        self._most_bytes = most_bytes
        self._seen: dict[bytes, int] = {}

    def check(self, line: RawLine) -> InputLine | LineProblem:
        """The line as it is kept, or what is wrong with it."""
        try:
            if line.is_too_long:
                raise _Wrong("line_too_long", said("line_too_long", most_bytes=self._most_bytes))
            fields = read(line.raw)
            custom_id = self._custom_id(fields, line.number)
            self._check_request(fields)
        except _Wrong as error:
            return LineProblem(error.code, error.message, line.number, error.param)
        return InputLine(line.number, custom_id, line.start, len(line.raw))

    def _custom_id(self, fields: dict[str, Any], number: int) -> str:
        id = fields["custom_id"]
        if not isinstance(id, str) or not 0 < len(id) <= _LONGEST_ID:
            raise _Wrong("invalid_custom_id", said("custom_id_form", longest_id=_LONGEST_ID), "custom_id")
        digest = blake2b(id.encode(), digest_size=16).digest()
        first = self._seen.setdefault(digest, number)
        if first != number:
            raise _Wrong("duplicate_custom_id", said("custom_id_twice", id=id[:64], first=first), "custom_id")
        return id

    def _check_request(self, fields: dict[str, Any]) -> None:
        if fields["method"] != "POST":
            raise _Wrong("invalid_method", said("method_form"), "method")
        url, body = fields["url"], fields["body"]
        if url not in self._known:
            raise _Wrong("invalid_url", said("unknown_url", url=str(url)[:64], known=self._known), "url")
        if url != self._endpoint:
            raise _Wrong("mismatched_url", said("other_url", endpoint=self._endpoint), "url")
        if not isinstance(body, dict):
            raise _Wrong("invalid_body", said("body_form"), "body")
        for name, why in _NOT_IN_BATCHES.items():
            if body.get(name) and (name != "user" or url == "/chat"):
                raise _Wrong("unsupported_field", why, f"body.{name}")


def read(raw: bytes) -> dict[str, Any]:
    """The fields of a line, all of which are there. Raises InvalidInput."""
    try:
        fields = parse_json(raw, said("the_line"))
    except InvalidInput as error:
        raise _Wrong("invalid_json_line", error.message) from None
    if not isinstance(fields, dict):
        raise _Wrong("invalid_json_line", said("line_form"))
    for name in _FIELDS:
        if name not in fields:
            raise _Wrong("missing_required_parameter", said("line_lacks", name=name), name)
    for name in fields:
        if name not in _FIELDS:
            raise _Wrong("unknown_parameter", said("line_field", name=name[:64], fields=_FIELDS), name[:64])
    return fields


class _Wrong(InvalidInput):
    """A line is at fault."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message, param=param)
        self.code = code
