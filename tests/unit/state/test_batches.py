"""What the store of batches promises: files whole or not there, each line answered once, ends that are told, quotas."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qwen_allinone.errors import (
    BatchesFull,
    BatchesUnavailable,
    BatchFileInUse,
    BatchFileNotFound,
    BatchNotFound,
    BatchOver,
    InvalidInput,
    PayloadTooLarge,
)
from qwen_allinone.state import (
    Batch,
    HeldLine,
    InputLine,
    LineProblem,
    Quota,
    SqliteBatches,
    sqlite_batch_files,
    sqlite_batches,
)
from qwen_allinone.state.lease import Lease
from tests.support.clock import Clock

TASK = "/v1/tasks/sentiment"
DAY = 86_400.0
SMALL = Quota(file_mb=1, owner_mb=2, owner_lines=100, owner_open=2)

Make = Callable[..., SqliteBatches]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(sqlite_batches, "now", clock)
    monkeypatch.setattr(sqlite_batch_files, "now", clock)
    return clock


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "batches.db"


@pytest.fixture
def make(file: Path) -> Iterator[Make]:
    opened: list[SqliteBatches] = []

    def made(quota: Quota = SMALL, max_mb: int = 100, erase_every_s: float = 0.0, **more: float) -> SqliteBatches:
        given = {"max_mb": max_mb, "busy_s": 20.0, "erase_every_s": erase_every_s} | more
        opened.append(SqliteBatches(file, quota=quota, **given))  # type: ignore[arg-type]
        return opened[-1]

    yield made
    for store in opened:
        store.close()


def lease(seconds: float = 60.0) -> Lease:
    return Lease.take(seconds, 100.0)


def text_of(count: int, pad: int = 0) -> bytes:
    return "".join(f'{{"n": {n}, "text": "很好{"x" * pad}"}}\n' for n in range(count)).encode()


def upload(store: SqliteBatches, content: bytes, owner: str | None = "alice") -> str:
    lines = len(content.splitlines())
    return store.add_file(owner, "in.jsonl", len(content), lines, [content], None).id


def lines_of(content: bytes) -> list[InputLine]:
    found, at = [], 0
    for number, raw in enumerate(content.splitlines(), start=1):
        found.append(InputLine(number, f"row-{number}", at, len(raw)))
        at += len(raw) + 1
    return found


def begun(store: SqliteBatches, count: int = 3, owner: str | None = "alice", pad: int = 0) -> Batch:
    """A batch of `count` lines that is worked off."""
    content = text_of(count, pad)
    batch = store.create_batch(owner, upload(store, content, owner), TASK)
    draft = store.draft(held := lease())
    assert draft and draft.id == batch.id and draft.owner == owner
    assert store.add_lines(draft, lines_of(content), held)
    store.begin(draft, count)
    return store.batch(owner, batch.id)


def answer(line: HeldLine) -> bytes:
    return json.dumps({"custom_id": line.custom_id, "answer": line.raw.decode()}, ensure_ascii=False).encode()


def output(store: SqliteBatches, batch: Batch, owner: str | None = "alice") -> list[str]:
    """The ids in a batch's output, in its order."""
    if batch.output_file_id is None:
        return []
    content = b"".join(store.content(owner, batch.output_file_id))
    assert len(content) == store.file(owner, batch.output_file_id).bytes
    return [json.loads(line)["custom_id"] for line in content.splitlines()]


def test_a_file_comes_back_byte_for_byte_however_it_arrives(make: Make) -> None:
    store, content = make(), os.urandom(300_001)
    blocks = [content[:1], content[1:100_000], content[100_000:]]
    kept = store.add_file("alice", "a.jsonl", len(content), 7, blocks, None)
    assert b"".join(store.content("alice", kept.id)) == content
    assert store.file("alice", kept.id) == kept
    assert (kept.filename, kept.bytes, kept.lines, kept.purpose) == ("a.jsonl", 300_001, 7, "batch")


