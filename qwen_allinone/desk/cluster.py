"""The feedback desk on many machines, with Ray: Ray Data reads the rows, actors that hold a model each answer them,
and this process writes the answers into the journal, in the order of the rows.

The journal is the checkpoint. A row is in it once or not at all, whichever machine answered it and however often: an
actor that dies has its part asked again, and this process goes on behind the last row that the journal holds.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from threading import Event
from typing import Any, Self, TypeVar

# Before Ray is imported: nothing about a run is told to anybody.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import pyarrow
import ray
from ray.data import ActorPoolStrategy, DataContext, Datasource, ReadTask
from ray.data.block import BlockMetadata
from ray.exceptions import RayError

from qwen_allinone.desk.asking import Clerk, ModelInfo, answer
from qwen_allinone.desk.journal import Answers, Journal, answers_of
from qwen_allinone.desk.labelling import Tell
from qwen_allinone.desk.table import Table
from qwen_allinone.errors import DataFileError, QaioError
from qwen_allinone.wording import message_of, said

PART_ROWS = 128  # what an actor is given at a time, and what its death costs
_PARTS_AT_ONCE = 2  # by an actor, so that the end of one part leaves no slot empty
_TRIES = 8  # of a part after its first, when its actor dies; one that kills it each time must not be asked for ever
_STARTS = 10  # of an actor that dies while it loads its model, before the run is given up
_HELD_BYTES = 256_000_000  # of rows and answers on their way


@dataclass(frozen=True)
class Hired:
    """A clerk in a process of the cluster. `identity`: what must be equal of all, so that they answer alike."""

    clerk: Clerk
    at_once: int
    identity: str


T = TypeVar("T")

# Called in other processes, so it must be picklable; raises QaioError where there is no model.
Hire = Callable[[], Hired]


class Cluster:
    """Machines that answer together; holds the connection while it is used as a context."""

    def __init__(
        self, hire: Hire, *, address: str = "", actors: int = 0, actor_cpus: int = 1, part_rows: int = PART_ROWS
    ) -> None:
        """Join the cluster at `address` (empty: processes of this machine alone) and have one process tell its model.
        `actors`: models in all; 0: as many as there are CPUs for, `actor_cpus` to each.

        Raises:
            DataFileError: there is no cluster, not CPUs enough, or no model there.
        """
        self._hire, self._actor_cpus, self._part_rows = hire, actor_cpus, part_rows
        _join(address)
        try:
            self.actors, self.machines = _fitting(actors, actor_cpus)
            describe = ray.remote(num_cpus=actor_cpus, max_calls=1)(_describe)  # its process ends, and frees the model
            self.about, self._identity = _told(lambda: ray.get(describe.remote(hire)))
        except BaseException:
            ray.shutdown()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        ray.shutdown()

    def label(
        self,
        table: Table,
        tasks: Sequence[str],
        journal: Journal,
        *,
        sure: float,
        on_done: Callable[[], None],
        tell: Tell | None = None,
    ) -> None:
        """Go on behind the last row that is done. `tell` hears of each row before it counts as done.

        However it ends, all that is done up to there is on the disk.

        Raises:
            DataFileError: a file cannot be read, a model does not answer, the cluster breaks, or the disk is full.
        """
        if next(islice(table.rows(), journal.done, None), None) is None:
            return
        _set_up(DataContext.get_current())
        parts = ray.data.read_datasource(
            _Parts(table, journal.done, self._part_rows), num_cpus=0, override_num_blocks=1
        )
        answered = parts.map_batches(
            _Labeller,
            fn_constructor_args=(self._hire, self._identity, tuple(tasks), sure),
            batch_size=1,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(
                size=self.actors, max_concurrent_calls_per_actor=_PARTS_AT_ONCE, enable_true_multi_threading=True
            ),
            num_cpus=self._actor_cpus,
            max_restarts=-1,
            max_task_retries=_TRIES,
        )
        try:
            _told(lambda: _take(answered, table, journal, on_done, tell))
        finally:
            journal.flush()


def _take(answered: Any, table: Table, journal: Journal, on_done: Callable[[], None], tell: Tell | None) -> None:
    rows = islice(table.rows(), journal.done, None)  # read again here where somebody is to be told of them
    for block in answered.iter_batches(batch_size=1, batch_format="pyarrow", prefetch_batches=0):
        for part in block.to_pylist():
            if part["first"] != journal.done:  # never: but a row lost or doubled must not go unseen
                raise DataFileError(said("row_out_of_order", row=part["first"], done=journal.done))
            if problem := json.loads(part["problem"]):
                raise DataFileError(problem)
            for entry in json.loads(part["answers"]):
                answers = answers_of(entry)
                if tell:
                    tell(next(rows), answers)
                journal.add(answers)
                on_done()


class _Parts(Datasource):  # type: ignore[misc]
    """The rows of a table from `done` on, read once through by one task; each block is one part.

    One row of Arrow's is one part, as JSON: Arrow knows no lone surrogates, which JSON files may hold.
    """

    def __init__(self, table: Table, done: int, part_rows: int) -> None:
        super().__init__()
        self._table, self._done, self._part_rows = table, done, part_rows

    @property
    def supports_distributed_reads(self) -> bool:
        """Files on a disk are read on this machine; those in an object store by any."""
        return not any(isinstance(source.path, Path) for source in self._table.sources)

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(self, parallelism: int, *_: object, **__: object) -> list[ReadTask]:
        table, done, part_rows = self._table, self._done, self._part_rows
        return [
            ReadTask(
                lambda: _parts(table, done, part_rows),
                BlockMetadata(num_rows=None, size_bytes=None, exec_stats=None, input_files=None),
            )
        ]


def _parts(table: Table, done: int, part_rows: int) -> Iterator[pyarrow.Table]:
    rows = islice(((feedback.text, feedback.row.problem) for feedback in table.rows()), done, None)
    while part := list(islice(rows, part_rows)):
        yield pyarrow.table({"first": [done], "rows": [json.dumps(part).encode()]})
        done += len(part)


class _Labeller:
    """An actor: holds a model, and answers parts.

    What is wrong is handed over in the part's place: the rows before it are kept then, and Ray asks nobody again.
    """

    def __init__(self, hire: Hire, identity: str, tasks: tuple[str, ...], sure: float) -> None:
        self._tasks, self._sure, self._problem = tasks, sure, ""
        try:
            hired = hire()
        except QaioError as error:
            self._problem = said("machine_has_no_model", error=error)
            return
        if hired.identity != identity:
            self._problem = said("machine_differs", identity=hired.identity, first=identity)
        self._clerk, self._pool = hired.clerk, ThreadPoolExecutor(hired.at_once)

    def __call__(self, part: pyarrow.Table) -> pyarrow.Table:
        (rows,) = part["rows"].to_pylist()
        answers, problem = list[dict[str, Any]](), self._problem
        if not problem:
            try:
                answers = [asdict(one) for one in self._pool.map(self._answer, json.loads(rows))]
            except DataFileError as error:
                problem = str(error)
        return pyarrow.table(
            {
                "first": part["first"],
                "answers": [json.dumps(answers).encode()],
                "problem": [json.dumps(problem).encode()],
            }
        )

    def _answer(self, row: tuple[str, str]) -> Answers:
        text, problem = row
        return answer(self._clerk, self._tasks, text, self._sure, Event(), problem)


def _describe(hire: Hire) -> tuple[ModelInfo, str]:
    hired = hire()
    return ModelInfo(hired.clerk.model, hired.clerk.tasks, made_of=hired.clerk.made_of), hired.identity


def _join(address: str) -> None:
    if address and address != "auto":
        _reach(address)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address:
            ray.init(address=address, **quiet)
        else:
            ray.init(address="local", include_dashboard=False, **quiet)
    except (
        Exception
    ) as error:  # Ray raises what it comes upon: ConnectionError, ValueError, RuntimeError, bare Exception
        where = said("cluster_at", address=address) if address else said("ray_here")
        raise DataFileError(said("cannot_join", where=where, error=_first_line(error))) from None


def _reach(address: str) -> None:
    """Ray itself asks for many minutes where nobody answers."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise DataFileError(said("address_form", address=address))
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=20).close()
    except (OSError, OverflowError) as error:
        raise DataFileError(said("nobody_at_address", address=address, error=error)) from None


