"""Conversations while workers are killed, their file is locked and its disk is full: no answered turn is lost or doubled."""

from __future__ import annotations

import http.client
import os
import signal
import sqlite3
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.conftest import Reply, Service
from tests.faults.callers import CHAT, Caller, pair
from tests.faults.scenario import Bench, Scenario

TALKERS = 6
TURNS = 40  # of a conversation, before the next begins
WANTED = 5_000  # turns in all
LONGEST_S = 3600.0
DISK_MB = 24
LOCKED_S, FULL_S = 3.0, 2.0
# For a store or a worker to come back.
PATIENCE_S = 30.0


@dataclass
class Talker:
    """One client: says the next thing, and looks it up where it does not know what has become of it."""

    caller: Caller
    over: threading.Event
    ends: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    said: int = 0  # turns that were answered, or found stored
    kept: int = 0  # those of conversations that were looked through at their end

    def talk(self) -> None:
        while not self.over.is_set():
            id, known = self._begin(), ["0"]
            while id and len(known) < TURNS and not self.over.is_set():
                said = str(len(known))
                if self._say({"text": said, "session_id": id}) is not None:
                    known.append(said)
                    self.said += 1
                    continue
                stored = self._stored(id)
                if stored == [*known, said]:
                    known.append(said)
                elif stored != known:
                    self._complain(id, known, stored)
                    known = list(stored)
            if id and (stored := self._stored(id)) != known:
                self._complain(id, known, stored)
            self.kept += len(known) if id else 0

    def _begin(self) -> str:
        """A new conversation's id; none if its answer did not come."""
        reply = self._say({"text": "0", "session": True})
        return str(reply.json["session_id"]) if reply else ""

    def _say(self, body: dict[str, object]) -> Reply | None:
        try:
            reply = self.caller.post(CHAT, body)
        except (OSError, http.client.HTTPException):
            self.ends["closed"] += 1
            time.sleep(0.05)
            return None
        self.ends[str(reply.status)] += 1
        if reply.status == 200:
            return reply
        time.sleep(0.05)
        return None

    def _stored(self, id: str) -> list[str]:
        """The texts of its turns, once the store tells them."""
        ends = time.monotonic() + PATIENCE_S
        while time.monotonic() < ends:
            with suppress(OSError, http.client.HTTPException):
                reply = self.caller.service.ask("GET", f"/v1/sessions/{id}", X_API_Key=self.caller.key)
                if reply.status == 200:
                    return [str(turn["text"]) for turn in reply.json["turns"]]
                if reply.status == 404:
                    return []
            time.sleep(0.1)
        return ["not told"]

    def _complain(self, id: str, known: list[str], stored: list[str]) -> None:
        at = next(
            (n for n, (a, b) in enumerate(zip(known, stored, strict=False)) if a != b), min(len(known), len(stored))
        )
        self.wrong.append(f"{id[:6]}: {len(known)} known, {len(stored)} stored, first other at {at}")


def run(bench: Bench) -> None:
    turns(bench, bench.size(WANTED, 1), LONGEST_S)


def turns(bench: Bench, wanted: int, longest_s: float) -> int:
    """Faults, all kinds in turn, until `wanted` turns are said or `longest_s` seconds over; returns how many were."""
    ends = time.monotonic() + longest_s
    with _disk(bench.home / "disk") as small:
        greedy, _ = pair(
            bench,
            QAIO_WORKERS="2",
            QAIO_PROMPTS=str(bench.short_prompts(2)),
            QAIO_SESSIONS_FILE=str(bench.home / "disk" / "sessions.db"),
        )
        service, over = greedy.service, threading.Event()
        talkers = [Talker(greedy, over) for _ in range(TALKERS)]
        threads = [threading.Thread(target=talker.talk, daemon=True) for talker in talkers]
        for thread in threads:
            thread.start()
        done = Counter[str]()
        number = 0
        while number == 0 or (said(talkers) < wanted and time.monotonic() < ends):
            for name, fault in {"kill": _kill, "lock": _lock, "full": _fill}.items():
                bench.say(f"{said(talkers)} of {wanted} turns; {name} {number + 1}")
                time.sleep(bench.size(2.0, 0.5))
                if name != "full" or small:
                    fault(service, bench.home / "disk", number)
                    done[name] += 1
            number += 1
        time.sleep(1.0)
        over.set()
        for thread in threads:
            thread.join(2 * PATIENCE_S)
    wrong = [problem for talker in talkers for problem in talker.wrong]
    answers = sum([talker.ends for talker in talkers], Counter[str]())
    kept = sum(talker.kept for talker in talkers)
    faults = f"{done['kill']} kills, {done['lock']} locks, {done['full'] or 'no (may not mount)'} full disks"
    measured = f"{kept} turns, {len(wrong)} wrong{'; ' + wrong[0] if wrong else ''}; {dict(answers)}"
    alive = not any(thread.is_alive() for thread in threads)
    enough = kept >= wanted > 0
    bench.check(f"{wanted} turns, {faults}: none answered is lost or doubled", measured, not wrong and enough and alive)
    bench.check("each fault was felt", dict(answers), answers["closed"] > 0 and answers["503"] > 0)
    return kept


def said(talkers: Sequence[Talker]) -> int:
    """How many turns there are by now."""
    return sum(talker.said for talker in talkers)


def _kill(service: Service, disk: Path, number: int) -> None:
    workers = service.workers
    os.kill(workers[number % len(workers)], signal.SIGKILL)


def _lock(service: Service, disk: Path, number: int) -> None:
    with closing(sqlite3.connect(disk / "sessions.db", timeout=20.0, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        time.sleep(LOCKED_S)
        db.execute("ROLLBACK")


def _fill(service: Service, disk: Path, number: int) -> None:
    """No byte is left for a while."""
    ballast = disk / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    time.sleep(FULL_S)
    ballast.unlink()


@contextmanager
def _disk(place: Path) -> Iterator[bool]:
    """A small file system at `place`; whether the machine lets us mount one."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "none", str(place)]
    small = os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        yield small
    finally:
        if small:
            subprocess.run(["umount", "-l", str(place)], capture_output=True, check=False)


SCENARIO = Scenario("store-kills", run, plant="forgetful", finds="lost or doubled")
