"""Two workers under real requests, good and bad."""

from __future__ import annotations

import json
import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.conftest import Service, alive, assert_is_chat, until

CAP = 1_048_576
TEXTS = ["今天心情特别差，工作也不顺利", "我升职了，今天好开心！", "ok", "外卖又凉了，真失望"]


def head(path: str = "/chat", **headers: object) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def status_of(answer: bytes) -> int:
    assert answer.startswith(b"HTTP/1."), answer[:200]
    return int(answer.split(b" ", 2)[1])


def memory(pid: int) -> int:
    """Bytes in memory, and not only in the address space."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"no VmRSS for {pid}")


def test_the_readme_s_request_is_answered(service: Service) -> None:
    reply = service.chat("今天心情特别差，工作也不顺利")
    assert_is_chat(reply)
    assert reply.headers["Content-Type"] == "application/json; charset=utf-8"
    assert reply.headers["X-Model"] == "demo"
    assert service.ask("GET", "/health").json == {"status": "ok"}


def test_sixteen_chats_at_once_are_all_answered(service: Service) -> None:
    replies = service.chat_all(TEXTS * 4)
    for reply in replies:
        assert_is_chat(reply)
    assert len({reply.headers["X-Request-Id"] for reply in replies}) == 16
    for text in TEXTS:  # whoever answers, and whatever is computed beside it, the label is the same
        assert len({r.json["sentiment"] for r, asked in zip(replies, TEXTS * 4, strict=True) if asked == text}) == 1


def test_each_of_the_two_workers_serves(service: Service) -> None:
    one, other = service.workers
    for stopped in (one, other):
        os.kill(stopped, signal.SIGSTOP)
        try:
            assert_is_chat(service.chat("今天很开心"))
        finally:
            os.kill(stopped, signal.SIGCONT)


def test_the_list_of_tasks_and_the_documentation_are_served(service: Service) -> None:
    assert {task["name"] for task in service.ask("GET", "/v1/tasks").json["tasks"]} >= {"sentiment", "chat"}
    assert service.ask("GET", "/openapi.json").json["openapi"].startswith("3.1.")
    assert service.ask("GET", "/docs/swagger").status == 200


def test_a_body_over_the_cap_by_its_length_is_a_413(service: Service) -> None:
    body = b" " * (CAP + 1)
    answer = service.raw(head(Content_Length=len(body), Connection="close"), body)
    assert status_of(answer) == 413
    assert json.loads(answer.split(b"\r\n\r\n", 1)[1])["code"] == "payload_too_large"


def test_a_length_that_is_only_claimed_is_a_413_at_once(service: Service) -> None:
    answer = service.raw(head(Content_Length=10**12, Connection="close"))
    assert status_of(answer) == 413


def test_a_chunked_body_over_the_cap_is_a_413(service: Service) -> None:
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    answer = service.raw(head(Transfer_Encoding="chunked", Connection="close"), *[chunk] * 20, b"0\r\n\r\n")
    assert status_of(answer) == 413
    assert json.loads(answer.split(b"\r\n\r\n", 1)[1])["code"] == "payload_too_large"


def test_a_chunked_body_under_the_cap_is_read(service: Service) -> None:
    body = '{"text": "今天很开心"}'.encode()
    chunks = [b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:7], body[7:12], body[12:])]
    answer = service.raw(head(Transfer_Encoding="chunked", Connection="close"), *chunks, b"0\r\n\r\n")
    assert status_of(answer) == 200


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads a process's memory from /proc")
@pytest.mark.parametrize("chunked", [False, True], ids=["by length", "chunked"])
def test_a_flood_of_bytes_does_not_stay_in_memory(service: Service, chunked: bool) -> None:
    workers = service.workers
    before = {pid: memory(pid) for pid in workers}
    block = b" " * 1_000_000
    opening = head(Transfer_Encoding="chunked") if chunked else head(Content_Length=100 * len(block))
    part = b"%x\r\n%s\r\n" % (len(block), block) if chunked else block
    peak = dict(before)
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as flood:
        flood.sendall(opening)
        try:
            for _ in range(100):
                flood.sendall(part)
                peak = {pid: max(peak[pid], memory(pid)) for pid in workers}
        except OSError:
            pass  # the server has said no and closed
    assert service.workers == workers
    for pid in workers:
        assert peak[pid] - before[pid] < 30_000_000
    assert_is_chat(service.chat("今天很开心"))


MALFORMED = {
    "a request line of 5 KB": b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a header of 9 KB": b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"a" * 9000 + b"\r\n\r\n",
    "101 headers": b"GET /livez HTTP/1.1\r\nHost: localhost\r\n"
    + b"".join(b"X-%d: 1\r\n" % i for i in range(101))
    + b"\r\n",
    "a length and chunks": head(Content_Length=5, Transfer_Encoding="chunked") + b"0\r\n\r\n",
    "two lengths": head(Content_Length=2).replace(b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\n") + b"{}",
    "a negative length": head(Content_Length=-1),
    "a length that is no number": head(Content_Length="1e3"),
    "a folded header": b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-A: 1\r\n 2\r\n\r\n",
    "a chunk size that is none": head(Transfer_Encoding="chunked") + b"zz\r\n\r\n",
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
}


@pytest.mark.parametrize("request_bytes", list(MALFORMED.values()), ids=list(MALFORMED))
def test_a_malformed_request_is_refused_and_the_connection_closed(service: Service, request_bytes: bytes) -> None:
    workers = service.workers
    answer = service.raw(request_bytes)
    assert 400 <= status_of(answer) < 500
    assert answer.count(b"HTTP/1.") == 1
    assert b"Traceback" not in answer
    assert service.workers == workers


def test_a_client_that_leaves_in_the_middle_disturbs_nobody(service: Service) -> None:
    body = '{"text": "今天很开心"}'.encode()
    for sent in (b"POST /chat HT", head(Content_Length=len(body)), head(Content_Length=len(body)) + body):
        with socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection:
            connection.sendall(sent)
    assert_is_chat(service.chat("今天很开心"))


def test_bad_requests_do_not_disturb_good_ones(service: Service) -> None:
    bad = [b"[]", b"{", b'{"text": ""}', b'{"text":' * 100_000, b"\xff" * 1000, b'{"text": "' + b"a" * 900_000 + b'"}']
    with ThreadPoolExecutor(24) as pool:
        refused = [pool.submit(service.ask, "POST", "/chat", body, Content_Type="application/json") for body in bad * 2]
        good = list(pool.map(service.chat, TEXTS * 3))
        assert [future.result().status for future in refused] == [400] * len(bad) * 2
    for reply in good:
        assert_is_chat(reply)


def test_a_killed_worker_is_replaced_while_the_other_serves(service: Service) -> None:
    killed, other = service.workers
    os.kill(killed, signal.SIGKILL)
    until(lambda: not alive(killed), "the worker is gone")
    assert_is_chat(service.chat("今天很开心"))
    until(lambda: len(service.workers) == 2, "there are two workers again")
    until(lambda: service.log.count("ready: model") >= 3, "the new worker has loaded")
    assert service.process.poll() is None
    assert other in service.workers and killed not in service.workers
    os.kill(other, signal.SIGSTOP)
    try:
        assert_is_chat(service.chat("今天很开心"))
    finally:
        os.kill(other, signal.SIGCONT)


def test_the_log_has_one_line_a_record_and_no_text_of_any_request(service: Service) -> None:
    service.chat("密码是 hunter2\n2031-01-01 00:00:00 CRITICAL forged line")
    service.ask("GET", "/%0a%1b[31mforged", X_Request_Id="a" * 200)
    assert "hunter2" not in service.log and "forged" not in service.log
    assert "\x1b" not in service.log
    assert "Traceback" not in service.log
