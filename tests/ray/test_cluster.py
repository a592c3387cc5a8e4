"""The feedback desk on a cluster of two nodes: the same files as one process writes, through kills; no row twice or lost.

`make test-ray`; the full proof: `make test-ray ROWS=20000 KILLS=20`.
"""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import threading
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from qwen_allinone import desk
from qwen_allinone.errors import DataFileError
from tests.support.known_clerk import hire, known

pytest.importorskip("ray", reason="Ray is not installed: make test-ray")
# Ray leaves sockets and processes to its own cleaning up, and forks beside threads.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(3600)]

MADE = datetime(2026, 9, 1)


def table_of(file: Path) -> desk.Table:
    return desk.open_table([file], desk.Columns())


def about(table: desk.Table, model: desk.ModelInfo) -> desk.About:
    return desk.About(("a",), model.model, table.chosen, dict(model.tasks), 0.95, MADE)


def written(file: Path, rows: int) -> list[str]:
    texts = [f"第{n}条{'坏' * (n % 3 == 0)}{'不想活' * (n % 50 == 9)}" for n in range(rows)]
    if file.suffix == ".csv":
        lines = (f"{n},{text}" if n % 40 else f'{n},"{text}\n第二行"' for n, text in enumerate(texts))
        file.write_text("编号,评论\n" + "\n".join(lines) + "\n", "utf-8")
    elif file.suffix == ".jsonl":
        odd = {7: "\ud800好"}  # a lone surrogate, which Arrow does not know
        lines = (json.dumps({"编号": f"00{n}", "评论": odd.get(n, text)}) for n, text in enumerate(texts))
        file.write_text("\n".join(lines) + "\n", "utf-8")
    else:
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.table({"编号": list(range(rows)), "评论": texts}), file)
    return texts


def alone(file: Path, folder: Path) -> dict[str, bytes]:
    """What one process makes of the file."""
    table, clerk = table_of(file), known()
    folder.mkdir()
    with desk.Journal(folder / "journal.jsonl", {}, resume=False) as journal:
        desk.label(table, clerk, desk.TASKS, journal, sure=0.95, at_once=4, on_done=lambda: None)
        desk.write(folder, table, journal, about(table, clerk))
    return contents(folder)


def together(
    cluster: Any, file: Path, folder: Path, resume: bool = False, on_done: Any = lambda: None
) -> dict[str, bytes]:
    """What the cluster makes of it."""
    table = table_of(file)
    folder.mkdir(exist_ok=True)
    with desk.Journal(folder / "journal.jsonl", {}, resume=resume) as journal:
        cluster.label(table, desk.TASKS, journal, sure=0.95, on_done=on_done)
        desk.write(folder, table, journal, about(table, cluster.about))
    return contents(folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        name: (folder / name).read_bytes() for name in ("journal.jsonl", "labelled.csv", "alerts.csv", "report.html")
    }


def join(address: str, notes: Path, pause_s: float = 0.0, **given: Any) -> Any:
    from qwen_allinone.desk.cluster import Cluster

    return Cluster(partial(hire, notes, pause_s), address=address, part_rows=16, **given)  # type: ignore[arg-type]


def test_two_nodes_write_the_same_files_as_one_process_from_every_kind_of_file(
    address: str, tmp_path: Path, notes: Path
) -> None:
    with join(address, notes) as cluster:
        assert (cluster.actors, cluster.machines) == (2, 2)
        for name in ("a.csv", "a.jsonl", "a.parquet"):
            file = tmp_path / name
            written(file, 100)
            assert together(cluster, file, tmp_path / f"{name}-ray") == alone(file, tmp_path / f"{name}-alone"), name
    assert len(list(notes.iterdir())) >= 3, "the process that told the model, and actors in processes of their own"