def test_nobody_finds_another_owners_file_or_batch(make: Make) -> None:
    store = make()
    batch = begun(store)
    for stranger in ("bob", None):
        for look in (store.file, store.content, store.delete_file):
            with pytest.raises(BatchFileNotFound):
                look(stranger, batch.input_file_id)
        for ask in (store.batch, store.cancel):
            with pytest.raises(BatchNotFound):
                ask(stranger, batch.id)
        with pytest.raises(BatchFileNotFound):
            store.create_batch(stranger, batch.input_file_id, TASK)
        assert store.batches(stranger, limit=10, after=None) == ([], False)
        found = store.files(stranger, purpose=None, limit=10, after=None, newest_first=True)
        assert found == ([], False)


def test_an_upload_that_breaks_off_leaves_nothing(make: Make, file: Path) -> None:
    def blocks() -> Iterator[bytes]:
        yield b"a" * 3_000_000
        raise OSError("the client has left")

    store = make(Quota(file_mb=10, owner_mb=10))
    with pytest.raises(OSError):
        store.add_file("alice", "a.jsonl", 4_000_000, 1, blocks(), None)
    assert store.files("alice", purpose=None, limit=10, after=None, newest_first=True) == ([], False)
    with sqlite3.connect(file) as db:
        assert db.execute("SELECT count(*) FROM parts").fetchone() == (0,)
    upload(store, b"b" * 9_000_000)  # its bytes are free again


def test_each_line_is_held_once_and_its_text_is_what_was_uploaded(make: Make) -> None:
    store, other = make(), make()
    batch = begun(store, 50, pad=3000)  # over several parts, some lines across their ends
    content = text_of(50, 3000).splitlines()
    held = store.take(lease(), 30) + other.take(lease(), 30)
    assert [line.number for line in held] == list(range(1, 51))
    assert [line.raw for line in held] == content
    assert store.take(lease(), 1) == []
    assert {line.batch for line in held} == {batch.id}


def test_answers_come_in_the_order_of_the_file_and_failures_in_a_file_of_their_own(make: Make) -> None:
    store = make()
    batch = begun(store, 4)
    for line in reversed(store.take(lease(), 4)):
        assert store.finish(line, answer(line), good=line.number != 2)
    batch = store.batch("alice", batch.id)
    assert (batch.status, batch.total, batch.completed, batch.failed) == ("completed", 4, 3, 1)
    assert output(store, batch) == ["row-1", "row-3", "row-4"]
    assert batch.error_file_id
    assert b'"row-2"' in b"".join(store.content("alice", batch.error_file_id))
    assert batch.times.keys() == {"in_progress_at", "finalizing_at", "completed_at"}


def test_who_has_lost_a_line_cannot_answer_it_too(make: Make, clock: Clock) -> None:
    store = make()
    begun(store, 1)
    (slow,) = store.take(lease(60), 1)
    assert store.take(lease(), 1) == []
    clock.now += 61
    (fast,) = store.take(lease(), 1)
    assert fast.tries == 2
    assert not store.finish(slow, b"late", good=True)
    assert store.finish(fast, answer(fast), good=True)
    assert not store.finish(fast, answer(fast), good=True)


def test_a_line_that_is_given_back_is_anothers_at_once(make: Make) -> None:
    store = make()
    begun(store, 1)
    (line,) = store.take(lease(), 1)
    store.give_back(line, tried=False)
    (line,) = store.take(lease(), 1)
    assert line.tries == 1
    store.give_back(line, tried=True)
    (line,) = store.take(lease(), 1)
    assert line.tries == 2


def _die_holding(file: Path, most: int) -> None:
    store = SqliteBatches(file, quota=SMALL)
    held = store.take(lease(), most)
    store.finish(held[0], answer(held[0]), good=True)
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_killed_process_held_is_free_at_once(make: Make, file: Path) -> None:
    store = make()
    batch = begun(store, 9)
    store.close()
    dying = multiprocessing.get_context("spawn").Process(target=_die_holding, args=(file, 5))
    dying.start()
    dying.join(60)
    assert dying.exitcode == -signal.SIGKILL
    for line in store.take(lease(), 9):
        assert store.finish(line, answer(line), good=True)
    assert output(store, store.batch("alice", batch.id)) == [f"row-{n}" for n in range(1, 10)]


