"""Batches over HTTP, asked by OpenAI's official client: files, what is answered, what is refused, and whose it is."""

from __future__ import annotations

import io
import json
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from qwen_allinone.access import keys
from tests.integration.conftest import Gate, Server, serve, until
from tests.support.openai_client import client_of
from tests.support.tasks import PROJECT

TASK = "/v1/tasks/sentiment"
OVER = ("completed", "failed", "expired", "cancelled")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, demo_checkpoint: Path) -> Iterator[Server]:
    """With two keys, small quotas and a worker that works batches off."""
    folder = tmp_path_factory.mktemp("batches")
    shown = {name: keys.add(folder / "keys", name) for name in ("alice", "bob", "carol", "dora")}
    given = {
        "QAIO_MODEL": "demo",
        "QAIO_THREADS": "1",
        "QAIO_PROMPTS": str(PROJECT / "prompts"),
        "QAIO_BATCHES_FILE": str(folder / "state" / "batches.db"),
        "QAIO_BATCH_FILE_MB": "1",
        "QAIO_BATCH_KEY_MB": "3",
        "QAIO_BATCH_KEY_LINES": "50",
        "QAIO_BATCH_KEY_OPEN": "2",
        "QAIO_API_KEYS_FILE": str(folder / "keys"),
        "QAIO_FIT": "off",
    }
    with serve(given) as start:
        server = start()
        server.app.config["KEYS"] = shown
        server.app.config["FOLDER"] = folder
        yield server
        server.app.extensions["batches"].stop()


def client(server: Server, name: str = "alice", **options: Any) -> openai.OpenAI:
    return client_of(server.app, api_key=server.app.config["KEYS"][name], **options)


def line(id: str, url: str = TASK, body: Any = None, **more: Any) -> dict[str, Any]:
    return {"custom_id": id, "method": "POST", "url": url, "body": body or {"text": "今天很开心"}} | more


def jsonl(lines: Sequence[Any]) -> bytes:
    return "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in lines).encode()


def upload(asking: openai.OpenAI, content: bytes, name: str = "in.jsonl") -> str:
    return asking.files.create(file=(name, io.BytesIO(content)), purpose="batch").id


def begin(asking: openai.OpenAI, content: bytes, endpoint: str = TASK, **more: Any) -> Any:
    made: Any = asking.batches.create(
        input_file_id=upload(asking, content),
        endpoint=endpoint,
        completion_window="24h",
        **more,  # type: ignore[arg-type]
    )
    return made


def ended(asking: openai.OpenAI, id: str, seconds: float = 120.0) -> Any:
    ends = time.monotonic() + seconds
    while (batch := asking.batches.retrieve(id)).status not in OVER:
        assert time.monotonic() < ends, batch
        time.sleep(0.05)
    return batch


def answered(asking: openai.OpenAI, file: str | None) -> list[dict[str, Any]]:
    if file is None:
        return []
    return [json.loads(one) for one in asking.files.content(file).text.splitlines()]


def test_what_may_be_asked_of_files_is_told_without_a_length(server: Server) -> None:
    key = {"Authorization": f"Bearer {server.app.config['KEYS']['alice']}", "Host": "localhost"}
    answer = server.app.test_client().options("/v1/files", headers=key)
    assert answer.status_code == 200 and {"GET", "POST"} <= set(answer.headers["Allow"].split(", "))


def test_a_batch_from_its_file_to_its_answers(server: Server) -> None:
    asking = client(server)
    lines = [line(f"row-{n}", body={"text": f"第 {n} 个很好"}) for n in range(5)] + [line("bad", body={"txt": "a"})]
    batch = begin(asking, jsonl(lines), metadata={"shop": "三店"})
    assert (batch.object, batch.status, batch.metadata) == ("batch", "validating", {"shop": "三店"})
    batch = ended(asking, batch.id)
    assert batch.status == "completed"
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (6, 5, 1)
    good, bad = answered(asking, batch.output_file_id), answered(asking, batch.error_file_id)
    assert [one["custom_id"] for one in good] == [f"row-{n}" for n in range(5)]
    assert [one["custom_id"] for one in bad] == ["bad"]
    for one, asked in zip(good, lines, strict=False):
        assert one["error"] is None and one["response"]["status_code"] == 200
        route = server.client.post(TASK, json=asked["body"], headers={"X-API-Key": server.app.config["KEYS"]["alice"]})
        assert one["response"]["body"] == route.get_json()
    assert bad[0]["response"]["status_code"] == 400
    assert bad[0]["response"]["body"]["error"]["param"] == "txt"


