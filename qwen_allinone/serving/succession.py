"""A reload (SIGHUP): workers with the prompts as they are now take over from those that serve, one after the other.

Gunicorn's own reload stops the old workers while the new ones are still loading, and ends the master where something is
wrong. Here the master looks first. Changed prompts are copied, so that nobody edits what workers read, and tried by a
process of its own (`qwen-allinone prompts try`). Then one new worker is started; once its model is ready an old one
takes nobody new, answers whom it has, and goes; and so on. One worker's memory more than before is all it takes.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from qwen_allinone.errors import ReloadOff, StartupError
from qwen_allinone.files import replace_file
from qwen_allinone.settings import Settings
from qwen_allinone.tasks import Registry, Versions

log = logging.getLogger(__name__)

_MASTER = ".master"
_MOST_TRIAL_S = 900.0
_NOT_RELOADED = "not reloaded, what was there goes on serving: %s"

_in_force: Path | None = None


def prompts_in_force(settings: Settings) -> Path:
    """Where this process reads its tasks: a worker from the copy that its master has taken, others as they are told."""
    return _in_force or settings.prompts


def master_of(kept: Path) -> int | None:
    """The process id of the service that keeps its versions in `kept`, if it runs. Raises OSError."""
    try:
        with (kept / _MASTER).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return int((kept / f"{_MASTER}.pid").read_text("ascii"))
    except FileNotFoundError:
        pass
    return None


def ask_to_reload(kept: Path) -> int | None:
    """Have the service that keeps its versions in `kept` reload; returns its process id, None if none runs.

    Raises OSError.
    """
    master = master_of(kept)
    with suppress(ProcessLookupError):
        if master is not None:
            os.kill(master, signal.SIGHUP)
            return master
    return None


def ask_own_master(prompts: Path, kept: Path, in_force: str) -> str:
    """In a worker: have its master take `prompts` as they are now, unless they are the version `in_force`; returns
    their version.

    Raises:
        TaskFileError: something is wrong with them.
        ReloadOff: no master that makes reloads started this process.
    """
    master = os.getppid()
    try:
        if master_of(kept) != master:
            raise ReloadOff()
    except (OSError, ValueError):
        raise ReloadOff() from None
    version = Registry.load(prompts).version
    if version != in_force:
        os.kill(master, signal.SIGHUP)
    return version


class Succession:
    """Makes the reloads of Gunicorn's `server` (its Arbiter). `check` reads what a service needs and raises what is
    wrong.

    All of it runs in the master's loop, which has no other thread: it forks.
    """

    def __init__(self, server: Any, settings: Settings, check: Callable[[], object]) -> None:
        self._server = server
        self._settings = settings
        self._check = check
        self._versions: Versions | None = Versions(settings.prompts_kept)
        self._version = ""
        self._workers = server.num_workers
        self._oldest_new: int | None = None  # age of the first worker of a reload that is under way
        self._trial: _Trial | None = None
        self._lock: Any = None

    def begin(self) -> None:
        """At the start what is there is in force, and from here on reloads are made here.

        Somebody else's worker class is Gunicorn's business. Raises TaskFileError: somebody is editing the prompts.
        """
        global _in_force
        if not hasattr(self._server.worker_class, "retires"):
            return
        self._manage = self._server.manage_workers
        self._server.reload, self._server.manage_workers = self.reload, self.manage_workers
        kept = self._settings.prompts_kept
        try:
            self._version = self._taken()
            self._accept("start")
            self._tell_who_serves(kept)
        except OSError as error:
            log.warning(
                "%s cannot be written (%s): prompts are read where they lie, and reloads take them untried; "
                "set QAIO_PROMPTS_KEPT", kept, error.strerror,
            )  # fmt: skip
            self._versions = _in_force = None

    def reload(self) -> None:
        """SIGHUP. Where a reload is under way, the newest one counts."""
        self._end_trial()
        try:
            self._check()
            version = self._taken()
            tried = self._versions is None or version == self._version or self._versions.is_accepted(version)
            if tried or self._settings.prompts_may_lose >= 1:
                self._replace_workers(version)
            else:
                log.info("prompts %s: the gold cases of what has changed are run before it takes over", version)
                self._trial = _Trial(version, self._version)
        except (StartupError, OSError) as error:
            log.error(_NOT_RELOADED, error)

    def manage_workers(self) -> None:
        """In each turn of the master's loop: hear the trial, and let the next worker take over."""
        if self._trial and (verdict := self._trial.verdict()) is not None:
            version, self._trial = self._trial.version, None
            if verdict:
                log.error(_NOT_RELOADED, verdict)
            else:
                self._replace_workers(version)
        if self._oldest_new is not None:
            self._hand_over(self._oldest_new)
        self._manage()

    @property
    def is_under_way(self) -> bool:
        """Whether workers that are started now take over from others."""
        return self._oldest_new is not None

    def end(self) -> None:
        """The master ends, and what it has begun with it."""
        self._end_trial()
        if self._lock:
            self._lock.close()

    def _replace_workers(self, version: str) -> None:
        self._version = version
        try:
            self._accept("tried")
        except OSError as error:
            log.warning("prompts %s come into force, which cannot be noted: %s", version, error)
        if self._oldest_new is None:
            self._workers = self._server.num_workers
        self._oldest_new = self._server.worker_age + 1
        self._server.num_workers = self._workers + 1
        log.info("prompts %s: new workers take over as they are ready", version or "as they are")

    def _hand_over(self, oldest_new: int) -> None:
        """Never fewer that are ready than before, as far as there were any; never more than one worker too many."""
        workers = sorted(self._server.WORKERS.values(), key=lambda worker: worker.age)
        old = [worker for worker in workers if worker.age < oldest_new]
        if not old:
            self._oldest_new = None
            for worker in workers:
                worker.is_heir = False  # nobody else serves, ready or not
            self._server.num_workers = self._workers
            if len(workers) == self._workers and all(worker.is_ready for worker in workers):
                log.info("prompts %s are in force", self._version or "as they are")
            return
        if any(worker.retires for worker in old):
            return
        ready = sum(worker.is_ready for worker in workers)
        leaves = next((worker for worker in old if not worker.is_ready), old[0] if ready > self._workers else None)
        if leaves is not None:
            leaves.retires = True
            self._server.kill_worker(leaves.pid, signal.SIGTERM)

    def _taken(self) -> str:
        """The version of the prompts as they are now, copied; new workers read it once it is in force."""
        if self._versions is None:
            return ""
        version = self._versions.keep(self._settings.prompts)
        Registry.load(self._versions.folder(version))  # somebody may have been writing while it was copied
        return version

    def _accept(self, why: Any) -> None:
        global _in_force
        if self._versions is not None:
            _in_force = self._versions.folder(self._version)
            self._versions.accept(self._version, why)

    def _tell_who_serves(self, kept: Path) -> None:
        """For `qwen-allinone prompts reload`. Held by the master and, through the fork, by its workers."""
        lock = (kept / _MASTER).open("wb")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("another service keeps its prompts in %s too: `prompts reload` and `back` tell that one", kept)
            lock.close()
            return
        self._lock = lock
        replace_file(kept / f"{_MASTER}.pid", str(os.getpid()).encode())

    def _end_trial(self) -> None:
        if self._trial:
            self._trial.end()
            self._trial = None


