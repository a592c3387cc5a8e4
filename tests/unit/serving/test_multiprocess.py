"""Workers' numbers and the folder they share their metrics in."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qwen_allinone.serving import multiprocess
from qwen_allinone.telemetry.metrics import Share

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
PROJECT = Path(__file__).resolve().parents[3]


@pytest.fixture
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(multiprocess, "_held", [])
    monkeypatch.setattr(multiprocess, "_worker", None)
    yield tmp_path
    multiprocess.remove_folder()
    for fd in multiprocess._held:
        os.close(fd)


def test_a_new_worker_takes_the_lowest_number_that_is_free() -> None:
    assert multiprocess.free_number([]) == 1
    assert multiprocess.free_number([1, 2]) == 3
    assert multiprocess.free_number([3, 1]) == 2


def test_the_folder_is_empty_private_and_gone_in_the_end(parent: Path) -> None:
    multiprocess.make_folder([parent / "absent", parent])
    folder = Path(os.environ[VARIABLE])
    assert folder.parent == parent and not list(folder.iterdir())
    assert folder.stat().st_mode & 0o777 == 0o700
    multiprocess.remove_folder()
    assert not folder.exists() and os.environ.get(VARIABLE) is None


def test_without_any_folder_each_worker_is_on_its_own(parent: Path, caplog: pytest.LogCaptureFixture) -> None:
    multiprocess.make_folder([parent / "absent"])
    multiprocess.become(1)
    assert (multiprocess.metrics_share(), os.environ.get(VARIABLE)) == (None, None)
    assert "one worker at a time" in caplog.text
    multiprocess.forget(1)
    multiprocess.remove_folder()


def test_a_killed_master_s_folder_is_removed_by_the_next_and_a_living_one_s_is_not(parent: Path) -> None:
    program = f"""
import os, signal, sys
from pathlib import Path
from qwen_allinone.serving import multiprocess
multiprocess.make_folder([Path({str(parent)!r})])
print(os.environ[{VARIABLE!r}], flush=True)
sys.stdin.read()
"""
    other = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=PROJECT
    )
    try:
        assert other.stdout and other.stdin
        theirs = Path(other.stdout.readline().decode().strip())
        multiprocess.make_folder([parent])
        assert theirs.exists()
    finally:
        other.kill()
        other.communicate(timeout=30)
    multiprocess.remove_folder()
    assert theirs.exists()
    multiprocess.make_folder([parent])
    assert not theirs.exists() and Path(os.environ[VARIABLE]).exists()


def test_forgetting_a_worker_drops_its_gauges_and_keeps_its_counters(parent: Path) -> None:
    multiprocess.make_folder([parent])
    folder = Path(os.environ[VARIABLE])
    for number in (1, 12):
        multiprocess.become(number)
        assert multiprocess.metrics_share() == Share(number, str(folder))
    multiprocess.forget(1)
    left = sorted(file.name for file in folder.iterdir())
    assert left == [
        "counter_1.db",
        "counter_12.db",
        "gauge_liveall_12.db",
        "gauge_livesum_12.db",
        "histogram_1.db",
        "histogram_12.db",
    ]


def test_room_is_taken_in_advance_so_that_no_write_can_find_the_disk_full(parent: Path) -> None:
    multiprocess.make_folder([parent])
    multiprocess.become(1)
    multiprocess.metrics_share()
    for file in Path(os.environ[VARIABLE]).iterdir():
        assert file.stat().st_blocks * 512 >= file.stat().st_size > 0


def test_a_folder_without_room_leaves_the_worker_on_its_own(
    parent: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    multiprocess.make_folder([parent])
    multiprocess.become(1)
    monkeypatch.setattr(multiprocess, "_RESERVED", {"counter": 1 << 60})
    assert multiprocess.metrics_share() is None
    assert "no room for shared metrics" in caplog.text
