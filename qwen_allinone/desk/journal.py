"""What has been answered, kept on disk row by row: what a kill, a full disk or a power cut leaves is gone on from."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Self

from qwen_allinone.errors import DataFileError
from qwen_allinone.wording import said

_FLUSH_ROWS = 200
_FLUSH_S = 1.0


@dataclass(frozen=True)
class Answers:
    """What the model says of one row. `problem`, in Chinese: why it says nothing. `alarms` are in Chinese too.
    `draft_dropped`: there was a reply that could not be used; it is not asked for again."""

    sentiment: str = ""
    probability: float = 0.0
    intent: str = ""
    intent_probability: float = 0.0
    keywords: tuple[str, ...] = ()
    alarms: tuple[str, ...] = ()
    suggestion: str = ""
    problem: str = ""
    care: str = ""
    care_probability: float = 0.0
    draft_dropped: bool = False


class Journal:
    """A file of one line for what is asked and one for each row that is done, in the order of the rows.

    A line counts if it is whole and carries the next number; what comes after the last that counts is cut off. So a
    row is there once or not at all. One process at a time: the file is locked.
    """

    def __init__(self, path: Path, about: Mapping[str, Any], *, resume: bool) -> None:
        """Raises DataFileError: a run is there and is not to be resumed, or is one of something else, or is going on;
        the file cannot be read or written."""
        self.path, self._lines, self._flushed_at = path, list[bytes](), monotonic()
        self.done = 0
        try:
            self._file = path.open("a+b", buffering=0)
            try:
                self._begin(about, resume)
            except BaseException:
                self._file.close()
                raise
        except OSError as error:
            raise self._broken(error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, answers: Answers) -> None:
        """The next row is done. It is on disk soon, and after `flush` for certain."""
        self.done += 1
        self._lines.append(_line({"n": self.done, **asdict(answers)}))
        if len(self._lines) >= _FLUSH_ROWS or monotonic() - self._flushed_at > _FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Raises DataFileError: the disk is full or broken. What was flushed before is kept; the rest waits its turn,
        so that no later row can take its place."""
        try:
            self._write(b"".join(self._lines))
        except OSError as error:
            raise self._broken(error) from None
        self._lines.clear()
        self._flushed_at = monotonic()

    def answers(self) -> Iterator[Answers]:
        """Of all rows that are done, in their order."""
        self.flush()
        for number, (_, entry) in enumerate(self._entries()):
            if number:
                yield answers_of(entry)

    def _begin(self, about: Mapping[str, Any], resume: bool) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataFileError(said("run_at_work", parent=self.path.parent)) from None
        end, found = 0, None
        for behind, entry in self._entries():
            end, self.done = behind, entry["n"]
            found = found or entry
        if found is None:
            self._file.truncate(0)
            self._write(_line({"n": 0, **about}))
            return
        if not resume:
            raise DataFileError(said("run_there_already", parent=self.path.parent, done=self.done))
        known = json.loads(json.dumps(about))
        changed = [name for name in about if name in found and found[name] != known[name]]
        if changed:
            raise DataFileError(said("other_run_there", parent=self.path.parent, changed=changed))
        self._file.truncate(end)

    def _entries(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Every entry that counts, and where the file goes on behind it."""
        end = number = 0
        with self.path.open("rb") as file:
            for line in file:
                entry = _entry(line)
                if entry is None or entry.get("n") != number:
                    return
                end += len(line)
                number += 1
                yield end, entry

    def _write(self, content: bytes) -> None:
        """All of it, and onto the disk; of what cannot be written whole nothing stays."""
        view, before = memoryview(content), os.fstat(self._file.fileno()).st_size
        try:
            while view:
                view = view[self._file.write(view) or 0 :]
            os.fsync(self._file.fileno())
        except OSError:
            with suppress(OSError):
                self._file.truncate(before)
            raise

    def _broken(self, error: OSError) -> DataFileError:
        return DataFileError(
            said("journal_unwritable", path=self.path, strerror=error.strerror, done=self.done - len(self._lines))
        )


def _line(entry: Mapping[str, Any]) -> bytes:
    # Lone surrogates, which JSON files may hold, stay as they are only where all but ASCII is escaped.
    return json.dumps(entry).encode() + b"\n"


def _entry(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def answers_of(entry: Mapping[str, Any]) -> Answers:
    """As `asdict` and JSON leave them."""
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in entry.items() if name != "n"
    }
    return Answers(**values)