CHAT = {"model": "demo", "messages": [{"role": "user", "content": "今天很开心"}], "max_tokens": 3}


@pytest.mark.parametrize(
    ("endpoint", "body", "shown"),
    [
        ("/chat", {"text": "今天很开心"}, "sentiment"),
        ("/v1/tasks/keywords", {"text": "房间干净，早餐好吃"}, "items"),
        ("/v1/chat/completions", CHAT, "choices"),
        ("/v1/classify", {"model": "demo", "input": ["很好", "很差"], "task": "sentiment"}, "data"),
        ("/v1/embeddings", {"model": "demo", "input": "很好"}, "data"),
    ],
)
def test_every_endpoint_is_answered_as_its_route_answers(
    server: Server, endpoint: str, body: dict[str, Any], shown: str
) -> None:
    asking = client(server, "carol")
    batch = ended(asking, begin(asking, jsonl([line("a", endpoint, body)]), endpoint).id)
    assert batch.status == "completed", batch
    (one,) = answered(asking, batch.output_file_id)
    assert one["response"]["status_code"] == 200 and shown in one["response"]["body"]
    assert one["response"]["request_id"] == one["id"]


WRONG = [
    (b'{"custom_id": "a"\n', "invalid_json_line", 1, None),
    (jsonl([line("a")]) + b"\n[1]\n", "invalid_json_line", 3, None),
    (jsonl([line("a"), line("b"), line("a")]), "duplicate_custom_id", 3, "custom_id"),
    (jsonl([line("a", "/v1/nothing")]), "invalid_url", 1, "url"),
    (jsonl([line("a"), line("b", "/chat")]), "mismatched_url", 2, "url"),
    (jsonl([line("a") | {"method": "GET"}]), "invalid_method", 1, "method"),
    (jsonl([{"custom_id": "a", "method": "POST", "url": TASK}]), "missing_required_parameter", 1, "body"),
    (jsonl([line("a", x=1)]), "unknown_parameter", 1, "x"),
    (jsonl([line("")]), "invalid_custom_id", 1, "custom_id"),
    (jsonl([line("a", body=[1])]), "invalid_body", 1, "body"),
    (jsonl([line("a", body={"text": "a", "stream": True})]), "unsupported_field", 1, "body.stream"),
    (jsonl([line("a", body={"text": "a", "session": True})]), "unsupported_field", 1, "body.session"),
    (jsonl([line("a", body={"text": "a", "memory": True})]), "unsupported_field", 1, "body.memory"),
    (b'{"custom_id": "a", "custom_id": "b", "method": "POST"}', "invalid_json_line", 1, None),
    (b'{"custom_id": "\\ud800", "method": "POST"}', "invalid_json_line", 1, None),
]


@pytest.mark.parametrize(("content", "code", "number", "param"), WRONG)
def test_a_file_at_fault_fails_its_batch_and_the_error_names_the_line(
    server: Server, content: bytes, code: str, number: int, param: str | None
) -> None:
    asking = client(server)
    batch = ended(asking, begin(asking, content).id)
    assert (batch.status, batch.output_file_id, batch.error_file_id) == ("failed", None, None)
    (error,) = batch.errors.data
    assert (error.code, error.line, error.param) == (code, number, param)
    assert error.message


def test_the_errors_of_a_file_are_all_told(server: Server) -> None:
    asking = client(server)
    batch = ended(asking, begin(asking, b"x\n" + jsonl([line("a")]) + b"y\n").id)
    assert [error.line for error in batch.errors.data] == [1, 3]


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(server: Server) -> None:
    asking = client(server)
    content = b"\xef\xbb\xbf" + jsonl([line("a"), line("b")]).replace(b"\n", b"\r\n") + b"\r\n"
    batch = ended(asking, begin(asking, content).id)
    assert [one["custom_id"] for one in answered(asking, batch.output_file_id)] == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (b"", 400, "空"),
        (b"\n \r\n", 400, "空"),
        (jsonl([line("a")]) + b"\xff\n", 400, "第 2 行"),
        ("很".encode()[:2], 400, "第 1 行"),
        (b"a" * 1_000_001, 413, "1 MB"),
        (b"a" * 1_200_000, 413, "1 MB"),
        (b"a\n" * 51, 413, "50 行"),
    ],
)
def test_an_upload_that_can_be_no_batch_is_refused(server: Server, content: bytes, status: int, message: str) -> None:
    with pytest.raises(openai.APIStatusError, match=message) as refused:
        upload(client(server), content)
    assert refused.value.status_code == status


