"""Request bodies: JSON objects only, read strictly. What pydantic then gets is a plain dict."""

from __future__ import annotations

import json
import math
import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any, NoReturn

from flask import Request
from pydantic import BaseModel, ConfigDict
from werkzeug.exceptions import RequestEntityTooLarge

from qwen_allinone.errors import InvalidInput, PayloadTooLarge, UnsupportedMediaType
from qwen_allinone.wording import said

_LONGEST_SHOWN = 64
# Of one body. Parsing holds the interpreter, which the engine needs many times a step: for 5 ms at most.
MOST_VALUES = 20_000
_MOST_KEYS = 2048  # of one object
_DEEPEST = 128
# So many commas and opening brackets outside of strings. Possessive: it never looks at a byte twice.
_TOO_MANY = re.compile(rb'(?>[^",\[{]*+(?:"(?:[^"\\]++|\\.)*+"[^",\[{]*+)*+[,\[{]){%d}' % MOST_VALUES, re.DOTALL)
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEPS = [(byte in b"[{") - (byte in b"]}") for byte in range(256)]
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_SURROGATE = re.compile("[\ud800-\udfff]")
THE_BODY = said("the_body")


class Body(BaseModel):
    """Base of all request bodies: no unknown keys, no guessed conversions."""

    model_config = ConfigDict(extra="forbid", strict=True)


class StrictRequest(Request):
    """Flask's request with a `get_json` that says what is wrong instead of guessing."""

    def get_json(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The body as an object.

        Raises:
            UnsupportedMediaType: the content type is not application/json, or the body is compressed.
            PayloadTooLarge: more bytes than the cap.
            InvalidInput: no body, not UTF-8, not JSON, not an object, nested too deep, NaN, a number beyond a double's,
                a key twice, half a surrogate pair.
        """
        encoding = self.headers.get("Content-Encoding", "").strip().lower()
        if encoding not in ("", "identity"):
            name = encoding[:_LONGEST_SHOWN].encode("ascii", "replace").decode()
            raise UnsupportedMediaType(said("content_encoding", name=name))
        if self._announces_nothing():  # first: what an empty body says that it is does not matter
            raise InvalidInput(said("body_missing", form=said("body_example")))
        if self.mimetype != "application/json":
            raise UnsupportedMediaType(said("content_type"))
        raw = self.read_body()
        if not raw:
            raise InvalidInput(said("body_missing", form=said("body_example")))
        value = parse_json(raw)
        if not isinstance(value, dict):
            raise InvalidInput(said("body_example"))
        return value

    def _announces_nothing(self) -> bool:
        """Whether the headers say that no body comes; one that is only known when read may still be empty."""
        told = self.mimetype or "Transfer-Encoding" in self.headers
        return self.content_length == 0 or (self.content_length is None and not told)

    def read_body(self) -> bytes:
        """All bytes of the body; raises PayloadTooLarge or InvalidInput."""
        try:
            raw = self.get_data(cache=True)
            # Of a chunked body werkzeug (3.1) gives the first bytes up to the cap and says nothing of the rest.
            full = self.content_length is None and len(raw) == self.max_content_length
            if full and self.environ["wsgi.input"].read(1):
                raise RequestEntityTooLarge
        except RequestEntityTooLarge:
            raise PayloadTooLarge(said("body_too_large", max_content_length=self.max_content_length)) from None
        except Exception:  # of werkzeug or the WSGI server, for a body that is cut short or malformed chunks
            raise InvalidInput(said("body_cut")) from None
        return raw


def parse_json(raw: bytes, whole: str = THE_BODY) -> Any:
    """Parse one JSON document; raises InvalidInput where `json.loads` would guess, crash, overwrite or take long.

    `whole` is what complaints call it.
    """
    _refuse_costly(raw, whole)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidInput(said("not_utf8", whole=whole)) from None
    try:
        value = json.loads(
            text,
            parse_constant=partial(_refuse_constant, whole=whole),
            parse_float=partial(_finite, whole=whole),
            object_pairs_hook=partial(_unique_keys, whole=whole),
        )
    except ValueError:  # also integers of thousands of digits
        raise InvalidInput(said("not_json", whole=whole)) from None
    if _SURROGATE_ESCAPE.search(text):  # only an escape can make half a pair of what was UTF-8
        _refuse_surrogates(value, whole)
    return value


def field_name(place: Sequence[int | str]) -> str:
    """Where in the body, written as OpenAI does: `messages[0].content`. Keys as clients send them may hold anything."""
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return path.removeprefix(".").encode("utf-8", "replace").decode()[:128]


@dataclass(frozen=True)
class _Place:
    """Where a value stands in the body: a key or index within its parent. Linked, so that a deep one costs no more."""

    part: int | str
    parent: _Place | None

    def __iter__(self) -> Iterator[int | str]:
        parts = deque[int | str]()
        place: _Place | None = self
        while place is not None:
            parts.appendleft(place.part)
            place = place.parent
        return iter(parts)


def _refuse_surrogates(value: Any, whole: str) -> None:
    """Raises InvalidInput, naming the place, if a string or key anywhere in `value` could not be written as UTF-8."""
    found: list[tuple[_Place | None, Any]] = [(None, value)]
    while found:
        place, inner = found.pop()
        if isinstance(inner, str) and _SURROGATE.search(inner):
            name = field_name(tuple(place or ())) or None
            raise InvalidInput(said("half_pair", place=name or whole), param=name)
        if isinstance(inner, list):
            found += [(_Place(number, place), item) for number, item in enumerate(inner)]
        elif isinstance(inner, dict):
            found += [(_Place(key, place), part) for key, item in inner.items() for part in (key, item)]


def _refuse_costly(raw: bytes, whole: str) -> None:
    """Raises InvalidInput for more values, or a deeper nesting, than any request needs; told from the bytes alone."""
    opening = raw.count(b"[") + raw.count(b"{")
    if opening + raw.count(b",") >= MOST_VALUES and _TOO_MANY.match(raw):
        raise InvalidInput(said("many_values", whole=whole, most_values=MOST_VALUES))
    if opening > _DEEPEST:
        brackets = _STRING.sub(b"", raw).translate(None, _NO_BRACKETS)
        if max(accumulate(map(_STEPS.__getitem__, brackets)), default=0) > _DEEPEST:
            raise InvalidInput(said("deep", whole=whole, deepest=_DEEPEST))


def _refuse_constant(name: str, whole: str) -> NoReturn:
    raise InvalidInput(said("no_json_number", whole=whole, name=name))


def _finite(number: str, whole: str) -> float:
    value = float(number)
    if math.isinf(value):  # what was too large could be written out again as no JSON
        raise InvalidInput(said("number_too_large", whole=whole, number=number[:_LONGEST_SHOWN]))
    return value


def _unique_keys(pairs: list[tuple[str, Any]], whole: str) -> dict[str, Any]:
    if len(pairs) > _MOST_KEYS:  # a complaint about each would take half a second
        raise InvalidInput(said("many_keys", whole=whole, most_keys=_MOST_KEYS))
    value = dict(pairs)
    if len(value) != len(pairs):
        raise InvalidInput(said("key_twice", whole=whole))
    return value
