"""Answers of label tasks that may still be corrected, and what people said of them, in a SQLite file of this machine.

An answer waits a day for a word; one that got it is kept for `days`. Where the file is full, the caller who takes most
of it makes room: the oldest of his that wait, and where none does the oldest that got their word. `synchronous=NORMAL`:
a loss of power may take the last few, a kill takes none; for this no answer waits for a disk.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from qwen_allinone.errors import AnswerNotFound, FeedbackUnavailable
from qwen_allinone.state.conversations import now

log = logging.getLogger(__name__)

WAITS_S = 86_400.0
_BUSY_S = 0.5
_SWEEP = 200  # what is too old goes at each so many answers
# What goes where the file is full: so many rows, or that part of the caller's, for finding him takes reading all of it.
_ROOM, _ROOM_SHARE = 100, 20
_MOST_ROOMS = 8  # for one row
_MOST_OF_A_MB = 100_000  # bytes of one row for each MB of the file: a larger one finds room only if there is some
_VERSION = 1
_SCHEMA = """
CREATE TABLE answers (
    owner TEXT NOT NULL, request TEXT NOT NULL, task TEXT NOT NULL, at REAL NOT NULL, inputs TEXT NOT NULL,
    label TEXT NOT NULL, probability REAL, version TEXT NOT NULL, corrected TEXT, note TEXT,
    PRIMARY KEY (owner, request, task)
) WITHOUT ROWID;
CREATE INDEX answers_by_age ON answers (at) WHERE corrected IS NULL;
CREATE INDEX answers_corrected ON answers (task, at) WHERE corrected IS NOT NULL;
"""

_WHO_TAKES_MOST = """
SELECT owner, count(*) FROM answers GROUP BY owner
ORDER BY sum(200 + length(CAST(inputs AS BLOB)) + ifnull(length(CAST(note AS BLOB)), 0)) DESC LIMIT 1
"""
_Name = tuple[str, str, str]  # owner, request and task: a row


@dataclass(frozen=True)
class LabelAnswer:
    """What a label task said: enough to learn from. `at`: Unix seconds. `version` is the prompt's."""

    request_id: str
    task: str
    inputs: Mapping[str, str]
    label: str
    probability: float | None
    version: str
    at: float


@dataclass(frozen=True)
class Correction:
    """An answer and the right label, which may be the same. `is_first`: nobody had said anything of it."""

    answer: LabelAnswer
    label: str
    note: str = ""
    is_first: bool = True

    @property
    def was_right(self) -> bool:
        return self.answer.label == self.label