def _work_off(file: Path) -> None:
    store = SqliteBatches(file, quota=SMALL, busy_s=20.0)
    ends = time.monotonic() + 30
    while time.monotonic() < ends:
        held = store.take(lease(), 2)
        for line in held:
            time.sleep(0.01)
            store.finish(line, answer(line), good=True)


def test_no_line_is_lost_or_doubled_while_processes_are_killed(make: Make, file: Path) -> None:
    store = make()
    batch = begun(store, 100)
    store.close()
    spawn, kills = multiprocessing.get_context("spawn"), 0
    working = [spawn.Process(target=_work_off, args=(file,)) for _ in range(2)]
    for process in working:
        process.start()
    ends = time.monotonic() + 120
    done = 0
    try:
        while store.batch("alice", batch.id).status == "in_progress":
            assert time.monotonic() < ends
            time.sleep(0.05)
            if kills < 3 and (now := store.batch("alice", batch.id).completed) >= done + 15:
                done, kills = now, kills + 1
                victim = working.pop(0)
                victim.kill()
                victim.join(10)
                working.append(spawn.Process(target=_work_off, args=(file,)))
                working[-1].start()
    finally:
        for process in working:
            process.kill()
            process.join(10)
    assert kills == 3
    batch = store.batch("alice", batch.id)
    assert (batch.completed, batch.failed) == (100, 0)
    assert output(store, batch) == [f"row-{n}" for n in range(1, 101)]


def test_a_cancelled_batch_begins_nothing_more_and_says_what_was_not_asked(make: Make) -> None:
    store = make()
    batch = begun(store, 3)
    (line,) = store.take(lease(), 1)
    assert store.cancel("alice", batch.id).status == "cancelling"
    assert store.cancel("alice", batch.id).status == "cancelling"
    assert store.take(lease(), 5) == []
    store.settle(lease())
    assert store.batch("alice", batch.id).status == "cancelling"  # one is still in hand
    assert store.finish(line, answer(line), good=True)
    store.settle(lease())
    batch = store.batch("alice", batch.id)
    assert (batch.status, batch.completed, batch.failed) == ("cancelled", 1, 2)
    assert output(store, batch) == ["row-1"]
    assert batch.error_file_id
    content = b"".join(store.content("alice", batch.error_file_id))
    assert len(content) == store.file("alice", batch.error_file_id).bytes
    told = [json.loads(one) for one in content.splitlines()]
    assert [(one["custom_id"], one["response"], one["error"]["code"]) for one in told] == [
        ("row-2", None, "batch_cancelled"),
        ("row-3", None, "batch_cancelled"),
    ]
    with pytest.raises(BatchOver):
        store.cancel("alice", batch.id)


def test_a_batch_that_is_cancelled_while_it_is_looked_through_ends_without_lines(make: Make) -> None:
    store, content = make(), text_of(3)
    batch = store.create_batch("alice", upload(store, content), TASK)
    draft = store.draft(held := lease())
    assert draft and store.add_lines(draft, lines_of(content)[:1], held)
    store.cancel("alice", batch.id)
    assert not store.add_lines(draft, lines_of(content)[1:], held)
    store.begin(draft, 3)
    store.settle(lease())
    batch = store.batch("alice", batch.id)
    assert (batch.status, batch.total, batch.output_file_id, batch.error_file_id) == ("cancelled", 0, None, None)


def test_a_batch_expires_after_a_day_with_what_was_answered_until_then(make: Make, clock: Clock) -> None:
    store = make()
    batch = begun(store, 2)
    (line,) = store.take(lease(), 1)
    store.finish(line, answer(line), good=True)
    clock.now += DAY
    assert store.take(lease(), 1) == []
    store.settle(lease())
    batch = store.batch("alice", batch.id)
    assert (batch.status, batch.completed, batch.failed) == ("expired", 1, 1)
    assert batch.times["expired_at"] == clock.now
    assert output(store, batch) == ["row-1"]
    assert batch.error_file_id and b"batch_expired" in b"".join(store.content("alice", batch.error_file_id))


