"""A reload (SIGHUP): new prompts come into force without a restart, and broken ones do not take the service along."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest

from tests.e2e.conftest import PROJECT, Service, StartService, alive, assert_is_chat, until
from tests.support.adapters import write_adapter

URGENT = """\
---
description: 判断留言是否紧急
inputs:
  text: {max_tokens: 100}
output:
  kind: label
  labels: [{name: 紧急}, {name: 普通}]
decoding: {strategy: greedy, max_new_tokens: 8}
---
留言：$text
判断：
"""


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """A copy of the project's, to be changed."""
    return Path(shutil.copytree(PROJECT / "prompts", tmp_path / "prompts"))


def reload(service: Service) -> None:
    service.process.send_signal(signal.SIGHUP)


def test_a_new_task_is_there_after_a_reload(start_service: StartService, prompts: Path) -> None:
    service = start_service(QAIO_PROMPTS=str(prompts))
    (old,) = service.workers
    (prompts / "urgent").mkdir()
    (prompts / "urgent" / "prompt.md").write_text(URGENT, "utf-8")
    reload(service)
    until(lambda: not alive(old) and service.log.count("ready: model") == 2, "the new worker has taken over")
    body = '{"text": "着火了"}'.encode()
    answer = service.ask("POST", "/v1/tasks/urgent", body, Content_Type="application/json")
    assert answer.status == 200 and answer.json["label"] in ("紧急", "普通")


def test_an_adapter_comes_with_a_reload_and_a_pickle_does_not(start_service: StartService, prompts: Path) -> None:
    service = start_service(QAIO_PROMPTS=str(prompts), QAIO_CACHE_MB="0", QAIO_FIT="off")

    def shares() -> object:
        body = b'{"text": "The room was dirty.", "detail": true}'
        answer = service.ask("POST", "/v1/tasks/sentiment_en", body, Content_Type="application/json")
        return answer.json["detail"]["probabilities"]

    (old,), before = service.workers, shares()
    pickle = prompts / "sentiment_en" / "adapter_model.bin"
    pickle.write_bytes(b"\x80\x04")
    reload(service)
    until(lambda: "is a pickle, which can run code" in service.log, "the reload is refused")
    assert shares() == before and service.workers == [old]
    pickle.unlink()
    write_adapter(prompts / "sentiment_en", PROJECT / "demo" / "checkpoint", base_model_name_or_path="demo")
    reload(service)
    until(lambda: not alive(old) and service.log.count("ready: model") == 2, "the new worker has taken over")
    assert "sentiment_en: computed with an adapter of rank 3" in service.log
    assert shares() != before


@pytest.mark.parametrize("fault", ["a broken prompt", "a missing task", "a route to nowhere", "a broken schema"])
def test_a_reload_of_what_cannot_start_is_refused_and_the_old_goes_on(
    start_service: StartService, prompts: Path, tmp_path: Path, fault: str
) -> None:
    service = start_service(QAIO_PROMPTS=str(prompts))
    workers = service.workers
    good = tmp_path / "good"
    shutil.copytree(prompts, good)
    if fault == "a missing task":
        shutil.rmtree(prompts / "chat")
    elif fault == "a route to nowhere":
        file = prompts / "route" / "prompt.md"
        file.write_text(file.read_text("utf-8").replace("task: intent", "task: nosuch"), "utf-8")
    else:
        (prompts / ("intent/prompt.md" if fault == "a broken prompt" else "ticket/schema.json")).write_text(
            "{", "utf-8"
        )
    for times in (1, 2):
        reload(service)
        until(lambda: service.log.count("not reloaded") == times, "the reload is refused")  # noqa: B023
    assert "Traceback" not in service.log
    assert service.workers == workers and service.process.poll() is None
    assert_is_chat(service.chat("今天很开心"))
    shutil.rmtree(prompts)
    shutil.copytree(good, prompts)
    reload(service)
    until(lambda: not alive(workers[0]) and service.log.count("ready: model") == 2, "mended, it is reloaded")
    assert_is_chat(service.chat("今天很开心"))
