"""Every call that the README and docs show is answered by a service as they start it, with the demo model."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import PROJECT, Service, services

DOCUMENTS = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
HERE = "localhost:5000"
# Why a block is not run here; the beginning of its words.
SKIPPED = {
    "export QAIO_API_KEYS_FILE=": "a service that asks for keys: tests/integration/test_http_auth.py makes these calls",
    "curl -X POST localhost:5000/v1/adapters/reload": "a key of QAIO_ADMINS: tests/integration/test_http_adapters.py",
}
REQUEST_ID = "5f0c..."  # which is one that a client may give
SESSION_ID = "gBq0…"

_BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What is shown as the answer of the call above.
_ANSWER = re.compile(r"^\{.*$", re.MULTILINE)
_FAILING = "curl() { command curl --silent --show-error --fail-with-body --max-time 60 --noproxy '*' \"$@\"; }\n"


def _calls() -> Iterator[tuple[str, str]]:
    for document in DOCUMENTS:
        if document.name.endswith(".zh-CN.md"):  # whose commands are the same: unit/test_readme.py
            continue
        found = [block for block in _BLOCK.findall(document.read_text("utf-8")) if HERE in block and "curl " in block]
        yield from ((f"{document.name} {number}", block) for number, block in enumerate(found, 1))


CALLS = dict(_calls())


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, demo_checkpoint: Path) -> Iterator[Service]:
    home = tmp_path_factory.mktemp("documented")
    with services(home) as start:
        yield start(
            QAIO_MODEL_ALIASES="Qwen/Qwen1.5-0.5B",  # as docs/openai.md calls it
            QAIO_FEEDBACK_FILE=str(home / "feedback.db"),
            QAIO_SESSIONS_FILE=str(home / "sessions.db"),
            QAIO_MEMORY="1",
        )


@pytest.mark.parametrize("place", CALLS)
def test_a_call_in_a_document_is_answered(service: Service, place: str) -> None:
    block = CALLS[place]
    if reason := next((why for begins, why in SKIPPED.items() if block.startswith(begins)), ""):
        pytest.skip(reason)
    if REQUEST_ID in block:
        body = json.dumps({"text": "等了两个小时没人理我"}).encode()
        named = {"Content_Type": "application/json", "X_Request_Id": REQUEST_ID}
        assert service.ask("POST", "/v1/tasks/sentiment", body, **named).status == 200
    if SESSION_ID in block:
        body = json.dumps({"text": "你好", "session": True}).encode()
        session = service.ask("POST", "/chat", body, Content_Type="application/json").json["session_id"]
        block = block.replace(SESSION_ID, session)
    script = _FAILING + _ANSWER.sub("", block).replace(HERE, f"127.0.0.1:{service.port}")
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, f"{place}\n{ran.stdout}{ran.stderr}"
    assert ran.stdout.strip(), "it is answered"


def test_there_are_such_calls_and_few_are_skipped() -> None:
    skipped = [place for place, block in CALLS.items() if block.startswith(tuple(SKIPPED))]
    assert len(CALLS) > 12 and len(skipped) <= 3
