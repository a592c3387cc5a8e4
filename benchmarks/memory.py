"""Serve under a real memory limit: does it start, does it answer everybody, how much does it take?

sudo python -m benchmarks.memory --model DIR --weights fp16 --workers 2 --limit-gb 4

Starts Gunicorn in a memory cgroup of its own (version 1 or 2; needs root), sends /chat requests from several clients
at once and prints errors, the kernel's peak and the workers' resident sizes. The cgroup counts cached file pages too,
which the kernel drops under pressure: a peak at the limit is no fault, a process killed for memory is.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.client import Target, closed_loop

ROOT = Path(__file__).resolve().parents[1]
_V1, _V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
_READY_S = 300.0
TEXT = "今天心情特别差，工作也不顺利，不知道该怎么办才好。"


class Group:
    """A memory cgroup with a limit; `limit_bytes` binds all that `enter` is called in and their children."""

    def __init__(self, limit_bytes: int) -> None:
        self._old = not (_V2 / "cgroup.controllers").exists()
        self.folder = (_V1 if self._old else _V2) / f"qwen-allinone-{os.getpid()}"
        try:
            if not self._old:
                (_V2 / "cgroup.subtree_control").write_text("+memory")
            self.folder.mkdir()
            self._file("limit_in_bytes", "max").write_text(str(limit_bytes))
            if not self._old:
                (self.folder / "memory.swap.max").write_text("0")
        except OSError as error:
            sys.exit(f"no memory cgroup can be made here ({error}); run as root, with the memory controller enabled")

    def enter(self) -> None:
        """Put the calling process into the group."""
        (self.folder / "cgroup.procs").write_text(str(os.getpid()))

    @property
    def peak_bytes(self) -> int:
        return int(self._file("max_usage_in_bytes", "peak").read_text())

    @property
    def killed(self) -> int:
        """How many processes the kernel killed for memory."""
        text = self._file("oom_control", "events").read_text()
        return sum(int(count) for count in re.findall(r"^oom_kill (\d+)", text, re.MULTILINE))

    def remove(self) -> None:
        """Delete the group, once its processes are gone."""
        for _ in range(50):
            with suppress(OSError):
                self.folder.rmdir()
                return
            time.sleep(0.1)

    def _file(self, old: str, new: str) -> Path:
        return self.folder / f"memory.{old if self._old else new}"


@contextmanager
def serving(group: Group, settings: dict[str, str]) -> Iterator[tuple[str, int]]:
    """Gunicorn within `group`; yields its URL and process id, and ends it by that id."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, **settings, "QAIO_HOST": "127.0.0.1", "QAIO_PORT": str(port)}
    command = [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "app:app"]
    master = subprocess.Popen(command, cwd=ROOT, env=environment, preexec_fn=group.enter, stderr=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{port}", master.pid
    finally:
        master.send_signal(signal.SIGTERM)
        try:
            master.wait(60)
        except subprocess.TimeoutExpired:
            master.kill()
        group.remove()


def children(pid: int) -> list[int]:
    """Process ids of the workers."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def resident_mb(pid: int) -> float:
    """Resident size of a process, MB (proc(5), status)."""
    match = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(match[1]) * 1024 / 1e6 if match else 0.0


def wait_until_ready(url: str, workers: int, pid: int) -> float:
    """Seconds until every worker says ready: asked often enough that each has been met."""
    began = time.monotonic()
    in_a_row = 0
    while in_a_row < 8 * workers:
        if time.monotonic() - began > _READY_S:
            sys.exit(f"not ready within {_READY_S:g} s")
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=5):
                in_a_row += 1
        except OSError:
            in_a_row = 0
            time.sleep(0.25)
    return time.monotonic() - began


def main(
    model: Annotated[str, typer.Option(help="What QAIO_MODEL takes")],
    weights: Annotated[str, typer.Option(help="fp32, fp16 or int8")] = "fp16",
    workers: Annotated[int, typer.Option(min=1)] = 2,
    limit_gb: Annotated[float, typer.Option(help="Memory limit of all workers together, GiB", min=0.25)] = 4.0,
    kv_tokens: Annotated[int, typer.Option(help="QAIO_KV_TOKENS of each worker", min=64)] = 3072,
    clients: Annotated[int, typer.Option(min=1, max=64)] = 8,
    requests: Annotated[int, typer.Option(min=1)] = 32,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here too")] = None,
) -> None:
    """Serve under a memory limit and measure."""
    group = Group(int(limit_gb * 2**30))
    settings = {"QAIO_MODEL": model, "QAIO_WEIGHTS": weights}
    settings |= {"QAIO_WORKERS": str(workers), "QAIO_KV_TOKENS": str(kv_tokens)}
    figures: dict[str, Any] = {"limit_gb": limit_gb, **settings}
    with serving(group, settings) as (url, pid), Progress(console=Console(stderr=True)) as progress:
        figures["ready_s"] = wait_until_ready(url, workers, pid)
        # Texts of very different length, so that slots fill up.
        bodies = [{"text": f"第{number}次：" + TEXT * (1 + 6 * (number % 4))} for number in range(requests)]
        began = time.monotonic()
        stream = closed_loop(Target(url), bodies, clients)
        answers = [answer for _, answer in progress.track(stream, total=requests, description="/chat")]
        figures["requests_per_s"] = requests / (time.monotonic() - began)
        figures["errors"] = dict(Counter(answer.problem for answer in answers if answer.problem))
        figures["resident_mb"] = [round(resident_mb(child)) for child in children(pid)]
        figures["peak_mb"], figures["killed"] = round(group.peak_bytes / 1e6), group.killed
    table = Table("figure", "value")
    for name, value in figures.items():
        table.add_row(name, f"{value:.3g}" if isinstance(value, float) else str(value))
    Console().print(table)
    if json_file:
        json_file.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    if figures["errors"] or figures["killed"]:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
