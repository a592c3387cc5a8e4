"""The spool: nothing is lost by a kill, nothing is gone before it is taken in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from qwen_allinone.alerts import Spool

PROJECT = Path(__file__).resolve().parents[3]
_CHILD = """
import sys, pathlib, os, signal
from qwen_allinone.alerts.spool import Spool
spool = Spool(pathlib.Path(sys.argv[1]))
assert spool.put(b"one\\n") and spool.put(b"two\\n")
os.write(spool._fd, b"half")
print("put", flush=True)
signal.pause()
"""


def test_what_is_taken_is_gone_only_when_that_ended_well(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    assert spool.put(b"one\n")
    with pytest.raises(OSError), spool.taken() as lines:
        assert lines == [b"one\n"]
        raise OSError("the outbox is full")
    assert spool.put(b"two\n")
    with spool.taken() as lines:
        assert lines == [b"one\n", b"two\n"]
        assert spool.put(b"three\n"), "meanwhile requests go on"
    with spool.taken() as lines:
        assert lines == [b"three\n"]
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_taken_up_and_what_a_living_one_has_is_not(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(tmp_path)], stdout=subprocess.PIPE, cwd=PROJECT, env={**os.environ}
    )
    assert child.stdout and child.stdout.readline() == b"put\n"
    spool = Spool(tmp_path)
    assert spool.put(b"mine\n")
    with spool.left_by_others() as lines:
        assert lines == []
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    with pytest.raises(OSError), spool.left_by_others() as lines:
        raise OSError("the outbox is locked")
    with spool.left_by_others() as lines:
        assert lines == [b"one\n", b"two\n"], "half a line is no event"
    with spool.left_by_others() as lines:
        assert lines == []
    with spool.taken() as lines:
        assert lines == [b"mine\n"]


def test_a_spool_that_is_full_says_so_and_has_room_again_when_it_is_emptied(tmp_path: Path) -> None:
    spool = Spool(tmp_path, most_bytes=10)
    assert spool.put(b"12345678\n") and not spool.put(b"12\n")
    with spool.taken():
        pass
    assert spool.put(b"12\n")


def test_where_no_file_can_be_written_events_wait_in_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    spool = Spool(tmp_path / "file")
    assert spool.put(b"one\n")
    with spool.taken() as lines:
        assert lines == [b"one\n"]
    with spool.taken() as lines:
        assert lines == []
