"""Files and batches as they are kept: what each is, how a batch ends, how much of them an owner may have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"]
# Those that are not over yet.
OPEN: tuple[Status, ...] = ("validating", "in_progress", "cancelling")
# What is kept of a batch's course: when it got there.
TIMES = (
    "in_progress_at",
    "finalizing_at",
    "completed_at",
    "failed_at",
    "expired_at",
    "cancelling_at",
    "cancelled_at",
)
WINDOW_S = 86_400.0  # the one completion window there is
# Errors of a batch's file that are told; the rest are as many again of the same kind.
MOST_ERRORS = 100


@dataclass(frozen=True)
class Quota:
    """What one owner may have. Where no keys are asked for, all who call are one owner."""

    file_mb: int = 200
    owner_mb: int = 1000
    owner_lines: int = 200_000
    owner_open: int = 10


@dataclass(frozen=True)
class StoredFile:
    """A file, uploaded or made of a batch's answers. Times in Unix seconds; `lines` counts those with something in."""

    id: str
    purpose: Literal["batch", "batch_output"]
    filename: str
    bytes: int
    lines: int
    created: float
    expires: float


@dataclass(frozen=True)
class LineProblem:
    """What is wrong with an input file. `line` counts from 1, None: with the whole of it."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


@dataclass(frozen=True)
class Batch:
    """A batch as it stands. Times in Unix seconds; `times` has those of TIMES that have come."""

    id: str
    endpoint: str
    input_file_id: str
    status: Status
    created: float
    expires: float
    total: int = 0
    completed: int = 0
    failed: int = 0
    metadata: Mapping[str, str] | None = None
    errors: tuple[LineProblem, ...] = ()
    output_file_id: str | None = None
    error_file_id: str | None = None
    times: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class InputLine:
    """A line of an input file that may be asked: its number, counted from 1, and the bytes it takes."""

    number: int
    custom_id: str
    start: int
    length: int


@dataclass(frozen=True)
class Draft:
    """A batch whose file is to be looked through, held by `token`."""

    id: str
    owner: str | None
    endpoint: str
    file: str
    token: str


@dataclass(frozen=True)
class HeldLine:
    """A line that `token` holds, to be answered or given back. `tries`: how often it was held, this time included."""

    batch: str
    number: int
    custom_id: str
    owner: str | None
    endpoint: str
    raw: bytes
    tries: int
    token: str


def outcome(
    id: str, custom_id: str, response: Mapping[str, Any] | None, error: Mapping[str, str] | None
) -> dict[str, Any]:
    """A line of an output or error file, as OpenAI has it."""
    return {"id": id, "custom_id": custom_id, "response": response, "error": error}
