"""A process of its own for each fault of stderr: it goes on, and knows how many lines it lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from qwen_allinone.telemetry.logs import as_json

PROJECT = Path(__file__).resolve().parents[3]

PROGRAM = """
import json, logging, sys, threading, time, warnings
from qwen_allinone.settings import Settings
from qwen_allinone.telemetry import logs

logs.configure(Settings.load({"QAIO_LOG_FORMAT": "json"}))
log = logging.getLogger("anything")
"""
TWENTY = """
began = time.monotonic()
for number in range(20):
    log.info("line %d %s", number, "x" * 100_000 if "long" in sys.argv else "")
took = time.monotonic() - began
logs._lines.flush(1.0)
print(json.dumps({"lost": logs.lost_lines(), "took": took}), flush=True)
"""


def run(
    program: str, *arguments: str, stderr: int | None, before: Callable[[], None] | None = None
) -> dict[str, float]:
    command = [sys.executable, "-c", PROGRAM + program, *arguments]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=stderr, cwd=PROJECT, timeout=60, check=True, preexec_fn=before
    )
    return dict(json.loads(done.stdout))


def test_a_good_stderr_loses_nothing(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        assert run(TWENTY, stderr=file.fileno())["lost"] == 0
    written = [json.loads(line)["event"] for line in (tmp_path / "log").read_text().splitlines()]
    assert written == [f"line {number} " for number in range(20)]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is where every write finds the disk full")
def test_a_full_disk_loses_lines_and_counts_them() -> None:
    with open("/dev/full", "wb") as full:
        assert run(TWENTY, stderr=full.fileno())["lost"] == 20


def test_after_a_line_that_only_fitted_in_part_the_next_begins_on_its_own(tmp_path: Path) -> None:
    """A limit on the file's size stands in for a disk that fills up and is emptied again."""
    program = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
log.info("first")
logs._lines.flush()
resource.setrlimit(resource.RLIMIT_FSIZE, (250, hard))
log.info("torn " + "x" * 500)
logs._lines.flush()
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
log.info("third")
logs._lines.flush()
print(json.dumps({"lost": logs.lost_lines()}), flush=True)
"""
    with (tmp_path / "log").open("ab") as file:
        assert run(program, stderr=file.fileno())["lost"] == 1
    first, torn, third = (tmp_path / "log").read_text().splitlines()
    assert "torn" in torn and not torn.endswith("}")
    assert (json.loads(first)["event"], json.loads(third)["event"]) == ("first", "third")


def test_a_pipe_that_nobody_reads_any_more_loses_lines_and_counts_them() -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        assert run(TWENTY, stderr=write)["lost"] == 20
    finally:
        os.close(write)


def test_a_stderr_that_was_closed_before_the_start_is_not_written_to() -> None:
    assert run(TWENTY, stderr=None, before=lambda: os.close(2))["lost"] == 20


def test_a_pipe_whose_reader_sleeps_stalls_nobody_not_even_at_the_end() -> None:
    read, write = os.pipe()
    try:
        many = TWENTY.replace("range(20)", "range(100)")
        assert run(many, "long", stderr=write)["lost"] >= 50  # 10 MB: more than the pipe and the queue take
    finally:
        os.close(write)
        os.close(read)


def test_lines_of_libraries_warnings_and_dying_threads_have_the_same_form(tmp_path: Path) -> None:
    program = """
logging.getLogger("some.library").warning("careful")
logging.getLogger("httpx").info("a line nobody needs")
logging.getLogger("gunicorn.error").info("Using worker: %s", "what it always says")
logging.getLogger("gunicorn.error").info("Booting")
logging.getLogger("gunicorn.access").info("GET /chat?key=hunter2")
warnings.warn("old")
thread = threading.Thread(target=lambda: 1 / 0, name="worker bee")
thread.start(); thread.join()
log.info("%d", "no number")
logs._lines.flush()
print(json.dumps({"lost": logs.lost_lines()}), flush=True)
raise SystemError("the end")
"""
    command = [sys.executable, "-c", PROGRAM + program]
    with (tmp_path / "log").open("wb") as file:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=file, cwd=PROJECT, timeout=60, check=False)
    assert done.returncode == 1
    assert json.loads(done.stdout) == {"lost": 1}, "the line whose arguments do not fit it"
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    told = [(line["logger"], line["level"]) for line in lines]
    assert told == [
        ("some.library", "warning"),
        ("gunicorn.error", "info"),
        ("py.warnings", "warning"),
        ("qwen_allinone.telemetry.logs", "critical"),
        ("qwen_allinone.telemetry.logs", "critical"),
    ]
    assert "ZeroDivisionError" in lines[3]["exception"] and "worker bee" in lines[3]["event"]
    assert "the end" in lines[4]["exception"]


def test_auto_is_json_for_a_file_and_text_for_a_terminal(tmp_path: Path) -> None:
    program = """
print(json.dumps({"json": logs.as_json("auto")}))
"""
    with (tmp_path / "log").open("wb") as file:
        assert run(program, stderr=file.fileno())["json"] is True
    primary, secondary = os.openpty()
    try:
        assert run(program, stderr=secondary)["json"] is False
    finally:
        os.close(primary)
        os.close(secondary)
    assert (as_json("json"), as_json("text")) == (True, False)
