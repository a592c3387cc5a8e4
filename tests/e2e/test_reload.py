"""A reload (SIGHUP): new prompts come into force without a restart, and broken ones do not take the service along."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from qwen_allinone.access import keys
from tests.e2e.conftest import PROJECT, Reply, Service, StartService, alive, assert_is_chat, environment, until
from tests.support import forked
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

TRIAL_S = 180.0  # the gold cases are run when nobody else wants the cores
RELOADS = 3  # of 200 in `make faults`


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """A copy of the project's, to be changed."""
    return Path(shutil.copytree(PROJECT / "prompts", tmp_path / "prompts"))


@pytest.fixture
def few_prompts(prompts: Path) -> Path:
    """The three that are needed: each costs a start some time."""
    for folder in prompts.iterdir():
        if folder.name not in ("chat", "sentiment", "intent"):
            shutil.rmtree(folder)
    return prompts


def reload(service: Service) -> None:
    service.process.send_signal(signal.SIGHUP)


def test_a_new_task_is_there_after_a_reload(start_service: StartService, few_prompts: Path) -> None:
    service = start_service(QAIO_PROMPTS=str(few_prompts))
    (old,) = service.workers
    (few_prompts / "urgent").mkdir()
    (few_prompts / "urgent" / "prompt.md").write_text(URGENT, "utf-8")
    reload(service)
    until(lambda: not alive(old) and service.log.count("ready: model") == 2, "the new worker has taken over", 240)
    body = '{"text": "着火了"}'.encode()
    answer = service.ask("POST", "/v1/tasks/urgent", body, Content_Type="application/json")
    assert answer.status == 200 and answer.json["label"] in ("紧急", "普通")


@pytest.mark.timeout(360)
def test_an_adapter_comes_with_a_reload_over_http_and_a_pickle_does_not(
    start_service: StartService, prompts: Path, tmp_path: Path
) -> None:
    root, other = (f"Bearer {keys.add(tmp_path / 'keys', name)}" for name in ("root", "other"))
    # The adapter holds random numbers: its task does worse with it.
    service = start_service(
        QAIO_PROMPTS=str(prompts), QAIO_CACHE_MB="0", QAIO_FIT="off", QAIO_PROMPTS_MAY_LOSE="1",
        QAIO_API_KEYS_FILE=str(tmp_path / "keys"), QAIO_ADMINS="root",
    )  # fmt: skip

    def shares() -> object:
        body = b'{"text": "The room was dirty.", "detail": true}'
        answer = service.ask(
            "POST", "/v1/tasks/sentiment_en", body, Content_Type="application/json", Authorization=root
        )
        return answer.json["detail"]["probabilities"]

    def asked(key: str) -> Reply:
        return service.ask("POST", "/v1/adapters/reload", Authorization=key)

    (old,), before = service.workers, shares()
    pickle = prompts / "sentiment_en" / "adapter_model.bin"
    pickle.write_bytes(b"\x80\x04")
    reload(service)
    until(lambda: "is a pickle, which can run code" in service.log, "the reload is refused")
    refused = asked(root)
    assert refused.status == 409 and refused.json["error"]["code"] == "reload_refused"
    assert "is a pickle" in refused.json["error"]["message"]
    assert shares() == before and service.workers == [old]
    pickle.unlink()
    write_adapter(prompts / "sentiment_en", PROJECT / "demo" / "checkpoint", base_model_name_or_path="demo")
    assert asked(other).status == 403
    reloading = asked(root)
    assert reloading.status == 202 and not reloading.json["in_force"]
    until(lambda: not alive(old) and service.log.count("ready: model") == 2, "the new worker has taken over", 240)
    assert "sentiment_en: computed with an adapter of rank 3" in service.log
    assert shares() != before
    again = asked(root)
    assert (again.status, again.json) == (200, reloading.json | {"in_force": True})
    assert again.headers["X-Prompt-Version"] == reloading.json["prompt_version"]


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


def _in_force(service: Service) -> str:
    return service.ask("GET", "/livez").headers["X-Prompt-Version"]


def _judged(service: Service) -> Reply:
    body = json.dumps({"text": "快递到哪了", "detail": True}).encode()
    return service.ask("POST", "/v1/tasks/intent", body, Content_Type="application/json")


@pytest.mark.timeout(360)
def test_a_prompt_that_does_worse_on_its_gold_cases_is_refused_until_somebody_insists_and_goes_back(
    start_service: StartService, few_prompts: Path, tmp_path: Path
) -> None:
    service = start_service(QAIO_PROMPTS=str(few_prompts))

    def command(*words: str) -> subprocess.CompletedProcess[str]:
        kept = {
            "QAIO_PROMPTS": str(few_prompts),
            "QAIO_PROMPTS_KEPT": str(service.log_file.parent / f"prompts-{service.port}"),
        }
        return forked.run("prompts", *words, environment=environment(service.port, tmp_path, kept))

    good, file = _in_force(service), few_prompts / "intent" / "prompt.md"
    text = file.read_text("utf-8")
    head, _ = text.rsplit("---\n", 1)
    file.write_text(f"{head}---\nAlways the same: $text\nWhat day is it:\n", "utf-8")
    reload(service)
    until(lambda: "not reloaded" in service.log, "the reload is refused", TRIAL_S)
    assert "intent: " in service.log and "QAIO_PROMPTS_MAY_LOSE" in service.log
    assert _in_force(service) == good
    forced = command("reload", "--force")
    assert forced.returncode == 0, forced.stderr
    until(lambda: _in_force(service) != good, "the worse one is in force")
    assert command("back").returncode == 0
    until(lambda: _in_force(service) == good, "the earlier one is in force")
    assert file.read_text("utf-8") == text
    listed = json.loads(command("list", "--json").stdout)["versions"]
    assert [entry["why"] for entry in listed] == ["back", "forced", "start"]


@pytest.mark.timeout(360)
def test_reloads_under_load_lose_no_request_and_each_answer_is_of_one_whole_version(
    start_service: StartService, few_prompts: Path
) -> None:
    service = start_service(QAIO_PROMPTS=str(few_prompts), QAIO_PROMPTS_MAY_LOSE="1", QAIO_CACHE_MB="0")
    file = few_prompts / "intent" / "prompt.md"
    texts = [file.read_text("utf-8"), file.read_text("utf-8").replace("$text", "$text。")]
    enough, replies = threading.Event(), list[Reply]()

    def ask_on() -> None:
        while not enough.is_set():
            replies.append(_judged(service))

    clients = [threading.Thread(target=ask_on) for _ in range(3)]
    for client in clients:
        client.start()
    try:
        for times in range(1, RELOADS + 1):
            file.write_text(texts[times % 2], "utf-8")
            reload(service)
            until(lambda: service.log.count("are in force") == times, "the new worker has taken over", 240)  # noqa: B023
    finally:
        enough.set()
        for client in clients:
            client.join()
    assert {reply.status for reply in replies} == {200}
    pairs = {(reply.headers["X-Prompt-Version"], reply.json["detail"]["prompt_version"]) for reply in replies}
    assert len(pairs) == 2, "two versions, each with its own prompt"