def _fitting(actors: int, actor_cpus: int) -> tuple[int, int]:
    """As many as were asked for, or as there is room for; and how many machines there are."""
    cpus = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    room = sum(count // actor_cpus for count in cpus)
    if room < max(actors, 1):
        raise DataFileError(said("cluster_room", cpus=cpus, room=room, actor_cpus=actor_cpus))
    return actors or room, len(cpus)


def _set_up(context: Any) -> None:
    """Of Ray Data, in this process."""
    context.execution_options.preserve_order = True
    limits = context.execution_options.resource_limits
    context.execution_options.resource_limits = limits.copy(object_store_memory=_HELD_BYTES)
    context.target_max_block_size = 1  # byte: every part stays a block of its own
    context.max_consecutive_actor_init_deaths = _STARTS
    context.enable_progress_bars = context.print_on_execution_start = False
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _told(ask: Callable[[], T]) -> T:
    """What `ask` returns; what went wrong in the cluster as an error that says so."""
    try:
        return ask()
    except RayError as error:
        raise _broken(error) from None
    except (RuntimeError, ValueError) as error:
        if not type(error).__module__.startswith("ray"):
            raise
        raise _broken(error) from None


def _broken(error: BaseException) -> DataFileError:
    """Our own error at the bottom of Ray's, if there is one."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, QaioError) and not isinstance(cause, RayError):
            return DataFileError(message_of(cause))
        cause = getattr(cause, "cause", None) or cause.__cause__
    return DataFileError(said("cluster_broke", error=_first_line(error)))


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1].strip()[:300]}" if lines else type(error).__name__
