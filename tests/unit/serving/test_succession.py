"""A reload as Gunicorn's master makes it, with a master that only counts: who is started, who is told to leave, when."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from qwen_allinone.errors import TaskFileError
from qwen_allinone.serving import succession
from qwen_allinone.serving.succession import Succession, ask_to_reload
from qwen_allinone.settings import Settings
from tests.support.tasks import PROJECT


@dataclass
class Worker:
    pid: int
    age: int
    is_ready: bool = False
    retires: bool = False
    is_heir: bool = False


class Master:
    """As much of Gunicorn's Arbiter as there is to a reload."""

    worker_class = Worker

    def __init__(self, workers: int) -> None:
        self.num_workers = workers
        self.worker_age = 0
        self.WORKERS: dict[int, Worker] = {}
        self.fewest_ready = 0
        self.most = 0
        self._pids = count(100)

    def manage_workers(self) -> None:
        while len(self.WORKERS) < self.num_workers:
            self.worker_age += 1
            worker = Worker(next(self._pids), self.worker_age)
            self.WORKERS[worker.pid] = worker
        assert len(self.WORKERS) <= self.num_workers, "Gunicorn would pick who leaves"

    def kill_worker(self, pid: int, signal: int) -> None:
        assert self.WORKERS[pid].retires

    def reload(self) -> None:
        raise AssertionError("Gunicorn's own is not to be used")

    def turn(self) -> None:
        """Who was told to leave is gone, one of the others becomes ready, and the loop goes round."""
        self.WORKERS = {pid: worker for pid, worker in self.WORKERS.items() if not worker.retires}
        self.fewest_ready = min(self.fewest_ready, sum(worker.is_ready for worker in self.WORKERS.values()))
        self.manage_workers()
        self.most = max(self.most, len(self.WORKERS))
        for worker in self.WORKERS.values():
            if not worker.is_ready:
                worker.is_ready = True
                break


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(succession, "_in_force", None)
    prompts = Path(shutil.copytree(PROJECT / "prompts", tmp_path / "prompts"))
    return Settings(prompts=prompts, prompts_kept=tmp_path / "kept", prompts_may_lose=1.0)


Serving = Callable[[int], tuple[Master, Succession]]


@pytest.fixture
def serving(settings: Settings) -> Iterator[Serving]:
    """Starts a master all of whose workers are ready."""
    begun: list[Succession] = []

    def start(workers: int) -> tuple[Master, Succession]:
        master = Master(workers)
        begun.append(Succession(master, settings, lambda: None))
        begun[-1].begin()
        for _ in range(workers + 1):
            master.turn()
        master.fewest_ready, master.most = workers, workers
        return master, begun[-1]

    yield start
    for made in begun:
        made.end()


def change(settings: Settings, words: str = "更多") -> None:
    with (settings.prompts / "chat" / "prompt.md").open("a", encoding="utf-8") as file:
        file.write(words)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_all_workers_are_replaced_and_never_are_fewer_ready_or_more_than_one_too_many(
    settings: Settings, serving: Serving, workers: int
) -> None:
    master, _ = serving(workers)
    old = set(master.WORKERS)
    change(settings)
    master.reload()
    for _ in range(3 * workers + 1):
        master.turn()
    assert len(master.WORKERS) == master.num_workers == workers
    assert not old & set(master.WORKERS)
    assert (master.fewest_ready, master.most) == (workers, workers + 1)


def test_a_reload_amid_another_ends_the_newcomers_first_and_never_those_who_serve(
    settings: Settings, serving: Serving
) -> None:
    master, _ = serving(2)
    master.reload()
    master.manage_workers()
    newcomer = max(master.WORKERS)
    change(settings)
    master.reload()
    master.manage_workers()
    assert [pid for pid, worker in master.WORKERS.items() if worker.retires] == [newcomer]
    for _ in range(9):
        master.turn()
    assert len(master.WORKERS) == 2 and min(master.WORKERS) > newcomer
    assert master.fewest_ready == 2


def test_workers_that_never_became_ready_give_way_at_once(serving: Serving) -> None:
    master, _ = serving(2)
    for worker in master.WORKERS.values():
        worker.is_ready = False
    master.reload()
    master.manage_workers()
    assert sum(worker.retires for worker in master.WORKERS.values()) == 1


def test_where_something_is_at_fault_nobody_is_replaced(
    settings: Settings, serving: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    master, made = serving(1)
    there = dict(master.WORKERS)

    def broken() -> None:
        raise TaskFileError(Path("x/prompt.md"), "key", "is broken", "mend it")

    made._check = broken
    master.reload()
    master.turn()
    assert "not reloaded" in caplog.text and "mend it" in caplog.text
    assert there == master.WORKERS


def test_prompts_that_cannot_be_copied_are_served_where_they_lie(
    settings: Settings, serving: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    settings.prompts_kept.write_text("a file where a folder is wanted")
    master, _ = serving(1)
    assert "QAIO_PROMPTS_KEPT" in caplog.text
    assert succession.prompts_in_force(settings) == settings.prompts
    old = set(master.WORKERS)
    change(settings)
    master.reload()
    for _ in range(4):
        master.turn()
    assert not old & set(master.WORKERS)


def test_a_worker_reads_the_copy_and_not_what_is_edited(settings: Settings, serving: Serving) -> None:
    master, made = serving(1)
    first = succession.prompts_in_force(settings)
    change(settings)
    assert succession.prompts_in_force(settings) == first != settings.prompts
    master.reload()
    assert succession.prompts_in_force(settings) not in (first, settings.prompts)


def test_without_a_service_nobody_is_asked_to_reload(settings: Settings) -> None:
    assert ask_to_reload(settings.prompts_kept) is None
