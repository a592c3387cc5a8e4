"""Cores are counted by affinity and cgroup quota, not by what the machine has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qwen_allinone import cpu
from qwen_allinone.cpu import available_cores, compute_threads


@pytest.mark.parametrize(
    ("content", "cores"),
    [("max 100000\n", None), ("200000 100000\n", 2.0), ("150000 100000\n", 1.5), ("50000 100000", 0.5), ("", None), ("garbage", None), ("a b\n", None)],
)  # fmt: skip
def test_cgroup_v2_quota(tmp_path: Path, content: str, cores: float | None) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(content)
    assert cpu._quota(file, tmp_path / "none") == cores


@pytest.mark.parametrize(
    ("quota", "period", "cores"), [("-1\n", "100000\n", None), ("400000\n", "100000\n", 4.0), ("x", "100000", None), ("1", None, None)]
)  # fmt: skip
def test_cgroup_v1_quota(tmp_path: Path, quota: str, period: str | None, cores: float | None) -> None:
    (tmp_path / "cpu.cfs_quota_us").write_text(quota)
    if period is not None:
        (tmp_path / "cpu.cfs_period_us").write_text(period)
    assert cpu._quota(tmp_path / "none", tmp_path) == cores


def test_without_a_cgroup_there_is_no_quota(tmp_path: Path) -> None:
    assert cpu._quota(tmp_path / "none", tmp_path / "none") is None


@pytest.mark.parametrize(("affinity", "quota", "cores"), [(8, None, 8.0), (8, 2.5, 2.5), (2, 4.0, 2.0), (1, 0.5, 0.5)])
def test_the_smaller_of_affinity_and_quota_counts(
    monkeypatch: pytest.MonkeyPatch, affinity: int, quota: float | None, cores: float
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(affinity)))
    monkeypatch.setattr(cpu, "_quota", lambda: quota)
    assert available_cores() == cores


@pytest.mark.parametrize(
    ("asked", "workers", "cores", "threads"),
    [(0, 1, 8.0, 8), (0, 2, 8.0, 4), (0, 3, 8.0, 2), (0, 4, 2.0, 1), (0, 1, 0.5, 1), (0, 1, 2.9, 2), (5, 3, 2.0, 5)],
)
def test_threads_are_an_equal_share_unless_asked_for(
    monkeypatch: pytest.MonkeyPatch, asked: int, workers: int, cores: float, threads: int
) -> None:
    monkeypatch.setattr(cpu, "available_cores", lambda: cores)
    assert compute_threads(asked, workers) == threads
