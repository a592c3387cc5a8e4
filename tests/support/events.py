"""Reading an event stream as a browser does."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple


class Event(NamedTuple):
    """`ping` is a comment line; its data is None."""

    name: str
    data: Any


def read_events(blocks: Iterable[bytes]) -> Iterator[Event]:
    """The events of a stream as they arrive, however the network cut it; fails on anything that is none."""
    rest = b""
    for block in blocks:
        *whole, rest = (rest + block).split(b"\n\n")
        yield from map(_event, whole)
    assert rest == b"", f"the stream broke off in {rest!r}"


def _event(frame: bytes) -> Event:
    text = frame.decode("utf-8")  # strictly: a character cut in two fails here
    if text == ": ping":
        return Event("ping", None)
    name, data = text.split("\n")
    assert name.startswith("event: ") and data.startswith("data: "), text
    return Event(name.removeprefix("event: "), json.loads(data.removeprefix("data: ")))


def without_pings(events: Iterable[Event]) -> list[Event]:
    return [event for event in events if event.name != "ping"]


def text_of(events: Iterable[Event]) -> str:
    """The deltas, joined."""
    return "".join(event.data["text"] for event in events if event.name == "delta")
