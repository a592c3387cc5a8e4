"""Cores and memory are what this process may use, not what the machine has."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest

from qwen_allinone import host
from qwen_allinone.host import available_cores, compute_threads, memory_limit, resident_bytes


@pytest.mark.parametrize(
    ("content", "cores"),
    [("max 100000\n", None), ("200000 100000\n", 2.0), ("150000 100000\n", 1.5), ("50000 100000", 0.5), ("", None), ("garbage", None), ("a b\n", None)],
)  # fmt: skip
def test_cgroup_v2_quota(tmp_path: Path, content: str, cores: float | None) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(content)
    assert host._cpu_quota(file, tmp_path / "none") == cores


@pytest.mark.parametrize(
    ("quota", "period", "cores"), [("-1\n", "100000\n", None), ("400000\n", "100000\n", 4.0), ("x", "100000", None), ("1", None, None)]
)  # fmt: skip
def test_cgroup_v1_quota(tmp_path: Path, quota: str, period: str | None, cores: float | None) -> None:
    (tmp_path / "cpu.cfs_quota_us").write_text(quota)
    if period is not None:
        (tmp_path / "cpu.cfs_period_us").write_text(period)
    assert host._cpu_quota(tmp_path / "none", tmp_path) == cores


def test_without_a_cgroup_there_is_no_quota(tmp_path: Path) -> None:
    assert host._cpu_quota(tmp_path / "none", tmp_path / "none") is None


@pytest.mark.parametrize(("affinity", "quota", "cores"), [(8, None, 8.0), (8, 2.5, 2.5), (2, 4.0, 2.0), (1, 0.5, 0.5)])
def test_the_smaller_of_affinity_and_quota_counts(
    monkeypatch: pytest.MonkeyPatch, affinity: int, quota: float | None, cores: float
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(affinity)))
    monkeypatch.setattr(host, "_cpu_quota", lambda: quota)
    assert available_cores() == cores


@pytest.mark.parametrize(
    ("asked", "workers", "cores", "threads"),
    [(0, 1, 8.0, 8), (0, 2, 8.0, 4), (0, 3, 8.0, 2), (0, 4, 2.0, 1), (0, 1, 0.5, 1), (0, 1, 2.9, 2), (5, 3, 2.0, 5)],
)
def test_threads_are_an_equal_share_unless_asked_for(
    monkeypatch: pytest.MonkeyPatch, asked: int, workers: int, cores: float, threads: int
) -> None:
    monkeypatch.setattr(host, "available_cores", lambda: cores)
    assert compute_threads(asked, workers) == threads


def test_the_memory_limit_is_the_smaller_of_cgroup_and_machine(tmp_path: Path) -> None:
    machine = memory_limit([])
    limited, unlimited = tmp_path / "limited", tmp_path / "unlimited"
    limited.write_text("1000000\n")
    unlimited.write_text("max\n")
    assert memory_limit([limited]) == 1_000_000
    assert memory_limit([unlimited, tmp_path / "absent"]) == machine


def test_a_process_that_takes_memory_is_seen_to_have_it() -> None:
    before = resident_bytes()
    with mmap.mmap(-1, 40_000_000) as block:  # of its own: a heap may have as much to spare
        block.write(b"x" * 40_000_000)
        assert resident_bytes() - before > 30_000_000