class Body(io.BytesIO):
    """What a client sends of an upload; whoever reads it is held up until `waits`. `begun`: somebody does."""

    def __init__(self, content: bytes, waits: threading.Event | None = None) -> None:
        super().__init__(
            b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
            + (content + b"\r\n--b--\r\n")
        )
        self._waits = waits
        self.begun = threading.Event()

    def read(self, size: int | None = -1) -> bytes:
        self.begun.set()
        assert self._waits is None or self._waits.wait(60)
        return super().read(size)

    def readinto(self, buffer: Any) -> int:
        part = self.read(len(buffer))
        buffer[: len(part)] = part
        return len(part)


def send(server: Server, body: Body, name: str = "dora") -> Any:
    return server.app.test_client().post(
        "/v1/files",
        input_stream=body,
        content_type="multipart/form-data; boundary=b",
        headers={"Authorization": f"Bearer {server.app.config['KEYS'][name]}", "Host": "localhost"},
    )


def test_an_upload_that_its_owner_has_no_room_for_is_refused_before_it_is_read(server: Server) -> None:
    asking = client(server, "dora")
    kept = [upload(asking, jsonl([line("a", pad="x" * 990_000)])) for _ in range(3)]
    content = jsonl([line("a", pad="x" * 900_000)])
    answer = send(server, body := Body(content))
    assert answer.status_code == 429 and answer.get_json()["error"]["code"] == "batches_full"
    assert not body.begun.is_set()
    for id in kept:
        asking.files.delete(id)
    assert send(server, Body(content)).status_code == 200
    asking.files.delete(asking.files.list().data[0].id)


def test_a_caller_uploads_two_files_at_a_time_and_others_theirs(server: Server) -> None:
    go_on = threading.Event()
    first = [Body(jsonl([line("a")]), go_on) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        try:
            sent = [pool.submit(send, server, body) for body in first]
            assert all(body.begun.wait(60) for body in first)
            answer = send(server, third := Body(jsonl([line("a")])))
            assert (answer.status_code, answer.headers["Retry-After"]) == (429, "5")
            assert "2 个" in answer.get_json()["error"]["message"] and not third.begun.is_set()
            other = send(server, Body(jsonl([line("a")])), "bob")
            assert other.status_code == 200
            client(server, "bob").files.delete(other.get_json()["id"])
        finally:
            go_on.set()
        assert [one.result().status_code for one in sent] == [200, 200]
    assert send(server, Body(b"")).status_code == 400
    assert send(server, Body(jsonl([line("a")]))).status_code == 200


def test_an_upload_that_cannot_be_written_down_is_a_503_that_says_so(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))  # as for a full one, an OSError where it is made
    answer = send(server, Body(jsonl([line("a", pad="x" * 900_000)])))
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (503, "batches_unavailable")
    assert answer.headers["Retry-After"]
    monkeypatch.undo()
    assert send(server, Body(jsonl([line("a", pad="x" * 900_000)]))).status_code == 200


def test_fields_of_an_upload_are_checked(server: Server) -> None:
    asking: Any = client(server)
    with pytest.raises(openai.BadRequestError, match="purpose"):
        asking.files.create(file=("a", b"a\n"), purpose="assistants")
    with pytest.raises(openai.BadRequestError, match="seconds"):
        asking.files.create(file=("a", b"a\n"), purpose="batch", expires_after={"anchor": "created_at", "seconds": 1})
    kept = asking.files.create(
        file=("../评价.jsonl", b"a\n"), purpose="batch", expires_after={"anchor": "created_at", "seconds": 7200}
    )
    assert (kept.filename, kept.expires_at - kept.created_at) == ("评价.jsonl", 7200)
    with pytest.raises(openai.BadRequestError, match="Idempotency-Key"):
        asking.files.create(file=("a", b"a\n"), purpose="batch", extra_headers={"Idempotency-Key": "x"})
    headers = {"X-API-Key": server.app.config["KEYS"]["alice"]}
    missing = server.client.post("/v1/files", data={"purpose": "batch"}, headers=headers)
    assert missing.status_code == 400 and "file" in missing.get_json()["error"]["message"]