def test_a_file_that_is_at_fault_fails_its_batch_and_names_the_lines(make: Make) -> None:
    store, content = make(), text_of(2)
    batch = store.create_batch("alice", upload(store, content), TASK)
    draft = store.draft(held := lease())
    assert draft and store.add_lines(draft, lines_of(content)[:1], held)
    problem = LineProblem("invalid_json_line", "不是 JSON", 2, None)
    store.fail(draft, [problem])
    batch = store.batch("alice", batch.id)
    assert (batch.status, batch.errors) == ("failed", (problem,))
    assert store.take(lease(), 5) == []


def test_whoever_looks_through_a_file_and_dies_is_followed_by_another(make: Make, clock: Clock) -> None:
    store, content = make(), text_of(3)
    batch = store.create_batch("alice", upload(store, content), TASK)
    first = store.draft(held := lease(60))
    assert first and store.add_lines(first, lines_of(content)[:2], held)
    assert store.draft(lease()) is None
    clock.now += 61
    second = store.draft(held_by_second := lease())
    assert second and not store.add_lines(first, lines_of(content)[2:], held)
    assert store.add_lines(second, lines_of(content), held_by_second)
    store.begin(second, 3)
    assert [line.number for line in store.take(lease(), 5)] == [1, 2, 3]
    assert store.batch("alice", batch.id).total == 3


def test_owners_take_turns(make: Make, clock: Clock) -> None:
    store = make()
    for owner in ("alice", "alice", "bob"):
        begun(store, 5, owner)
    turns = []
    for _ in range(6):
        clock.now += 1
        (line,) = store.take(lease(), 1)
        turns.append(line.owner)
    assert turns.count("bob") == 3


def test_quotas_of_an_owner_are_no_others(make: Make) -> None:
    store = make()
    with pytest.raises(PayloadTooLarge, match="1 MB"):
        upload(store, b"a" * 1_000_001)
    with pytest.raises(PayloadTooLarge, match="101 行"):
        upload(store, b"a\n" * 101)
    first = upload(store, b"a" * 999_000)
    upload(store, b"a" * 999_000)
    with pytest.raises(BatchesFull, match="2 MB"):
        upload(store, b"a" * 10_000)
    upload(store, b"a" * 999_000, "bob")
    store.delete_file("alice", first)
    begun(store, 60)
    with pytest.raises(BatchesFull, match="100 行"):
        store.create_batch("alice", upload(store, text_of(41)), TASK)
    begun(store, 40)
    with pytest.raises(BatchesFull, match="2 个"):
        store.create_batch("alice", upload(store, text_of(1)), TASK)
    begun(store, 60, "bob")


def test_a_file_that_is_worked_on_cannot_be_deleted_and_an_output_is_no_input(make: Make) -> None:
    store = make()
    batch = begun(store, 1)
    with pytest.raises(BatchFileInUse, match=batch.id):
        store.delete_file("alice", batch.input_file_id)
    (line,) = store.take(lease(), 1)
    store.finish(line, answer(line), good=True)
    batch = store.batch("alice", batch.id)
    assert batch.output_file_id
    with pytest.raises(InvalidInput):
        store.create_batch("alice", batch.output_file_id, TASK)
    store.delete_file("alice", batch.input_file_id)
    assert output(store, batch) == ["row-1"]  # the answers have nothing to do with it


def test_what_is_deleted_is_in_no_byte_of_the_folder(make: Make, file: Path) -> None:
    store = make()
    batch = begun(store, 40, pad=30)
    for line in store.take(lease(), 40):
        store.finish(line, answer(line), good=line.number % 2 == 0)
    batch = store.batch("alice", batch.id)
    for id in (batch.input_file_id, batch.output_file_id, batch.error_file_id):
        assert id
        store.delete_file("alice", id)
    store.erase()
    held = b"".join(path.read_bytes() for path in file.parent.iterdir())
    assert "很好".encode() not in held and b"row-" not in held
    assert store.batch("alice", batch.id).completed == 20  # what was counted is still known


def test_files_and_batches_are_forgotten_when_their_time_is_over(make: Make, clock: Clock) -> None:
    store = make(keep_days=2)
    short = store.add_file("alice", "a", 2, 1, [b"a\n"], 3600.0)
    batch = begun(store, 1)
    clock.now += 3601
    with pytest.raises(BatchFileNotFound):
        store.file("alice", short.id)
    (line,) = store.take(lease(), 1)
    store.finish(line, answer(line), good=True)
    clock.now += 4 * DAY
    store.drop_expired()
    with pytest.raises(BatchNotFound):
        store.batch("alice", batch.id)
    upload(store, b"a" * 999_000)