class Corrections:
    """The file, made when first needed. Thread-safe; several processes may use it."""

    def __init__(self, file: Path, *, days: float, max_mb: int) -> None:
        self._file = file.absolute()
        self._kept_s = days * 86_400
        self._max_mb = max_mb
        self._db: sqlite3.Connection | None = None
        self._process = 0
        self._lock = threading.Lock()
        self._until_sweep = 0
        self._complaint = ""

    def remember(self, owner: str | None, answer: LabelAnswer) -> None:
        """Keep an answer for as long as it may be corrected. Where it cannot be kept that is told in the log: nobody
        who only asks is to go without an answer for it. An id that comes again stands for its newest answer."""
        row = (
            _owner(owner), answer.request_id, answer.task, answer.at,
            json.dumps(dict(answer.inputs), ensure_ascii=False), answer.label, answer.probability, answer.version,
        )  # fmt: skip
        with suppress(FeedbackUnavailable), self._open() as db:
            self._sweep(db)
            statement = (
                "INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL) ON CONFLICT DO UPDATE SET"
                " at = excluded.at, inputs = excluded.inputs, label = excluded.label,"
                " probability = excluded.probability, version = excluded.version WHERE corrected IS NULL"
            )
            self._write(db, statement, row, (row[0], row[1], row[2]))

    def tasks_of(self, owner: str | None, request_id: str) -> dict[str, LabelAnswer]:
        """What the request's label tasks said, by task. Raises FeedbackUnavailable."""
        with self._open() as db:
            found = db.execute(
                f"SELECT {_COLUMNS} FROM answers WHERE owner = ? AND request = ? AND (corrected IS NOT NULL OR at > ?)",
                (_owner(owner), request_id, now() - WAITS_S),
            ).fetchall()
        answers = map(_answer, found)
        return {answer.task: answer for answer in answers}

    def correct(self, owner: str | None, answer: LabelAnswer, label: str, note: str = "") -> Correction:
        """Keep the right label of an answer; what was said of it before is replaced.

        Raises:
            AnswerNotFound: it is gone meanwhile. FeedbackUnavailable.
        """
        named = (_owner(owner), answer.request_id, answer.task)
        with self._open() as db:
            where = "WHERE owner = ? AND request = ? AND task = ?"
            before = db.execute(f"SELECT corrected FROM answers {where}", named).fetchone()
            if before is None or not self._write(
                db, f"UPDATE answers SET corrected = ?, note = ? {where}", (label, note, *named), named
            ):
                raise AnswerNotFound()
        return Correction(answer, label, note, is_first=before[0] is None)

    def kept(self, task: str) -> list[Correction]:
        """All that people said of a task, oldest first. Raises FeedbackUnavailable."""
        with self._open() as db:
            rows = db.execute(
                f"SELECT {_COLUMNS}, corrected, note FROM answers"
                " WHERE task = ? AND corrected IS NOT NULL AND at > ? ORDER BY at",
                (task, now() - self._kept_s),
            ).fetchall()
        return [Correction(_answer(row), row[-2], row[-1] or "", is_first=False) for row in rows]

    def close(self) -> None:
        with self._lock:
            self._drop()

    def _write(self, db: sqlite3.Connection, statement: str, row: tuple[object, ...], named: _Name) -> int:
        """The number of rows that it changed. A full file is given room; the answer `named` stays."""
        for _ in range(_MOST_ROOMS):
            try:
                return db.execute(statement, row).rowcount
            except sqlite3.OperationalError as error:
                size = sum(len(part.encode()) for part in row if isinstance(part, str))
                if not _is_full(error) or size > self._max_mb * _MOST_OF_A_MB or not self._make_room(db, named):
                    raise
        return db.execute(statement, row).rowcount

    def _make_room(self, db: sqlite3.Connection, named: _Name) -> int:
        """How many rows went: what is too old, and of the caller who takes most of the file some of the oldest."""
        gone = self._forget_old(db)
        owner, rows = db.execute(_WHO_TAKES_MOST).fetchone() or ("", 0)
        for what, which in (("answers", "IS NULL"), ("corrected answers", "IS NOT NULL")):
            oldest = (
                f"SELECT owner, request, task FROM answers WHERE owner = ? AND corrected {which}"
                " AND (owner, request, task) != (?, ?, ?) ORDER BY at LIMIT ?"
            )
            most = max(_ROOM, rows // _ROOM_SHARE)
            went = db.execute(
                f"DELETE FROM answers WHERE (owner, request, task) IN ({oldest})", (owner, *named, most)
            ).rowcount
            if went:
                log.info("feedback: %s: full: the oldest %d %s of one caller made room", self._file, went, what)
                return gone + went
        return gone

    def _sweep(self, db: sqlite3.Connection) -> None:
        self._until_sweep -= 1
        if self._until_sweep < 0:
            self._until_sweep = _SWEEP
            self._forget_old(db)

    def _forget_old(self, db: sqlite3.Connection) -> int:
        at = now()
        waited = db.execute("DELETE FROM answers WHERE corrected IS NULL AND at <= ?", (at - WAITS_S,)).rowcount
        kept = db.execute("DELETE FROM answers WHERE corrected IS NOT NULL AND at <= ?", (at - self._kept_s,)).rowcount
        return waited + kept

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """The one connection of this process; after any fault but a full file a new one is made."""
        with self._lock:
            try:
                if self._db is None or self._process != os.getpid():
                    self._db, self._process = self._connected(), os.getpid()
                yield self._db
                self._complaint = ""
            except (sqlite3.Error, OSError, ValueError) as error:
                if not _is_full(error):
                    self._drop()
                if str(error) != self._complaint:
                    self._complaint = str(error)
                    log.error("feedback: %s: %s; see QAIO_FEEDBACK_FILE and QAIO_FEEDBACK_MAX_MB", self._file, error)
                raise FeedbackUnavailable() from error

    def _connected(self) -> sqlite3.Connection:
        self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with suppress(FileExistsError):  # it holds what people wrote
            os.close(os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        db = sqlite3.connect(self._file, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "secure_delete = ON"):
                db.execute(f"PRAGMA {pragma}").fetchall()
            db.execute("BEGIN IMMEDIATE")
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version == 0:
                for statement in filter(None, map(str.strip, _SCHEMA.split(";"))):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {_VERSION}")
            db.execute("COMMIT")
            if version not in (0, _VERSION):
                raise sqlite3.DatabaseError(f"tables of version {version}, which this release does not know")
            (page_bytes,) = db.execute("PRAGMA page_size").fetchone()
            db.execute(f"PRAGMA max_page_count = {self._max_mb * 1_000_000 // page_bytes}").fetchall()
        except BaseException:
            db.close()
            raise
        return db

    def _drop(self) -> None:
        if self._db is not None and self._process == os.getpid():
            with suppress(sqlite3.Error):
                self._db.close()
        self._db = None


_COLUMNS = "request, task, inputs, label, probability, version, at"


def _answer(row: tuple[object, ...]) -> LabelAnswer:
    request, task, inputs, label, probability, version, at = row[:7]
    given = {str(name): str(value) for name, value in json.loads(str(inputs)).items()}
    likely = float(str(probability)) if probability is not None else None
    return LabelAnswer(str(request), str(task), given, str(label), likely, str(version), float(str(at)))


def _is_full(error: Exception) -> bool:
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL


def _owner(owner: str | None) -> str:
    """No caller's name can read like the absence of one."""
    return "-" if owner is None else f"={owner}"