def _after_everybody() -> None:
    """This process computes when nobody else does, and where memory runs out it is the first to go."""
    os.nice(10)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", "ascii")


class _Trial:
    """`qwen-allinone prompts try VERSION`, in a process of its own and after everybody else.

    Gunicorn waits for all children, this one too, so what it says counts and not its exit status.
    """

    def __init__(self, version: str, against: str) -> None:
        self.version = version
        environment = {name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"}
        command = [sys.executable, "-m", "qwen_allinone", "prompts", "try", version, "--against", against, "--json"]
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=_after_everybody,
        )
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        self._said = b""
        self._ends = time.monotonic() + _MOST_TRIAL_S

    def verdict(self) -> str | None:
        """Why the version is refused, empty if it is not; None while that is not known."""
        assert self._process.stdout is not None
        while said := self._process.stdout.read():
            self._said += said
        if said is None:  # it may say more
            if time.monotonic() < self._ends:
                return None
            self.end()
            return f"the gold cases of prompts {self.version} took longer than {_MOST_TRIAL_S:g} s"
        self.end()
        try:
            verdict = json.loads(self._said)
            return "; ".join(map(str, verdict["refused"]))
        except (ValueError, TypeError, KeyError):
            return f"the gold cases of prompts {self.version} could not be run, see the line before"

    def end(self) -> None:
        """Whatever it does, it ends now."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process.poll()
