"""Request bodies: JSON objects only, read strictly. What pydantic then gets is a plain dict."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from flask import Request
from pydantic import BaseModel, ConfigDict
from werkzeug.exceptions import RequestEntityTooLarge

from qwen_allinone.errors import InvalidInput, PayloadTooLarge, UnsupportedMediaType


class Body(BaseModel):
    """Base of all request bodies: no unknown keys, no guessed conversions."""

    model_config = ConfigDict(extra="forbid", strict=True)


class StrictRequest(Request):
    """Flask's request with a `get_json` that says what is wrong instead of guessing."""

    def get_json(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The body as an object.

        Raises:
            UnsupportedMediaType: the content type is not application/json.
            PayloadTooLarge: more bytes than the cap.
            InvalidInput: not UTF-8, not JSON, not an object, nested too deep, NaN, a key given twice.
        """
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
    """Parse one JSON document; raises InvalidInput where `json.loads` would guess, crash or overwrite."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidInput("请求体不是有效的 UTF-8 编码，请以 UTF-8 发送") from None
    try:
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique_keys)
    except RecursionError:
        raise InvalidInput("请求体的 JSON 嵌套太深") from None
    except ValueError:  # also integers of thousands of digits
        raise InvalidInput("请求体不是有效的 JSON，请检查引号、逗号和括号") from None


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidInput(f"请求体含有 {name}，它不是有效的 JSON 数值")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise InvalidInput("请求体中有重复的键，请每个键只写一次")
    return value
