"""One record, one line: JSON or text, everything unprintable escaped, nothing in it that a user wrote."""

from __future__ import annotations

import json
import logging
import re
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from structlog.contextvars import get_contextvars
from structlog.stdlib import ExtraAdder, ProcessorFormatter
from structlog.typing import EventDict

_SHORT_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_PLAIN_VALUE = re.compile(r"[\w./:@+-]+")
# These threads never see a user's text; exceptions raised in any other may quote it.
_TEXTLESS_THREADS = {"MainThread", "engine", "watchdog"}
# What another handler's formatter leaves on a record, as if it were a field.
_NO_FIELDS = {"message", "asctime"}
# What Gunicorn says of a request, up to where it begins to quote it.
_GUNICORN_QUOTES = re.compile(
    r"(?P<kept>Invalid request from ip=\S+: [^:'\"]*|Error handling request|Ignored premature client disconnection).*",
    re.DOTALL,
)


def line_formatter(*, as_json: bool, show_text: bool) -> ProcessorFormatter:
    """The formatter of every line. `show_text`: messages of exceptions and requests may quote users."""

    def describe(_: Any, __: str, event: EventDict) -> EventDict:
        return _describe(event, show_text=show_text)

    def render(_: Any, __: str, event: EventDict) -> str:
        return to_json(event) if as_json else _to_text(event)

    return ProcessorFormatter(
        foreign_pre_chain=[ExtraAdder(), describe],
        processors=[ProcessorFormatter.remove_processors_meta, render],
    )


def escape(text: str) -> str:
    """`text` with control characters, bidi marks, separators and lone surrogates as JSON's escapes."""
    return text if text.isprintable() else "".join(map(_escape_character, text))


def to_json(fields: Mapping[str, Any]) -> str:
    """One line of JSON; Chinese stays as it is, what could disturb a terminal or a reader does not."""
    return escape(json.dumps(dict(fields), ensure_ascii=False, default=str))


def timestamp(seconds: float, precision: str = "milliseconds") -> str:
    """ISO 8601 in UTC, to `milliseconds` or `seconds`."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec=precision).replace("+00:00", "Z")


def _escape_character(character: str) -> str:
    if character.isprintable():
        return character
    if character in _SHORT_ESCAPES:
        return _SHORT_ESCAPES[character]
    units = character.encode("utf-16-be", "surrogatepass")  # two units beyond the basic plane, as JSON wants it
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


def _describe(event: EventDict, *, show_text: bool) -> EventDict:
    """Put what every line has first, the request it belongs to, its own fields, and an exception last."""
    record: logging.LogRecord = event["_record"]
    exc_info, stack = event.pop("exc_info", None), event.pop("stack_info", None)
    bound = get_contextvars()
    message = event.pop("event")
    if record.name == "gunicorn.error" and not show_text:
        message = _GUNICORN_QUOTES.sub(r"\g<kept>", message)
    described = {
        "timestamp": timestamp(record.created),
        "level": record.levelname.lower(),
        "logger": record.name,
        "pid": record.process,
        "event": message,
    }
    described |= bound | {name: value for name, value in event.items() if name not in _NO_FIELDS}
    if exc_info and exc_info[1] is not None:
        textless = record.threadName in _TEXTLESS_THREADS and not bound
        described["exception"] = describe_exception(exc_info[1], show_message=show_text or textless)
    if stack:
        described["stack"] = stack
    return described


def describe_exception(error: BaseException, *, show_message: bool) -> str:
    """A traceback, causes first. Without `show_message`: types, files and lines, but no words of the exceptions."""
    if show_message:
        return "".join(traceback.format_exception(error)).rstrip("\n")
    parts = []
    for link, one in reversed(_chain(error)):
        frames = "".join(traceback.format_tb(one.__traceback__))
        name = f"{type(one).__module__}.{type(one).__qualname__}".removeprefix("builtins.")
        parts.append(f"Traceback (most recent call last):\n{frames}{name} (message left out){link}")
    return "\n\n".join(parts)


def _chain(error: BaseException) -> list[tuple[str, BaseException]]:
    """The exception, then what led to it; each with the words that join it to the one before."""
    chain: list[tuple[str, BaseException]] = []
    seen: set[int] = set()
    link: str = ""
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        chain.append((link, following))
        seen.add(id(following))
        if following.__cause__ is not None:
            link, following = "\n\nThe direct cause of:", following.__cause__
        else:
            link = "\n\nDuring handling of which another exception occurred:"
            following = None if following.__suppress_context__ else following.__context__
    return chain


def _to_text(event: EventDict) -> str:
    when, level, name = event.pop("timestamp"), event.pop("level"), event.pop("logger")
    head = f"{when} {level.upper():<7} [{event.pop('pid')}] {name}: {event.pop('event')}"
    return escape(" ".join([head, *(f"{key}={_value(value)}" for key, value in event.items())]))


def _value(value: object) -> str:
    text = str(value)
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False, default=str)
    return text if _PLAIN_VALUE.fullmatch(text) else json.dumps(text, ensure_ascii=False)
