"""What there is to tell of a finished request: the log line, the audit line and the metrics are made of this."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from qwen_allinone.telemetry.trace_parent import TraceParent

# The `finish_reason` of an answer that was never given: its request ended with an error.
UNFINISHED = "unfinished"
REMEMBERED = "HIT"  # the `cache` of an answer of which no token was computed


@dataclass(frozen=True)
class AnswerRecord:
    """One answer of a task within a request. Times in seconds.

    `submitted` is when the engine was asked for it, a time.monotonic() value, 0 where it was not. `inter_token_s` is
    the mean time between two tokens, None where there was no second. `cache` is REMEMBERED for an answer that was, MISS
    for one that was looked for, None for one that was not. `fired`: it is why a chat was answered with the vetted text.
    `drafted_tokens` were guessed, and each of the `accepted_tokens` among them saved a step.
    """

    task: str
    label: str | None
    finish_reason: str
    prompt_tokens: int
    reused_tokens: int
    generated_tokens: int
    queue_s: float
    prefill_s: float
    decode_s: float
    inter_token_s: float | None
    cache: str | None = None
    fired: bool = False
    submitted: float = 0.0
    drafted_tokens: int = 0
    accepted_tokens: int = 0


@dataclass(frozen=True)
class RequestRecord:
    """A request whose last byte was handed over. `route` is the rule, never the path; `text` only if it may be told.
    `began` is a time.monotonic() value. `trace`: None where the caller named none."""

    request_id: str
    method: str
    route: str
    status: int
    total_s: float
    caller: str | None = None
    address: str | None = None
    code: str | None = None
    answers: tuple[AnswerRecord, ...] = ()
    text: Mapping[str, Any] = field(default_factory=dict)
    began: float = 0.0
    trace: TraceParent | None = None

    def fields(self) -> dict[str, Any]:
        """The log line's fields; times in milliseconds, summed over the answers like the tokens.

        `task` names the tasks that were run, in order: `sentiment+chat`.
        """
        seconds = {
            "queue": sum(answer.queue_s for answer in self.answers),
            "prefill": sum(answer.prefill_s for answer in self.answers),
            "decode": sum(answer.decode_s for answer in self.answers),
            "total": self.total_s,
        }
        return {
            "request_id": self.request_id,
            **(self.trace.fields() if self.trace else {}),
            "method": self.method,
            "route": self.route,
            "status": self.status,
            "code": self.code,
            "caller": self.caller,
            "task": "+".join(answer.task for answer in self.answers) or None,
            "finish_reason": "+".join(answer.finish_reason for answer in self.answers) or None,
            "cache": "+".join(answer.cache or "-" for answer in self.answers)
            if any(c.cache for c in self.answers)
            else None,
            "prompt_tokens": sum(answer.prompt_tokens for answer in self.answers),
            "reused_tokens": sum(answer.reused_tokens for answer in self.answers),
            "generated_tokens": sum(answer.generated_tokens for answer in self.answers),
            **{f"{what}_ms": round(spent * 1000, 1) for what, spent in seconds.items()},
            **self.text,
        }