def test_actors_killed_at_random_cost_time_and_no_row(
    address: str, tmp_path: Path, notes: Path, rows: int, kills: int
) -> None:
    file = tmp_path / "a.csv"
    written(file, rows)
    killed: list[int] = []
    over = threading.Event()

    def kill() -> None:
        """An actor that has begun, and was not killed yet; the next once answers go on."""
        while not over.is_set() and len(killed) < kills:
            over.wait(random.uniform(0.5, 3))
            alive = [int(note.name) for note in notes.iterdir() if int(note.name) not in killed]
            for pid in random.sample(alive, min(1, len(alive))):
                if Path(f"/proc/{pid}").exists() and done[0]:
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
                    done[0] = 0

    done = [0]

    def count() -> None:
        done[0] += 1

    thread = threading.Thread(target=kill)
    with join(address, notes, 0.01) as cluster:
        for note in notes.iterdir():
            note.unlink()  # the process that told the model has ended
        thread.start()
        try:
            got = together(cluster, file, tmp_path / "ray", on_done=count)
        finally:
            over.set()
            thread.join()
    assert killed and (len(killed) == kills or rows < 1000)
    assert got == alone(file, tmp_path / "alone")


def test_a_run_that_is_broken_off_goes_on_with_either_engine(address: str, tmp_path: Path, notes: Path) -> None:
    file = tmp_path / "a.csv"
    written(file, 200)
    seen: list[int] = []

    def stop() -> None:
        seen.append(1)
        if len(seen) == 40:
            raise KeyboardInterrupt

    with join(address, notes) as cluster:
        with pytest.raises(KeyboardInterrupt):
            together(cluster, file, tmp_path / "ray", on_done=stop)
        table = table_of(file)
        with desk.Journal(tmp_path / "ray" / "journal.jsonl", {}, resume=True) as journal:
            assert 40 <= journal.done < 200
            with pytest.raises(KeyboardInterrupt):
                desk.label(table, known(), desk.TASKS, journal, sure=0.95, at_once=4, on_done=stop_at_once)
        assert together(cluster, file, tmp_path / "ray", resume=True) == alone(file, tmp_path / "alone")


def stop_at_once() -> None:
    raise KeyboardInterrupt


def test_what_a_model_says_is_wrong_is_told_and_what_is_done_stays(address: str, tmp_path: Path, notes: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("评论\n" + "好\n" * 40 + "没有模型\n" + "好\n" * 40, "utf-8")
    with join(address, notes) as cluster, pytest.raises(DataFileError, match="the model is gone"):
        together(cluster, file, tmp_path / "ray")
    with desk.Journal(tmp_path / "ray" / "journal.jsonl", {}, resume=True) as journal:
        assert journal.done == 32, "whole parts before the one that failed"


def test_a_cluster_without_room_and_one_that_is_not_there_are_told(address: str, tmp_path: Path, notes: Path) -> None:
    with pytest.raises(DataFileError, match="1, 1 CPUs: room for 0 actors of 2"):
        join(address, notes, actor_cpus=2)
    with pytest.raises(DataFileError, match="nobody answers at --address 127.0.0.1:9 "):
        join("127.0.0.1:9", notes)
    with pytest.raises(DataFileError, match="write HOST:PORT"):
        join(f"ray://{address}", notes)


def read(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8-sig", newline="") as opened:
        return list(csv.DictReader(opened))


def test_the_command_on_the_demo_model_writes_the_same_with_and_without_ray(
    address: str, demo_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from qwen_allinone.cli import app

    monkeypatch.setenv("QAIO_MODEL", "demo")
    monkeypatch.setenv("QAIO_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    # Without a folder: it is not the one of the cluster's processes.
    (tmp_path / "a.csv").write_bytes((Path(desk.__file__).parent / "sample.csv").read_bytes())
    for folder, engine in (("ray", ("--engine", "ray", "--address", address)), ("alone", ())):
        result = CliRunner().invoke(app, ["feedback", "a.csv", "--out", folder, *engine])
        assert result.exit_code == 0, result.output
    for name in ("journal.jsonl", "labelled.csv", "alerts.csv"):
        assert (tmp_path / "ray" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes(), name
    assert len(read(tmp_path / "ray" / "labelled.csv")) == 40