@pytest.mark.parametrize(
    ("language", "told"),
    [("en", "the field purpose is missing, and must be 'batch'"), ("zh", "缺少字段 purpose，它只能是 'batch'")],
)
def test_an_upload_without_its_purpose_is_told_the_only_one(server: Server, language: str, told: str) -> None:
    headers = {"X-API-Key": server.app.config["KEYS"]["alice"], "Accept-Language": language}
    answer = server.client.post("/v1/files", data={"file": (io.BytesIO(b"a\n"), "a.jsonl")}, headers=headers)
    error = answer.get_json()["error"]
    assert (answer.status_code, error["param"], error["message"]) == (400, "purpose", told)


def test_a_mistyped_field_of_an_upload_is_told_its_name(server: Server) -> None:
    headers = {"X-API-Key": server.app.config["KEYS"]["alice"], "Accept-Language": "en"}
    form = {"purpos": "batch", "file": (io.BytesIO(b"a\n"), "a.jsonl")}
    message = server.client.post("/v1/files", data=form, headers=headers).get_json()["error"]["message"]
    assert message == "the field purpos is not supported, did you mean purpose?"


def test_fields_of_a_batch_are_checked(server: Server) -> None:
    asking: Any = client(server)
    file = upload(asking, jsonl([line("a")]))
    good = {"input_file_id": file, "endpoint": TASK, "completion_window": "24h"}
    for wrong, named in [
        ({"endpoint": "/v1/tasks/sentimental"}, "endpoint"),
        ({"completion_window": "1h"}, "completion_window"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata"),
        ({"metadata": {"a": "b" * 513}}, "metadata"),
    ]:
        with pytest.raises(openai.BadRequestError) as refused:
            asking.batches.create(**good | wrong)
        assert refused.value.param == named
    with pytest.raises(openai.NotFoundError) as unknown:
        asking.batches.create(**good | {"input_file_id": "file-none"})
    assert unknown.value.param == "input_file_id"


def test_files_and_batches_of_one_key_do_not_exist_for_another(server: Server) -> None:
    alice, bob = client(server), client(server, "bob")
    batch = ended(alice, begin(alice, jsonl([line("a")])).id)
    for ask in (
        lambda: bob.files.retrieve(batch.input_file_id),
        lambda: bob.files.content(batch.output_file_id),
        lambda: bob.files.delete(batch.output_file_id),
        lambda: bob.batches.retrieve(batch.id),
        lambda: bob.batches.cancel(batch.id),
        lambda: bob.batches.create(
            input_file_id=batch.input_file_id, endpoint="/v1/embeddings", completion_window="24h"
        ),
    ):
        with pytest.raises(openai.NotFoundError):
            ask()
    assert list(bob.files.list()) == [] and list(bob.batches.list()) == []
    assert batch.id in [one.id for one in alice.batches.list(limit=1)]  # over several pages


def test_what_a_client_deletes_is_gone(server: Server) -> None:
    asking = client(server)
    batch = ended(asking, begin(asking, jsonl([line("gone-for-ever", body={"text": "没有人会再读到这一句"})])).id)
    files = {file.id for file in asking.files.list(purpose="batch_output")}
    assert batch.output_file_id in files
    for id in (batch.input_file_id, batch.output_file_id):
        assert asking.files.delete(id).deleted
        with pytest.raises(openai.NotFoundError):
            asking.files.retrieve(id)
    folder = server.app.config["FOLDER"] / "state"

    def erased() -> bool:
        server.app.extensions["batches"]._store.erase()
        held = b"".join(path.read_bytes() for path in folder.iterdir())
        return b"gone-for-ever" not in held and "没有人会再读到".encode() not in held

    until(erased)


def test_cancelling_ends_a_batch_within_a_couple_of_lines(server: Server) -> None:
    asking = client(server, "bob")
    gate = Gate(server)
    gate.shut()
    batch = begin(asking, jsonl([line(f"c-{n}", body={"text": f"第 {n} 行"}) for n in range(40)]))
    assert gate.entered.wait(60)
    assert asking.batches.cancel(batch.id).status == "cancelling"
    with pytest.raises(openai.ConflictError, match=batch.id):
        asking.files.delete(batch.input_file_id)
    gate.open()
    batch = ended(asking, batch.id)
    assert batch.status == "cancelled"
    assert batch.request_counts.completed <= 2 and batch.request_counts.total == 40
    told = answered(asking, batch.output_file_id) + answered(asking, batch.error_file_id)
    assert sorted(one["custom_id"] for one in told) == sorted(f"c-{n}" for n in range(40))
    with pytest.raises(openai.ConflictError):
        asking.batches.cancel(batch.id)


def test_a_client_waits_for_no_line_and_finds_no_place_taken_by_one(start_server: Any, tmp_path: Path) -> None:
    server = start_server(
        QAIO_SLOTS="1",
        QAIO_MAX_WAITING="0",
        QAIO_BATCHES_FILE=str(tmp_path / "b.db"),
        QAIO_FIT="off",
        QAIO_CACHE_MB="0",
    )
    asking = client_of(server.app)
    many = {"model": "demo", "messages": [{"role": "user", "content": "讲一个故事"}], "max_tokens": 60, "seed": 1}
    batch = begin(asking, jsonl([line(f"{n}", "/v1/chat/completions", many) for n in range(6)]), "/v1/chat/completions")
    until(lambda: server.service.engine.running == 1)
    for _ in range(5):  # there is one place, and a line is in it
        assert server.post(TASK, {"text": "今天很开心"}).status_code == 200
    batch = ended(asking, batch.id)
    assert (batch.request_counts.completed, batch.request_counts.failed) == (6, 0)
    assert sorted(one["custom_id"] for one in answered(asking, batch.output_file_id)) == [str(n) for n in range(6)]
    server.app.extensions["batches"].stop()


def test_without_batches_the_routes_say_so(start_server: Any) -> None:
    server = start_server(QAIO_BATCH_AT_ONCE="0", QAIO_FIT="off")
    asking = client_of(server.app)
    for ask in (
        lambda: asking.files.list(),
        lambda: upload(asking, b"a\n"),
        lambda: asking.batches.list(),
        lambda: asking.batches.create(input_file_id="a", endpoint="/v1/embeddings", completion_window="24h"),
    ):
        with pytest.raises(openai.NotFoundError, match="QAIO_BATCH_AT_ONCE"):
            ask()
    assert "batches" not in server.app.extensions


def test_a_folder_that_cannot_be_written_is_told_at_the_start_and_to_callers(
    start_server: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "state").write_text("no folder")
    server = start_server(QAIO_BATCHES_FILE=str(tmp_path / "state" / "batches.db"), QAIO_FIT="off")
    assert "QAIO_BATCHES_FILE" in caplog.text
    with pytest.raises(openai.InternalServerError) as refused:
        upload(client_of(server.app), b"a\n")
    assert (refused.value.status_code, refused.value.code) == (503, "batches_unavailable")
    assert server.post(TASK, {"text": "今天很开心"}).status_code == 200


def test_no_header_makes_a_request_pass_for_a_line(server: Server) -> None:
    for name in ("qwen_allinone.batch_line", "qwen-allinone-batch-line"):
        assert server.client.post(TASK, json={"text": "a"}, headers={name: "alice"}).status_code == 401


@pytest.mark.parametrize(
    ("origin", "status"),
    [("https://evil.example", 403), ("null", 403), ("http://[", 403), ("http://localhost:7860", 200), ("", 200)],
)
def test_a_page_of_another_site_uploads_nothing(server: Server, origin: str, status: int) -> None:
    headers = {"X-API-Key": server.app.config["KEYS"]["carol"]} | ({"Origin": origin} if origin else {})
    form = {"purpose": "batch", "file": (io.BytesIO(jsonl([line("a")])), "a.jsonl")}
    answer = server.client.post("/v1/files", data=form, headers=headers)
    assert answer.status_code == status, answer.data
