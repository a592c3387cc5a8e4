"""Request bodies: JSON objects only, read strictly. What pydantic then gets is a plain dict."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NoReturn

from flask import Request
from pydantic import BaseModel, ConfigDict
from werkzeug.exceptions import RequestEntityTooLarge

from qwen_allinone.errors import InvalidInput, PayloadTooLarge, UnsupportedMediaType

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
            InvalidInput: not UTF-8, not JSON, not an object, nested too deep, NaN, a key twice, half a surrogate pair.
        """
        encoding = self.headers.get("Content-Encoding", "").strip().lower()
        if encoding not in ("", "identity"):
            name = encoding[:_LONGEST_SHOWN].encode("ascii", "replace").decode()
            raise UnsupportedMediaType(f"不支持 Content-Encoding: {name}，请发送未压缩的 JSON")
        if self.mimetype != "application/json":
            raise UnsupportedMediaType("请求头 Content-Type 必须是 application/json")
        value = parse_json(self.read_body())
        if not isinstance(value, dict):
            raise InvalidInput('请求体必须是 JSON 对象，例如 {"text": "今天很开心"}')
        return value

    def read_body(self) -> bytes:
        """All bytes of the body; raises PayloadTooLarge or InvalidInput."""
        try:
            raw = self.get_data(cache=True)
            # Of a chunked body werkzeug (3.1) gives the first bytes up to the cap and says nothing of the rest.
            full = self.content_length is None and len(raw) == self.max_content_length
            if full and self.environ["wsgi.input"].read(1):
                raise RequestEntityTooLarge
        except RequestEntityTooLarge:
            raise PayloadTooLarge(f"请求体太大，最多 {self.max_content_length} 字节") from None
        except Exception:  # of werkzeug or the WSGI server, for a body that is cut short or malformed chunks
            raise InvalidInput("请求体没有完整送达，请重新发送") from None
        return raw


def parse_json(raw: bytes) -> Any:
    """Parse one JSON document; raises InvalidInput where `json.loads` would guess, crash, overwrite or take long."""
    _refuse_costly(raw)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidInput("请求体不是有效的 UTF-8 编码，请以 UTF-8 发送") from None
    try:
        value = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique_keys)
    except ValueError:  # also integers of thousands of digits
        raise InvalidInput("请求体不是有效的 JSON，请检查引号、逗号和括号") from None
    if _SURROGATE_ESCAPE.search(text):  # only an escape can make half a pair of what was UTF-8
        _refuse_surrogates(value)
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


def _refuse_surrogates(value: Any) -> None:
    """Raises InvalidInput, naming the place, if a string or key anywhere in `value` could not be written as UTF-8."""
    found: list[tuple[_Place | None, Any]] = [(None, value)]
    while found:
        place, inner = found.pop()
        if isinstance(inner, str) and _SURROGATE.search(inner):
            name = field_name(tuple(place or ())) or None
            raise InvalidInput(f"{name or '请求体'} 含有不成对的 UTF-16 代理字符，请发送有效的 UTF-8 文本", param=name)
        if isinstance(inner, list):
            found += [(_Place(number, place), item) for number, item in enumerate(inner)]
        elif isinstance(inner, dict):
            found += [(_Place(key, place), part) for key, item in inner.items() for part in (key, item)]


def _refuse_costly(raw: bytes) -> None:
    """Raises InvalidInput for more values, or a deeper nesting, than any request needs; told from the bytes alone."""
    opening = raw.count(b"[") + raw.count(b"{")
    if opening + raw.count(b",") >= MOST_VALUES and _TOO_MANY.match(raw):
        raise InvalidInput(f"请求体中的值太多，最多 {MOST_VALUES} 个")
    if opening > _DEEPEST:
        brackets = _STRING.sub(b"", raw).translate(None, _NO_BRACKETS)
        if max(accumulate(map(_STEPS.__getitem__, brackets)), default=0) > _DEEPEST:
            raise InvalidInput(f"请求体的 JSON 嵌套太深，最多 {_DEEPEST} 层")


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidInput(f"请求体含有 {name}，它不是有效的 JSON 数值")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > _MOST_KEYS:  # a complaint about each would take half a second
        raise InvalidInput(f"请求体中有一个对象的键太多，最多 {_MOST_KEYS} 个")
    value = dict(pairs)
    if len(value) != len(pairs):
        raise InvalidInput("请求体中有重复的键，请每个键只写一次")
    return value