def test_lists_go_on_where_they_ended(make: Make) -> None:
    store = make(Quota(owner_open=10))
    made = [begun(store, 1).id for _ in range(5)]
    first, more = store.batches("alice", limit=3, after=None)
    assert [batch.id for batch in first] == made[:1:-1] and more
    rest, more = store.batches("alice", limit=3, after=first[-1].id)
    assert [batch.id for batch in rest] == made[1::-1] and not more
    old, more = store.files("alice", purpose="batch", limit=4, after=None, newest_first=False)
    last, over = store.files("alice", purpose="batch", limit=4, after=old[-1].id, newest_first=False)
    assert (len(old), more, len(last), over) == (4, True, 1, False)
    assert store.files("alice", purpose="batch_output", limit=4, after=None, newest_first=True) == ([], False)


def test_a_full_file_refuses_what_is_new_and_loses_nothing(make: Make, file: Path) -> None:
    store = make(Quota(file_mb=10, owner_mb=100), max_mb=1)
    batch = begun(store, 2)
    held = store.take(lease(), 2)
    with pytest.raises(BatchesUnavailable):
        store.add_file("alice", "b", 3_000_000, 1, [b"b" * 3_000_000], None)
    with pytest.raises(BatchesUnavailable):
        store.finish(held[0], b"c" * 3_000_000, good=True)
    for line in held:
        assert store.finish(line, answer(line), good=True)
    assert output(store, store.batch("alice", batch.id)) == ["row-1", "row-2"]
    with sqlite3.connect(file) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def filled(store: SqliteBatches, owner: str) -> list[str]:
    """Uploads until the shared file has no room for another page."""
    made = []
    for size in (100_000, 10_000, 1000, 1):
        with pytest.raises(BatchesUnavailable):
            while True:
                made.append(store.add_file(owner, "full", size, 1, [b"x" * size], None).id)
    return made


def told(store: SqliteBatches, owner: str, file: str | None) -> list[dict[str, Any]]:
    assert file
    content = b"".join(store.content(owner, file))
    assert len(content) == store.file(owner, file).bytes
    return [json.loads(line) for line in content.splitlines()]


def test_answers_beyond_what_an_owner_may_have_end_his_batch_and_say_why(make: Make) -> None:
    store = make()
    batch = begun(store, 6)
    first, second, *others = store.take(lease(), 4)
    assert store.finish(first, b"a" * 1_500_000, good=True)
    assert not store.finish(second, b"b" * 1_500_000, good=True)  # of his 2 MB
    assert store.batch("alice", batch.id).status == "cancelling" and store.take(lease(), 9) == []
    assert store.finish(others[0], answer(others[0]), good=True)  # in hand, and there is room for it
    assert not store.finish(others[1], b"d" * 1_500_000, good=True)
    store.settle(lease())
    batch = store.batch("alice", batch.id)
    assert (batch.status, batch.completed, batch.failed) == ("cancelled", 2, 4)
    assert [(one.code, one.line) for one in batch.errors] == [("batches_full", None)]
    lines = told(store, "alice", batch.error_file_id)
    assert [one["custom_id"] for one in lines] == ["row-2", "row-4", "row-5", "row-6"]
    assert {one["error"]["code"] for one in lines} == {"batches_full"} and "2 MB" in lines[0]["error"]["message"]
    assert len({one["id"] for one in lines}) == 4
    for line in bob_lines(store):  # his are no others'
        assert store.finish(line, b"e" * 1_000_000, good=True)
    assert batch.output_file_id
    store.delete_file("alice", batch.output_file_id)
    begun(store, 1)


def bob_lines(store: SqliteBatches) -> list[HeldLine]:
    begun(store, 1, "bob")
    return store.take(lease(), 1)


