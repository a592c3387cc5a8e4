"""Batches over HTTP, asked by OpenAI's official client: files, what is answered, what is refused, and whose it is."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import openai
import pytest

from qwen_allinone.access import keys
from tests.integration.conftest import Server, serve
from tests.support.openai_client import client_of
from tests.support.tasks import PROJECT

TASK = "/v1/tasks/sentiment"
OVER = ("completed", "failed", "expired", "cancelled")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, demo_checkpoint: Path) -> Iterator[Server]:
    """With two keys, small quotas and a worker that works batches off."""
    folder = tmp_path_factory.mktemp("batches")
    shown = {name: keys.add(folder / "keys", name) for name in ("alice", "bob", "carol")}
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
