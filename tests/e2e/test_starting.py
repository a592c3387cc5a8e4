"""What an operator meets: a wrong setting stops the start, a missing model does not."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

from tests.e2e.conftest import PROJECT, Service, StartService, assert_is_chat, environment, free_port, until

# From the first answer of a worker to the reason why it is not ready.
PROMISED_S = 10.0


def assert_stops_with_one_line(service: Service, *words: str) -> None:
    assert service.process.wait(30) not in (0, None)
    lines = [line for line in service.log.splitlines() if line.strip()]
    assert len(lines) == 1, service.log
    assert lines[0].startswith("qwen-allinone cannot start: ")
    for word in words:
        assert word in lines[0]


def test_an_unknown_setting_stops_the_start_and_is_named(start_service: StartService) -> None:
    service = start_service(ready=False, QAIO_WORKER="2")
    assert_stops_with_one_line(service, "QAIO_WORKER:", "QAIO_WORKERS")


def test_a_chinese_terminal_is_told_in_chinese_why_it_does_not_start(
    start_service: StartService, tmp_path: Path
) -> None:
    setting = start_service(ready=False, QAIO_WORKER="2", LANG="zh_CN.UTF-8")
    assert setting.process.wait(30) != 0
    assert setting.log.startswith(
        "qwen-allinone 无法启动：QAIO_WORKER：没有这个设置，也许是 QAIO_WORKERS（有的是：QAIO_"
    )
    prompts = shutil.copytree(PROJECT / "prompts", tmp_path / "prompts")
    (prompts / "intent" / "prompt.md").write_text("---\n", encoding="utf-8")
    file = start_service(ready=False, QAIO_PROMPTS=str(prompts), LC_ALL="zh_CN.UTF-8")
    assert file.process.wait(30) != 0
    end = "intent/prompt.md：(front matter)：缺失或没有结束。改法：请以一行 `---` 开始，以另一行结束"
    assert file.log.startswith("qwen-allinone 无法启动：") and file.log.strip().endswith(end)


def test_a_value_out_of_range_stops_the_start_and_is_named(start_service: StartService) -> None:
    service = start_service(ready=False, QAIO_SLOTS="many", QAIO_DEADLINE_S="-1")
    assert_stops_with_one_line(service, "QAIO_SLOTS='many'", "QAIO_DEADLINE_S='-1'")


def test_a_broken_task_file_stops_the_start_and_is_named(start_service: StartService, tmp_path: Path) -> None:
    prompts = shutil.copytree(PROJECT / "prompts", tmp_path / "prompts")
    file = prompts / "sentiment" / "prompt.md"
    file.write_text(file.read_text(encoding="utf-8").replace("kind: label", "kind: lable"), encoding="utf-8")
    service = start_service(ready=False, QAIO_PROMPTS=str(prompts))
    assert_stops_with_one_line(service, "sentiment/prompt.md", "output.kind", "Fix:")


def test_a_port_that_another_program_has_stops_the_start_and_is_named(start_service: StartService) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        service = start_service(ready=False, QAIO_PORT=port)
        assert_stops_with_one_line(service, f"QAIO_PORT={port}", "another program")


def test_an_address_of_another_machine_stops_the_start_and_is_named(start_service: StartService) -> None:
    assert_stops_with_one_line(start_service(ready=False, QAIO_HOST="192.0.2.1"), "QAIO_HOST=192.0.2.1")


def assert_lives_without_a_model(service: Service, *words: str) -> None:
    """The process answers, says in time and in full what is wrong, and does not restart for ever."""
    until(lambda: service.answers("/livez", 200), "the worker answers")
    until(lambda: "problem" in service.ask("GET", "/readyz").json, "the reason is known", PROMISED_S)
    ready = service.ask("GET", "/readyz")
    assert (ready.status, ready.json["status"]) == (503, "failed")
    problem = ready.json["problem"]
    for word in (*words, "Three ways out", "HF_HOME=", "QAIO_MODEL=demo"):
        assert word in problem
    assert service.log.count(f"model not loaded: {problem}") == 1
    assert "Traceback" not in service.log
    chat = service.chat("今天很开心")
    assert (chat.status, chat.json["code"]) == (503, "not_ready")
    assert int(chat.headers["Retry-After"]) >= 1
    assert service.ask("GET", "/livez").status == 200
    assert service.process.poll() is None
    assert service.log.count("Booting worker") == 1


def test_a_model_folder_that_is_missing(start_service: StartService, tmp_path: Path) -> None:
    folder = tmp_path / "nothing"
    assert_lives_without_a_model(start_service(ready=False, QAIO_MODEL=str(folder)), str(folder), "does not exist")


def test_weights_that_are_truncated(start_service: StartService, model_folder: Path) -> None:
    weights = model_folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    service = start_service(ready=False, QAIO_MODEL=str(model_folder))
    assert_lives_without_a_model(service, "model.safetensors", "truncated")


def test_a_model_of_another_architecture(start_service: StartService, model_folder: Path) -> None:
    config = json.loads((model_folder / "config.json").read_text(encoding="utf-8"))
    config["architectures"] = ["LlamaForCausalLM"]
    (model_folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    service = start_service(ready=False, QAIO_MODEL=str(model_folder))
    assert_lives_without_a_model(service, "LlamaForCausalLM", "Qwen2ForCausalLM")


def test_a_hub_that_is_out_of_reach(start_service: StartService) -> None:
    service = start_service(ready=False, QAIO_MODEL="Qwen/Qwen1.5-0.5B")
    assert_lives_without_a_model(service, "Qwen/Qwen1.5-0.5B", "out of reach")


def test_a_hub_that_never_answers(start_service: StartService) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        service = start_service(ready=False, QAIO_MODEL="Qwen/Qwen1.5-0.5B", HF_ENDPOINT=endpoint)
        assert_lives_without_a_model(service, "Qwen/Qwen1.5-0.5B", "out of reach")


def test_a_model_deleted_while_it_is_in_use(start_service: StartService, model_folder: Path) -> None:
    """The worker that has it serves on; one that starts afterwards says what is missing."""
    service = start_service(QAIO_MODEL=str(model_folder))
    shutil.rmtree(model_folder)
    for _ in range(3):
        assert_is_chat(service.chat("今天很开心"))
    assert service.chat("今天很开心").headers["X-Model"] == quote("模型")
    (worker,) = service.workers
    os.kill(worker, signal.SIGKILL)
    until(lambda: service.workers not in ([], [worker]), "a new worker is started")
    until(lambda: service.answers("/readyz", 503), "the new worker answers")
    until(lambda: "problem" in service.ask("GET", "/readyz").json, "the reason is known", PROMISED_S)
    assert "does not exist" in service.ask("GET", "/readyz").json["problem"]
    assert service.process.poll() is None


def test_make_demo_says_little_and_what_to_try(tmp_path: Path) -> None:
    port = free_port()
    asked = ["make", "-o", "install", "demo", f"PY={sys.executable}"]
    given = {"QAIO_SESSIONS_FILE": str(tmp_path / "sessions.db")}
    with subprocess.Popen(
        asked, cwd=PROJECT, env=environment(port, tmp_path, given), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, start_new_session=True,
    ) as demo:  # fmt: skip
        try:
            said = list[str]()
            for line in demo.stdout or ():
                said.append(line)
                if "ready: model demo" in line:
                    break
        finally:
            os.killpg(demo.pid, signal.SIGTERM)
    assert "ready: model demo" in said[-1], said
    assert len(said) <= 8, said
    assert f"curl -X POST localhost:{port}/chat" in "".join(said)
