"""The audit log: whole lines, from several processes, over many rotations, and none lost in silence."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import stat
from pathlib import Path

import pytest

from qwen_allinone.errors import SettingsError
from qwen_allinone.telemetry.audit import AuditFile, AuditLog, audit_line, check
from qwen_allinone.telemetry.records import AnswerRecord, RequestRecord

LINES = 3000
COST = AnswerRecord("sentiment", "正面", "label", 20, 10, 1, 0.1, 0.2, 0.3, None)
FINISHED = RequestRecord("abc-1", "POST", "/chat", 200, 0.5, caller="shop", address="10.0.0.9", answers=(COST,))


def all_lines(path: Path) -> list[str]:
    """The lines of the file and its predecessors, oldest first."""
    numbers = [int(p.name.rsplit(".", 1)[1]) for p in path.parent.glob(f"{path.name}.*")]
    files = [path.with_name(f"{path.name}.{n}") for n in sorted(numbers, reverse=True)] + [path]
    return [line for file in files for line in file.read_text().splitlines()]


def write_many(path: Path, writer: int, start: object) -> None:
    file = AuditFile(path, max_bytes=2000, keep=1000)
    start.wait(60)  # type: ignore[attr-defined]
    for number in range(LINES):
        file.append(b"%d:%05d:%s\n" % (writer, number, b"x" * (number % 50)))


def test_two_processes_lose_and_tear_nothing_over_many_rotations(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    context = multiprocessing.get_context("spawn")
    start = context.Event()
    writers = [context.Process(target=write_many, args=(path, writer, start)) for writer in (0, 1)]
    for writer in writers:
        writer.start()
    start.set()
    for writer in writers:
        writer.join(100)
        assert writer.exitcode == 0
    lines = all_lines(path)
    assert len(list(tmp_path.iterdir())) > 50, "hardly a rotation: nothing was tested"
    assert all(file.stat().st_size <= 2000 for file in tmp_path.iterdir())
    for writer in (0, 1):
        mine = [line for line in lines if line.startswith(f"{writer}:")]
        assert mine == [f"{writer}:{number:05d}:{'x' * (number % 50)}" for number in range(LINES)]
    changes = sum(a[0] != b[0] for a, b in zip(lines, lines[1:], strict=False))
    assert changes > 2, "one after the other: nothing was tested"


def test_only_as_many_old_files_are_kept_as_asked(tmp_path: Path) -> None:
    file = AuditFile(tmp_path / "audit", max_bytes=10, keep=2)
    for number in range(6):
        file.append(b"line %04d\n" % number)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["audit", "audit.1", "audit.2"]
    assert all_lines(tmp_path / "audit") == ["line 0003", "line 0004", "line 0005"]


def test_the_file_is_for_its_owner_and_group_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        file = AuditFile(tmp_path / "audit", max_bytes=10, keep=2)
        file.append(b"line 1\n")
        file.append(b"line 2\n")
    finally:
        os.umask(before)
    assert [stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()] == [0o640, 0o640]


def test_a_file_that_was_moved_or_deleted_is_begun_anew(tmp_path: Path) -> None:
    file = AuditFile(tmp_path / "audit", max_bytes=1000, keep=2)
    file.append(b"a\n")
    (tmp_path / "audit").rename(tmp_path / "elsewhere")
    file.append(b"b\n")
    assert (tmp_path / "elsewhere").read_text() == "a\n"
    (tmp_path / "audit").unlink()
    file.append(b"c\n")
    assert (tmp_path / "audit").read_text() == "c\n"


def test_a_line_that_only_fits_in_part_leaves_nothing(tmp_path: Path) -> None:
    """A limit on the file's size stands in for a disk with room for half a line."""
    import resource
    import signal

    file = AuditFile(tmp_path / "audit", max_bytes=10_000, keep=2)
    file.append(b"a" * 99 + b"\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150, hard))
    try:
        with pytest.raises(OSError):
            file.append(b"b" * 99 + b"\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert (tmp_path / "audit").read_bytes() == b"a" * 99 + b"\n"
    file.append(b"c\n")
    assert all_lines(tmp_path / "audit") == ["a" * 99, "c"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is where every write finds the disk full")
def test_a_full_disk_is_counted_and_complained_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "audit").symlink_to("/dev/full")
    audit = AuditLog(AuditFile(tmp_path / "audit", max_bytes=1000, keep=2))
    with caplog.at_level(logging.ERROR):
        for _ in range(20):
            audit.write(FINISHED)
        assert audit.flush(30)
    assert audit.lost == 20
    assert caplog.text.count("audit log cannot be written") == 1
    assert "No space left" in caplog.text


def test_a_line_says_who_what_and_when() -> None:
    line = json.loads(audit_line(FINISHED, 1_800_000_000.5))
    assert line == {
        "time": "2027-01-15T08:00:00.500Z",
        "address": "10.0.0.9",
        "request_id": "abc-1",
        "caller": "shop",
        "method": "POST",
        "route": "/chat",
        "task": "sentiment",
        "status": 200,
        "code": None,
        "prompt_tokens": 20,
        "generated_tokens": 1,
    }


def test_a_line_never_holds_text_even_where_the_log_may() -> None:
    finished = RequestRecord("abc-1", "POST", "/chat", 200, 0.5, text={"inputs": {"text": "hunter2"}})
    assert b"hunter2" not in audit_line(finished, 0.0)


def test_a_file_that_cannot_be_stops_the_start(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing" / "audit", tmp_path):
        with pytest.raises(SettingsError, match="QAIO_AUDIT_FILE=.*cannot be written"):
            check(path)
    with pytest.raises(SettingsError, match="absolute path"):
        check(Path("audit"))
    check(tmp_path / "audit")
    check(tmp_path / "audit")
    if Path("/dev/full").exists():
        check(Path("/dev/full"))
