"""The header `traceparent` of W3C Trace Context: of which trace a request is a part, and which span of it calls."""

from __future__ import annotations

import re
from dataclasses import dataclass

# version-traceid-parentid-flags, in lower case only; a later version may go on after another hyphen.
_FORM = re.compile(
    r"(?!ff)(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})(?P<rest>-.*)?"
)
_SAMPLED = 1


@dataclass(frozen=True)
class TraceParent:
    """Where a request belongs: `trace_id` in 32 hex digits, `span_id` of the caller's span in 16; `sampled`: the
    caller keeps that trace."""

    trace_id: str
    span_id: str
    sampled: bool

    def fields(self) -> dict[str, str]:
        """What log lines say of it."""
        return {"trace_id": self.trace_id, "span_id": self.span_id}


def trace_parent(header: str) -> TraceParent | None:
    """What `header` says; None if it is no good, for then a request is served as if it had none.

    Source: https://www.w3.org/TR/trace-context/, sections 3.2 and 4.3.
    """
    found = _FORM.fullmatch(header.strip(" \t"))
    if found is None or (found["version"] == "00" and found["rest"]):
        return None
    if not found["trace"].strip("0") or not found["span"].strip("0"):
        return None
    return TraceParent(found["trace"], found["span"], bool(int(found["flags"], 16) & _SAMPLED))
