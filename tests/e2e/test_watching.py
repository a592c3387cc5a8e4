"""Logs and metrics of real workers: one format, true sums, and faults of their own that nobody else feels."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.conftest import (
    GUNICORN,
    PROJECT,
    Service,
    StartService,
    alive,
    assert_is_chat,
    environment,
    free_port,
    until,
)

TEXTS = ["今天心情特别差，工作也不顺利", "我升职了，今天好开心！"] * 4
FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is where every write finds the disk full")


def metrics(service: Service) -> dict[str, float]:
    """Samples by name and labels, `name{a=b,c=d}`."""
    answer = service.ask("GET", "/metrics")
    assert answer.status == 200 and answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    found = {}
    for family in text_string_to_metric_families(answer.data.decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            key = f"{sample.name}{{{labels}}}" if labels else sample.name
            assert key not in found, f"{key} is there twice"
            found[key] = sample.value
    return found


ANSWERS = 3  # that the engine gives for a chat: the sentiment, whether somebody needs help, the reply


def chats(found: dict[str, float]) -> tuple[float, ...]:
    """How many chats were answered, counted in four ways."""
    return (
        found.get("qaio_requests_total{method=POST,route=/chat,status=200}", 0),
        found["qaio_labels_total{label=正面,task=sentiment}"] + found["qaio_labels_total{label=负面,task=sentiment}"],
        found.get("qaio_e2e_request_latency_seconds_count{route=/chat}", 0),
        found["qaio_time_to_first_token_seconds_count"] / ANSWERS,
    )


def until_counted(service: Service, count: int) -> None:
    """A request is counted when its last byte is out, so a moment after the client has it."""
    until(lambda: chats(metrics(service)) == (count,) * 4, f"{count} chats are counted")


def ask_both(service: Service) -> None:
    """A chat from each worker, by stopping the other meanwhile."""
    for stopped in service.workers:
        os.kill(stopped, signal.SIGSTOP)
        try:
            assert_is_chat(service.chat(TEXTS[0]))
        finally:
            os.kill(stopped, signal.SIGCONT)


def test_metrics_are_those_of_both_workers_and_survive_a_kill(start_service: StartService) -> None:
    service = start_service(QAIO_WORKERS="2", QAIO_CACHE_MB="0")  # each chat is to cost all its answers
    until(lambda: metrics(service)["qaio_workers_ready"] == 2, "both show that they are ready")
    ask_both(service)
    for reply in service.chat_all(TEXTS):
        assert_is_chat(reply)
    served = len(TEXTS) + 2
    until_counted(service, served)
    found = metrics(service)
    assert found["qaio_prompt_tokens_total"] >= found["qaio_prefix_cache_hits_total"] > 0
    assert (found["qaio_workers"], found["qaio_worker_starts_total"]) == (2, 2)
    assert {key for key in found if key.startswith("qaio_resident")} == {
        "qaio_resident_memory_bytes{pid=1}",
        "qaio_resident_memory_bytes{pid=2}",
    }

    killed, other = service.workers
    os.kill(other, signal.SIGSTOP)  # so that it cannot answer; the master is held, so that nobody replaces the killed
    os.kill(service.process.pid, signal.SIGSTOP)
    os.kill(killed, signal.SIGKILL)
    until(lambda: not alive(killed), "the worker is gone")
    os.kill(other, signal.SIGCONT)
    os.kill(service.process.pid, signal.SIGCONT)
    until(lambda: metrics(service)["qaio_worker_starts_total"] == 3, "the new worker has counted itself")
    found = metrics(service)
    assert chats(found) == (served,) * 4, "a killed worker's counts are kept, and not counted twice"
    assert found["qaio_workers"] == 2
    until(lambda: metrics(service)["qaio_workers_ready"] == 2, "the new one is ready")
    ask_both(service)
    until_counted(service, served + 2)


def test_a_killed_worker_s_gauges_vanish(start_service: StartService) -> None:
    """Killed while it computes: what it was running is not shown for ever."""
    service = start_service(QAIO_WORKERS="2", QAIO_MAX_WAITING="0")
    killed, _ = service.workers
    plant = (
        "import sys; from prometheus_client.mmap_dict import MmapedDict, mmap_key; d = MmapedDict(sys.argv[1]);"
        "k = next(k for k, *_ in d.read_all_values() if 'num_requests_running' in k); d.write_value(k, 99.0, 0.0)"
    )
    os.kill(killed, signal.SIGSTOP)
    folder = shared_folder(killed)
    numbered = [Path(folder) / f"gauge_livesum_{number}.db" for number in (1, 2)]
    mine = next(file for file in numbered if str(file) in Path(f"/proc/{killed}/maps").read_text())
    subprocess.run([sys.executable, "-c", plant, str(mine)], check=True)
    assert metrics(service)["qaio_num_requests_running"] == 99
    os.kill(killed, signal.SIGKILL)
    until(lambda: metrics(service)["qaio_num_requests_running"] == 0, "its gauges are gone")
    until(lambda: metrics(service)["qaio_workers"] == 2, "its successor is there")


def shared_folder(pid: int) -> str:
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        if "qaio-metrics-" in line:
            return str(Path(line.split(None, 5)[5]).parent)
    raise AssertionError("the worker shares no metrics")


def test_many_kills_leave_no_files_and_the_end_leaves_no_folder(start_service: StartService) -> None:
    service = start_service(QAIO_WORKERS="1")
    folder = Path(shared_folder(service.workers[0]))
    assert_is_chat(service.chat(TEXTS[0]))
    until_counted(service, 1)  # each sort of figure makes its file when it is first needed
    files = sorted(folder.iterdir())
    for kills in range(1, 4):
        (worker,) = service.workers
        os.kill(worker, signal.SIGKILL)
        until(lambda: service.log.count("ready: model") == kills + 1, "a new worker has loaded")  # noqa: B023
    until(lambda: sorted(folder.iterdir()) == files, "the last one has the files of the first, and no other is left")
    assert metrics(service)["qaio_worker_starts_total"] == 4
    service.process.send_signal(signal.SIGTERM)
    service.process.wait(60)
    assert not folder.exists()


def test_a_reload_keeps_the_counts_and_shows_the_new_worker_only(start_service: StartService) -> None:
    service = start_service()
    (old,) = service.workers
    assert_is_chat(service.chat(TEXTS[0]))
    until_counted(service, 1)
    service.process.send_signal(signal.SIGHUP)
    until(lambda: not alive(old) and service.log.count("ready: model") == 2, "the new worker has taken over")
    until(lambda: metrics(service)["qaio_workers_ready"] == 1, "it shows that it is ready")
    found = metrics(service)
    assert chats(found) == (1,) * 4
    assert (found["qaio_workers"], found["qaio_worker_starts_total"]) == (1, 2)


@pytest.mark.parametrize("form", ["json", "text"])
def test_every_line_of_master_and_workers_has_one_form(start_service: StartService, form: str) -> None:
    service = start_service(QAIO_LOG_FORMAT=form)
    assert_is_chat(service.chat("密码是hunter2\n{}"))
    service.raw(b"GET /?key=hunter2 HTTX/9\r\n\r\n")
    service.raw(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nAuthorization hunter2\r\n\r\n")
    service.process.send_signal(signal.SIGTERM)
    service.process.wait(60)
    lines = service.log.splitlines()
    assert len(lines) > 8
    for line in lines:
        if form == "json":
            assert {"timestamp", "level", "logger", "pid", "event"} <= set(json.loads(line))
        else:
            assert line[:4].isdigit() and line[10] == "T" and "] " in line and not line.startswith("{")
    for word in ("Listening at", "Booting worker", "ready: model", "Invalid request from ip", "Shutting down: Master"):
        assert word in service.log, word
    assert service.log.count("request_id") == 1
    assert "hunter2" not in service.log


def start_with(stderr: int | None, home: Path, *, close: bool = False) -> Service:
    port = free_port()
    process = subprocess.Popen(
        GUNICORN,
        cwd=PROJECT,
        env=environment(port, home, {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        start_new_session=True,
        preexec_fn=(lambda: os.close(2)) if close else None,
    )
    return Service(process, port, home / "none")


def assert_serves_and_counts(service: Service) -> None:
    try:
        until(lambda: service.answers("/readyz", 200), "it serves")
        for _ in range(3):
            assert_is_chat(service.chat("今天很开心"))
        until(lambda: metrics(service)["qaio_log_lines_lost_total"] >= 3, "the lost lines are counted")
        assert_is_chat(service.chat("今天很开心"))
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(60) == 0
    finally:
        service.end()


@FULL
def test_a_full_disk_under_the_log_stops_nothing(demo_checkpoint: Path, tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full:
        assert_serves_and_counts(start_with(full.fileno(), tmp_path))


def test_a_log_reader_that_is_gone_stops_nothing(demo_checkpoint: Path, tmp_path: Path) -> None:
    read, write = os.pipe()
    service = start_with(write, tmp_path)
    os.close(write)
    os.close(read)
    assert_serves_and_counts(service)


def test_a_stderr_closed_from_the_start_stops_nothing(demo_checkpoint: Path, tmp_path: Path) -> None:
    assert_serves_and_counts(start_with(None, tmp_path, close=True))


def test_a_log_reader_that_sleeps_stops_nothing(demo_checkpoint: Path, tmp_path: Path) -> None:
    """The pipe is full from the start, so that every write would wait for ever."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    try:
        while os.write(write, b"x" * 4096):
            pass
    except BlockingIOError:
        os.set_blocking(write, True)
    service = start_with(write, tmp_path)
    os.close(write)
    try:
        until(lambda: service.answers("/readyz", 200), "it serves")
        for _ in range(3):
            assert_is_chat(service.chat("今天很开心"))
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(60) == 0
    finally:
        service.end()
        os.close(read)


def test_two_workers_write_one_audit_file(start_service: StartService, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    service = start_service(QAIO_WORKERS="2", QAIO_AUDIT_FILE=str(path))
    ids = [reply.headers["X-Request-Id"] for reply in service.chat_all(TEXTS)]
    until(lambda: len(path.read_text().splitlines()) == len(TEXTS), "all lines are written")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert sorted(line["request_id"] for line in lines) == sorted(ids)
    assert path.stat().st_mode & 0o777 == 0o640


def test_an_audit_file_that_cannot_be_stops_the_start(start_service: StartService, tmp_path: Path) -> None:
    service = start_service(ready=False, QAIO_AUDIT_FILE=str(tmp_path / "nothing" / "audit.jsonl"))
    assert service.process.wait(30) not in (0, None)
    (line,) = service.log.splitlines()
    assert line.startswith("qwen-allinone cannot start: QAIO_AUDIT_FILE=")
