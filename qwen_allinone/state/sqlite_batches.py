"""Batches and their lines, in the SQLite file of their files.

A worker holds the lines that it works on. A hold ends by itself: with its process, or after the longest time a line may
take. An answer is kept together with its line's being done, and only by who holds the line: so each is answered once.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from qwen_allinone.errors import BatchesFull, BatchesUnavailable, BatchNotFound, BatchOver, InvalidInput
from qwen_allinone.state.batches import (
    MOST_ERRORS,
    TIMES,
    WINDOW_S,
    Batch,
    Draft,
    HeldLine,
    InputLine,
    LineProblem,
    Status,
)
from qwen_allinone.state.conversations import now
from qwen_allinone.state.lease import Lease, is_dead
from qwen_allinone.state.sqlite_batch_files import IS_OPEN, PART_BYTES, UNASKED, SqliteBatchFiles, dumped
from qwen_allinone.wording import said

# What a Batch is made of, by its own names.
_COLUMNS = (
    "id", "endpoint", "input_file_id", "status", "created", "expires", "total", "completed", "failed", "metadata",
    "errors", "output_file_id", "error_file_id", *TIMES,
)  # fmt: skip
_BATCH = ", ".join(_COLUMNS)
# How a line ends that was never asked.
_CANCELLED = ("batch_cancelled", said("batch_line_cancelled"))
_EXPIRED = ("batch_expired", said("batch_line_expired"))


class SqliteBatches(SqliteBatchFiles):
    """The batches. `owner` is the caller's name, None where no keys are asked for; to others a batch does not exist."""

    def create_batch(
        self,
        owner: str | None,
        file: str,
        endpoint: str,
        metadata: dict[str, str] | None = None,
        output_keep_s: float | None = None,
    ) -> Batch:
        """A batch that is to be worked off, on an uploaded file.

        Raises:
            BatchFileNotFound, BatchesUnavailable. InvalidInput: a file that is an output.
            BatchesFull: this owner has as many open batches, lines in them or bytes as one may.
        """
        at, id, who = now(), f"batch_{secrets.token_hex(12)}", owner or ""
        with self._writing() as db:
            purpose, lines = self._found(db, owner, file, "purpose, lines")
            if purpose != "batch":
                raise InvalidInput(said("batch_input"), param="input_file_id")
            self._check_open(db, who, lines)
            self._check_bytes(db, who, 0)
            db.execute(
                "INSERT INTO batches (id, owner, input_file_id, endpoint, status, created, expires, metadata,"
                " output_keep_s, lines) VALUES (?, ?, ?, ?, 'validating', ?, ?, ?, ?, ?)",
                (
                    id, who, file, endpoint, at, at + WINDOW_S, None if metadata is None else dumped(metadata),
                    min(output_keep_s or self._keep_s, self._keep_s), lines,
                ),
            )  # fmt: skip
            return _batch(db.execute(f"SELECT {_BATCH} FROM batches WHERE id = ?", (id,)).fetchone())

    def batch(self, owner: str | None, id: str) -> Batch:
        """Raises BatchNotFound, BatchesUnavailable."""
        with self._connection() as db:
            return _batch(self._batch_row(db, owner, id, _BATCH))

    def batches(self, owner: str | None, *, limit: int, after: str | None) -> tuple[list[Batch], bool]:
        """Some of the owner's batches, the newest first, and whether there are more.

        Raises:
            BatchNotFound: there is none that is called `after`. BatchesUnavailable.
        """
        with self._connection() as db:
            below = self._batch_row(db, owner, after, "n")[0] if after is not None else 2**62
            rows = db.execute(
                f"SELECT {_BATCH} FROM batches WHERE owner = ? AND n < ? ORDER BY n DESC LIMIT ?",
                (owner or "", below, limit + 1),
            ).fetchall()
        return [_batch(row) for row in rows[:limit]], len(rows) > limit

    def cancel(self, owner: str | None, id: str) -> Batch:
        """Have no further line of it begun.

        Raises:
            BatchNotFound, BatchesUnavailable. BatchOver: it has ended.
        """
        with self._writing(spare=True) as db:
            status = self._batch_row(db, owner, id, "status")[0]
            if status in ("validating", "in_progress"):
                db.execute("UPDATE batches SET status = 'cancelling', cancelling_at = ? WHERE id = ?", (now(), id))
            elif status != "cancelling":
                raise BatchOver(status)
            return _batch(self._batch_row(db, owner, id, _BATCH))

    def draft(self, lease: Lease) -> Draft | None:
        """Hold a batch whose file is to be looked through; None: there is none."""
        at = now()
        with self._connection() as db:
            rows = db.execute("SELECT id, holder, until FROM batches WHERE status = 'validating' ORDER BY n").fetchall()
        for id, holder, until in rows:
            if not _is_free(holder, until, at, lease):
                continue
            with self._writing() as db:
                row = db.execute(
                    "UPDATE batches SET holder = ?, until = ? WHERE id = ? AND holder IS ? AND status = 'validating'"
                    " RETURNING owner, endpoint, input_file_id",
                    (lease.token, at + lease.seconds, id, holder),
                ).fetchone()
            if row:
                self._delete_some("lines", "batch = ?", (id,))  # of one who was killed in the middle
                return Draft(id, row[0] or None, row[1], row[2], lease.token)
        return None

    def add_lines(self, draft: Draft, lines: Sequence[InputLine], lease: Lease) -> bool:
        """Keep some lines of a batch that is looked through; False: it was cancelled, or is another's by now."""
        with self._writing() as db:
            if not self._renew(db, draft, lease):
                return False
            db.executemany(
                "INSERT INTO lines (batch, number, custom_id, start, length) VALUES (?, ?, ?, ?, ?)",
                [(draft.id, line.number, line.custom_id, line.start, line.length) for line in lines],
            )
            return True

    def renew(self, draft: Draft, lease: Lease) -> bool:
        """Hold a batch that is looked through for longer; False: it was cancelled, or is another's by now."""
        with self._writing() as db:
            return self._renew(db, draft, lease)

    def begin(self, draft: Draft, total: int) -> None:
        """Its file is in order and all its lines are kept: from here on they are worked off."""
        with self._writing() as db:
            db.execute(
                "UPDATE batches SET status = 'in_progress', in_progress_at = ?, total = ?, lines = ?, holder = NULL"
                " WHERE id = ? AND holder = ? AND status = 'validating'",
                (now(), total, total, draft.id, draft.token),
            )

    def fail(self, draft: Draft, problems: Sequence[LineProblem]) -> None:
        """Its file is at fault: none of its lines are asked."""
        told = [vars(problem) for problem in problems[:MOST_ERRORS]]
        with self._writing(spare=True) as db:
            db.execute(
                "UPDATE batches SET status = 'failed', failed_at = ?, errors = ?, holder = NULL"
                " WHERE id = ? AND holder = ? AND status = 'validating'",
                (now(), dumped(told), draft.id, draft.token),
            )
        self._delete_some("lines", "batch = ?", (draft.id,))

    def take(self, lease: Lease, most: int) -> list[HeldLine]:
        """Hold up to `most` lines of one batch that wait; owners take turns, and of one owner his batches."""
        self._free_dead(lease)
        at = now()
        with self._connection() as db:  # most looks find nothing, and should keep nobody from writing
            waiting = (
                "status = 'in_progress' AND expires > ? AND EXISTS (SELECT 1 FROM lines WHERE lines.batch = b.id"
                " AND done = 0 AND holder IS NULL)"
            )
            found = db.execute(
                f"SELECT id FROM batches b WHERE {waiting} ORDER BY"
                " (SELECT max(served) FROM batches WHERE owner = b.owner), served, n LIMIT 1",
                (at,),
            ).fetchone()
        if found is None:
            return []
        with self._writing() as db:
            row = db.execute(
                "UPDATE batches SET served = ? WHERE id = ? AND status = 'in_progress'"
                " RETURNING owner, endpoint, input_file_id",
                (at, found[0]),
            ).fetchone()
            if row is None:  # cancelled since
                return []
            owner, endpoint, file = row
            held = db.execute(
                "UPDATE lines SET holder = ?, until = ?, tries = tries + 1 WHERE rowid IN (SELECT rowid FROM lines"
                " WHERE batch = ? AND done = 0 AND holder IS NULL ORDER BY number LIMIT ?)"
                " RETURNING number, custom_id, start, length, tries",
                (lease.token, at + lease.seconds, found[0], most),
            ).fetchall()
            return [
                HeldLine(
                    found[0], number, custom_id, owner or None, endpoint, _cut_out(db, file, start, length), tries,
                    lease.token,
                )
                for number, custom_id, start, length, tries in sorted(held)
            ]  # fmt: skip

    def finish(self, line: HeldLine, answer: bytes, *, good: bool) -> bool:
        """Keep the answer of a line that is held: a line of a file, without its end.

        False: it is not kept. The line is held by another by now, who answers it; or its owner has as many bytes as one
        may, and the batch ends with what it has.
        """
        size = len(answer) + 1
        with self._writing() as db:
            if self._taken(db, line.owner or "") + size <= self.quota.owner_mb * 1_000_000:
                return self._keep(db, line, answer, size, good)
        self._stop_full(line)
        return False

    def _keep(self, db: sqlite3.Connection, line: HeldLine, answer: bytes, size: int, good: bool) -> bool:
        found = db.execute(
            "UPDATE lines SET done = 1, good = ?, answer = ?, holder = NULL"
            " WHERE batch = ? AND number = ? AND holder = ? AND done = 0",
            (good, answer, line.batch, line.number, line.token),
        )
        if not found.rowcount:
            return False
        count, size_of = ("completed", "good_bytes") if good else ("failed", "bad_bytes")
        left = db.execute(
            f"UPDATE batches SET {count} = {count} + 1, {size_of} = {size_of} + ? WHERE id = ?"
            " RETURNING total - completed - failed, status",
            (size, line.batch),
        ).fetchone()
        if left == (0, "in_progress"):
            self._end(db, line.batch, "completed")
        return True

    def _stop_full(self, line: HeldLine) -> None:
        """Have no further line of its batch begun: its owner's files leave no room for answers."""
        problem = LineProblem("batches_full", said("batch_line_full", owner_mb=self.quota.owner_mb))
        with self._writing(spare=True) as db:
            db.execute(
                "UPDATE lines SET holder = NULL WHERE batch = ? AND number = ? AND holder = ?",
                (line.batch, line.number, line.token),
            )
            stopped = db.execute(
                "UPDATE batches SET status = 'cancelling', cancelling_at = ?, errors = ?"
                " WHERE id = ? AND status = 'in_progress'",
                (now(), dumped([vars(problem)]), line.batch),
            )
            if stopped.rowcount:
                db.execute("INSERT INTO unasked VALUES (?, ?, ?)", (line.batch, problem.code, problem.message))

    def give_back(self, line: HeldLine, *, tried: bool) -> None:
        """Let others answer a line that is held; `tried`: it may be the line's fault that it was not."""
        with self._writing(spare=True) as db:
            db.execute(
                "UPDATE lines SET holder = NULL, tries = tries - ? WHERE batch = ? AND number = ? AND holder = ?",
                (not tried, line.batch, line.number, line.token),
            )

    def settle(self, lease: Lease) -> None:
        """End batches that were cancelled or whose time is over, as soon as nobody holds a line of theirs."""
        at = now()
        due = f"(status = 'cancelling' OR (expires <= ? AND {IS_OPEN}))"
        with self._connection() as db:
            if not db.execute(f"SELECT 1 FROM batches WHERE {due}", (at,)).fetchone():
                return
        self._free_dead(lease)
        ripe = (
            f"{due} AND NOT EXISTS (SELECT 1 FROM lines WHERE lines.batch = b.id AND done = 0 AND holder IS NOT NULL)"
        )
        with self._connection() as db:
            found = db.execute(f"SELECT id FROM batches b WHERE {ripe} ORDER BY n", (at,)).fetchall()
        for (id,) in found:
            # Where one cannot be ended, which was logged, others are.
            with suppress(BatchesUnavailable), self._writing(spare=True) as db:
                row = db.execute(
                    f"SELECT status, in_progress_at FROM batches b WHERE {ripe} AND id = ?", (at, id)
                ).fetchone()
                if row:
                    self._end_early(db, id, *row)

    def _end_early(self, db: sqlite3.Connection, id: str, status: str, began: float | None) -> None:
        if began is None:  # its lines were still being kept
            db.execute("DELETE FROM lines WHERE batch = ?", (id,))
        cancelled = status == "cancelling"
        self._end_unasked(db, id, *(_CANCELLED if cancelled else _EXPIRED))
        self._end(db, id, "cancelled" if cancelled else "expired")

    def _end_unasked(self, db: sqlite3.Connection, id: str, code: str, message: str) -> None:
        """Lines that were not asked say so in the error file. Why stands there once: there may be no room for more."""
        db.execute("INSERT OR IGNORE INTO unasked VALUES (?, ?, ?)", (id, code, message))
        (size,) = db.execute(
            f"SELECT coalesce(sum(length({UNASKED}) + 1), 0) FROM lines JOIN unasked USING (batch)"
            " WHERE lines.batch = ? AND done = 0",
            (id,),
        ).fetchone()
        db.execute("UPDATE lines SET done = 1, good = 0 WHERE batch = ? AND done = 0", (id,))
        db.execute("UPDATE batches SET failed = total - completed, bad_bytes = bad_bytes + ? WHERE id = ?", (size, id))

    def _end(self, db: sqlite3.Connection, id: str, status: Status) -> None:
        """Make the files of a batch's answers, of which they are made: nothing is copied, and the batch is over."""
        owner, keep_s, completed, failed, good_bytes, bad_bytes = db.execute(
            "SELECT owner, output_keep_s, completed, failed, good_bytes, bad_bytes FROM batches WHERE id = ?", (id,)
        ).fetchone()
        at = now()
        for good, kind, lines, size in ((1, "output", completed, good_bytes), (0, "error", failed, bad_bytes)):
            if lines:
                made = f"file-{secrets.token_hex(12)}"
                db.execute(
                    "INSERT INTO files (id, owner, purpose, filename, bytes, lines, created, expires, is_whole, batch,"
                    " good) VALUES (?, ?, 'batch_output', ?, ?, ?, ?, ?, 1, ?, ?)",
                    (made, owner, f"{id}_{kind}.jsonl", size, lines, at, at + keep_s, id, good),
                )
                db.execute(f"UPDATE batches SET {kind}_file_id = ? WHERE id = ?", (made, id))
        over = "finalizing_at = ?, " if status == "completed" else ""
        db.execute(
            f"UPDATE batches SET status = ?, {over}{status}_at = ?, holder = NULL WHERE id = ?",
            (status, *([at] if over else []), at, id),
        )

    def _free_dead(self, lease: Lease) -> None:
        """Give back what is held by processes that are gone, or for longer than a line can take."""
        at = now()
        with self._connection() as db:
            held = db.execute("SELECT DISTINCT holder, until FROM lines WHERE holder IS NOT NULL").fetchall()
        gone = {holder for holder, until in held if _is_free(holder, until, at, lease)}
        for holder in gone:
            with self._writing(spare=True) as db:
                db.execute("UPDATE lines SET holder = NULL WHERE holder = ? AND done = 0", (holder,))

    def _renew(self, db: sqlite3.Connection, draft: Draft, lease: Lease) -> bool:
        found = db.execute(
            "UPDATE batches SET until = ? WHERE id = ? AND holder = ? AND status = 'validating'",
            (now() + lease.seconds, draft.id, draft.token),
        )
        return found.rowcount > 0

    def _check_open(self, db: sqlite3.Connection, owner: str, lines: int) -> None:
        count, waiting = db.execute(
            f"SELECT count(*), coalesce(sum(lines - completed - failed), 0) FROM batches WHERE owner = ? AND {IS_OPEN}",
            (owner,),
        ).fetchone()
        if count >= self.quota.owner_open:
            raise BatchesFull(said("batches_open", count=count, owner_open=self.quota.owner_open))
        if waiting + lines > self.quota.owner_lines:
            raise BatchesFull(said("batches_lines", waiting=waiting, lines=lines, owner_lines=self.quota.owner_lines))

    def _batch_row(self, db: sqlite3.Connection, owner: str | None, id: str, columns: str) -> tuple[Any, ...]:
        row: tuple[Any, ...] | None = db.execute(
            f"SELECT {columns} FROM batches WHERE id = ? AND owner = ?", (id, owner or "")
        ).fetchone()
        if row is None:
            raise BatchNotFound()
        return row


def _is_free(holder: str | None, until: float | None, at: float, lease: Lease) -> bool:
    """Whether nobody alive holds it. A hold that ends later than any can is of a clock that was set back since."""
    return holder is None or until is None or not at < until <= at + lease.longest_s or is_dead(holder)


def _cut_out(db: sqlite3.Connection, file: str, start: int, length: int) -> bytes:
    """Some bytes of an uploaded file."""
    first, last = start // PART_BYTES, (start + length - 1) // PART_BYTES
    rows = db.execute(
        "SELECT content FROM parts WHERE file = ? AND number BETWEEN ? AND ? ORDER BY number", (file, first, last)
    )
    content = b"".join(row[0] for row in rows)
    return content[start - first * PART_BYTES :][:length]


def _batch(row: tuple[Any, ...]) -> Batch:
    fields: dict[str, Any] = dict(zip(_COLUMNS, row, strict=True))
    times = {name: at for name in TIMES if (at := fields.pop(name)) is not None}
    metadata, errors = fields.pop("metadata"), json.loads(fields.pop("errors"))
    return Batch(
        **fields,
        metadata=None if metadata is None else json.loads(metadata),
        errors=tuple(LineProblem(**problem) for problem in errors),
        times=times,
    )