@pytest.mark.parametrize("how", ["cancelled", "expired"])
def test_a_batch_ends_where_the_file_is_full_and_the_file_can_be_emptied(make: Make, clock: Clock, how: str) -> None:
    store = make(Quota(file_mb=10, owner_mb=100, owner_lines=10_000), max_mb=4)
    batch = begun(store, 5000)
    (line,) = store.take(lease(), 1)
    store.finish(line, answer(line), good=True)
    late, content = "validating", text_of(3)
    waiting = store.create_batch("bob", upload(store, content, "bob"), TASK)
    others = filled(store, "carol")
    pages = size_of(store)
    if how == "cancelled":
        store.cancel("alice", batch.id)
        store.cancel("bob", waiting.id)
    else:
        clock.now += DAY
    store.settle(lease())
    assert store.batch("bob", waiting.id).status == how != late
    batch = store.batch("alice", batch.id)
    assert (batch.status, batch.completed, batch.failed) == (how, 1, 4999)
    lines = told(store, "alice", batch.error_file_id)
    assert [one["custom_id"] for one in lines] == [f"row-{n}" for n in range(2, 5001)]
    assert {one["error"]["code"] for one in lines} == {f"batch_{how}"} and len({one["id"] for one in lines}) == 4999
    assert size_of(store) - pages < 1_000_000  # its index is larger, its text is not written for each line
    for id in others:
        store.delete_file("carol", id)
    store.erase()
    assert size_of(store) < 4_000_000
    filled(store, "carol")
    assert size_of(store) <= 4_000_000  # what was taken beyond is nobody's to fill


def size_of(store: SqliteBatches) -> int:
    with store._connection() as db:
        return int(db.execute("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size").fetchone()[0])


def unused(store: SqliteBatches) -> int:
    """Pages that hold nothing: none in a file that was written anew."""
    with store._connection() as db:
        return int(db.execute("PRAGMA freelist_count").fetchone()[0])


def test_whoever_deletes_again_and_again_has_the_file_written_anew_once_in_a_while(make: Make, clock: Clock) -> None:
    store = make(Quota(), erase_every_s=10.0)
    store.delete_file("alice", upload(store, b"a" * 900_000))
    assert unused(store) == 0
    for _ in range(3):
        store.delete_file("alice", upload(store, b"b" * 900_000))
    store.erase()
    assert unused(store) > 200
    clock.now += 11
    make(erase_every_s=10.0).erase()  # another worker
    assert unused(store) == 0
    with store._connection() as db:
        db.execute("UPDATE batch_erasing SET took = 3")
    store.delete_file("alice", upload(store, b"c" * 900_000))
    clock.now += 29
    store.erase()
    assert unused(store) > 200
    clock.now += 2
    store.erase()
    assert unused(store) == 0


def test_what_is_erased_while_a_file_is_deleted_pays_for_none_of_the_rest(
    make: Make, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = make(Quota(), erase_every_s=10.0), make(erase_every_s=10.0)
    file = upload(store, b"a" * 9_000_000)
    monkeypatch.setattr(sqlite_batch_files, "_ROWS_AT_ONCE", 10)
    delete_some = store._delete_some

    def interrupted(*given: Any) -> None:
        other.erase()  # the file is hidden and its deletion owed, its rows are there
        delete_some(*given)

    monkeypatch.setattr(store, "_delete_some", interrupted)
    store.delete_file("alice", file)
    clock.now += 11
    other.erase()
    assert unused(store) == 0


def test_a_file_of_an_older_version_gets_its_new_tables_and_what_is_owed_is_erased(make: Make, file: Path) -> None:
    store = make(erase_every_s=1e9)
    batch = begun(store, 2)
    with store._connection() as db:
        db.execute("DROP TABLE unasked")
        db.execute("DROP TABLE batch_erasing")
        db.execute("DELETE FROM parts")
        db.execute("INSERT INTO parts VALUES ('x', 0, ?)", (b"x" * 65_536,))
        db.execute("DELETE FROM parts")
        db.execute("INSERT OR REPLACE INTO chores VALUES ('erase', 1.0)")
    store.close()
    store = make()
    assert unused(store) > 0
    store.erase()
    assert unused(store) == 0
    store.cancel("alice", batch.id)
    store.settle(lease())
    assert len(told(store, "alice", store.batch("alice", batch.id).error_file_id)) == 2
