"""Finding a model on the hub: a small hub on loopback, and `find` in a process of its own as at every start.

The hub's client reads its settings when it is imported, so it must not be imported before the process begins;
torch, which takes seconds to import, is: the processes are forked from one that has done it.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from tests.support import forked

NAME = "someone/small-model"
MAIN, PINNED = "a" * 40, "b" * 40
# What an operator waits for the log line, from the call to the error.
PROMISED_S = 10.0

_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["torch", "pytest"])


def start(answers: Connection, environment: dict[str, str], name: str, revision: str) -> None:
    """What a worker does first, in a fresh process: find the model. Sends the folder or the error, and the seconds."""
    for key in [key for key in os.environ if key.startswith(("HF_", "QAIO_", "HUGGINGFACE"))]:
        del os.environ[key]
    os.environ |= environment
    from qwen_allinone.errors import CheckpointError
    from qwen_allinone.model.checkpoint import find

    began = time.monotonic()
    answer: dict[str, object] = {}
    try:
        answer["folder"] = find(name, revision)
    except CheckpointError as error:
        answer["error"] = str(error)
    answers.send(answer | {"seconds": time.monotonic() - began})


def files_of(commit: str) -> dict[str, bytes]:
    """A repository as it lies on the hub: what the service reads, and what it must leave alone."""
    return {
        "config.json": f'{{"commit": "{commit}"}}'.encode(),
        "generation_config.json": b'{"eos_token_id": 1}',
        "tokenizer.json": b"{}" * 1000,
        "tokenizer_config.json": b"{}",
        "model.safetensors": commit.encode() * 20_000,
        "README.md": b"# not needed",
        "pytorch_model.bin": b"a pickle",
        "modeling_custom.py": b"raise SystemExit('code from the hub was run')",
    }


def sibling(name: str, content: bytes) -> dict[str, object]:
    """As the hub tells of a file: large ones with their SHA-256."""
    known: dict[str, object] = {"rfilename": name, "size": len(content)}
    if name.endswith(".safetensors"):
        digest = hashlib.sha256(content).hexdigest()
        known["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 134}
    return known


class Hub(ThreadingHTTPServer):
    """As much of the hub's API as `snapshot_download` asks for. Counts requests; `fault` may answer first."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.commits = {MAIN: files_of(MAIN), PINNED: files_of(PINNED)}
        self.branches = {"main": MAIN, "v1.0": PINNED}
        self.requests: list[str] = []
        self.fault: Callable[[_Handler, str], bool] = lambda handler, path: False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def downloaded(self) -> set[str]:
        """Names of the files that were asked for with GET."""
        return {line.rsplit("/", 1)[-1] for line in self.requests if line.startswith("GET") and "/resolve/" in line}

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that is killed in the middle of a download is part of the test."""


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append(f"{self.command} {path}")
        if self.server.fault(self, path):
            return
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"] and "/".join(parts[2:4]) == NAME:
            self._answer_api(parts[4], "/".join(parts[5:]))
        elif "/".join(parts[:2]) == NAME and parts[2] == "resolve":
            self._answer_file(parts[3], "/".join(parts[4:]))
        else:
            self.refuse(404, "RepoNotFound", "Repository not found")

    do_HEAD = do_GET

    def _answer_api(self, what: str, revision: str) -> None:
        commit = self.server.branches.get(revision, revision)
        if commit not in self.server.commits:
            self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return
        files = self.server.commits[commit]
        if what == "revision":
            siblings = [sibling(name, content) for name, content in files.items()]
            self.send_json({"id": NAME, "modelId": NAME, "sha": commit, "siblings": siblings, "tags": []})
        else:
            self.send_json(
                [
                    {"type": "file", "path": n, "size": len(b), "oid": hashlib.sha1(b).hexdigest()}
                    for n, b in files.items()
                ]
            )

    def _answer_file(self, revision: str, name: str) -> None:
        commit = self.server.branches.get(revision, revision)
        content = self.server.commits[commit][name]
        self.start_file(commit, content)
        if self.command == "GET":
            self.wfile.write(content)

    def start_file(self, commit: str, content: bytes) -> None:
        self.send_response(200)
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()

    def send_json(self, value: object, status: int = 200, **headers: str) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        for key, text in headers.items():
            self.send_header(key.replace("_", "-"), text)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def refuse(self, status: int, code: str, message: str) -> None:
        self.send_json({"error": message}, status, X_Error_Code=code, X_Error_Message=message)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(5)


@dataclass
class Started:
    """A process that looks for its model."""

    process: BaseProcess
    answers: Connection

    def answer(self) -> dict[str, Any]:
        """Its folder or error, and the seconds it took."""
        assert self.answers.poll(60), "find() did not come back within a minute"
        return dict(self.answers.recv())

    def __enter__(self) -> Started:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.join(10)
        self.process.close()
        self.answers.close()


class Machine:
    """A machine with its own hub cache, on which the service is started now and then."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def start(self, endpoint: str, name: str = NAME, revision: str = "main", **extra: str) -> dict[str, Any]:
        """`find` in a new process; returns its folder or error, and the seconds it took."""
        with self.begin(endpoint, name, revision, **extra) as started:
            return started.answer()

    def begin(self, endpoint: str, name: str = NAME, revision: str = "main", **extra: str) -> Started:
        environment = {
            "HF_HOME": str(self.home),
            "HF_ENDPOINT": endpoint,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "*",
        }
        answers, sender = _PROCESSES.Pipe(duplex=False)
        process = _PROCESSES.Process(target=start, args=(sender, environment | extra, name, revision))
        process.start()
        sender.close()
        return Started(process, answers)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def assert_names_the_ways_out(error: str) -> None:
    assert "Three ways out" in error
    for way in ("HF_HOME=", "local folder", "QAIO_MODEL=demo"):
        assert way in error


def test_the_first_start_downloads_what_the_service_reads_and_nothing_else(hub: Hub, machine: Machine) -> None:
    folder = machine.start(hub.url)["folder"]
    wanted = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"}
    assert {file.name for file in folder.iterdir()} == wanted == hub.downloaded()
    for name in wanted:
        assert (folder / name).read_bytes() == hub.commits[MAIN][name]


def test_the_second_start_asks_the_hub_nothing_and_needs_no_hub(hub: Hub, machine: Machine) -> None:
    first = machine.start(hub.url)
    hub.requests.clear()
    hub.branches["main"] = PINNED  # a newer commit does not change what runs without anyone's doing
    assert machine.start(hub.url)["folder"] == first["folder"]
    assert hub.requests == []
    nowhere = f"http://127.0.0.1:{closed_port()}"
    assert machine.start(nowhere)["folder"] == first["folder"]
    assert machine.start(nowhere, HF_HUB_OFFLINE="1")["folder"] == first["folder"]


@pytest.mark.parametrize("revision", ["v1.0", PINNED])
def test_another_revision_is_downloaded_and_kept_beside_main(hub: Hub, machine: Machine, revision: str) -> None:
    main = machine.start(hub.url)["folder"]
    pinned = machine.start(hub.url, revision=revision)["folder"]
    assert pinned != main
    assert (pinned / "model.safetensors").read_bytes() == hub.commits[PINNED]["model.safetensors"]
    hub.requests.clear()
    assert machine.start(hub.url, revision=revision)["folder"] == pinned
    assert machine.start(hub.url)["folder"] == main
    assert hub.requests == []


@pytest.mark.parametrize("revision", ["main", PINNED])
def test_a_refused_connection_is_reported_in_time(machine: Machine, revision: str) -> None:
    answer = machine.start(f"http://127.0.0.1:{closed_port()}", revision=revision)
    assert "out of reach" in answer["error"] and NAME in answer["error"]
    assert_names_the_ways_out(answer["error"])
    assert answer["seconds"] < PROMISED_S


@pytest.mark.parametrize("revision", ["main", PINNED])
def test_a_hub_that_accepts_and_never_answers_is_reported_in_time(machine: Machine, revision: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        answer = machine.start(f"http://127.0.0.1:{silent.getsockname()[1]}", revision=revision)
    assert "out of reach" in answer["error"] and NAME in answer["error"]
    assert_names_the_ways_out(answer["error"])
    assert answer["seconds"] < PROMISED_S


def test_a_hub_that_answers_drop_by_drop_is_reported_in_time(hub: Hub, machine: Machine) -> None:
    """Each byte resets a read timeout, so only a limit on the whole question helps."""

    def drip(handler: _Handler, path: str) -> bool:
        for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"a" * 100:
            handler.wfile.write(bytes([byte]))
            time.sleep(0.3)
        return True

    hub.fault = drip
    answer = machine.start(hub.url)
    assert "out of reach" in answer["error"]
    assert_names_the_ways_out(answer["error"])
    assert answer["seconds"] < PROMISED_S


def test_a_hub_in_trouble_is_reported_in_time(hub: Hub, machine: Machine) -> None:
    def trouble(handler: _Handler, path: str) -> bool:
        handler.refuse(503, "Unavailable", "the hub is being repaired")
        return True

    hub.fault = trouble
    answer = machine.start(hub.url, revision=PINNED)
    assert "503" in answer["error"]
    assert_names_the_ways_out(answer["error"])
    assert answer["seconds"] < PROMISED_S


def test_offline_mode_without_a_cache_says_so(machine: Machine, hub: Hub) -> None:
    answer = machine.start(hub.url, HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE" in answer["error"] and NAME in answer["error"]
    assert_names_the_ways_out(answer["error"])
    assert hub.requests == []


def test_a_repository_that_does_not_exist_is_named(hub: Hub, machine: Machine) -> None:
    answer = machine.start(hub.url, name="someone/misspelt")
    assert "'someone/misspelt'" in answer["error"] and "404" in answer["error"]
    assert "out of reach" not in answer["error"]
    assert_names_the_ways_out(answer["error"])


def test_a_revision_that_does_not_exist_is_named(hub: Hub, machine: Machine) -> None:
    answer = machine.start(hub.url, revision="v9.9")
    assert "'v9.9'" in answer["error"] and NAME in answer["error"]
    assert "out of reach" not in answer["error"]
    assert_names_the_ways_out(answer["error"])


def test_a_connection_cut_in_the_middle_leaves_nothing_that_passes_for_a_model(hub: Hub, machine: Machine) -> None:
    cuts = []

    def cut(handler: _Handler, path: str) -> bool:
        if not path.endswith("model.safetensors") or handler.command != "GET":
            return False
        if cuts:  # no more of it today
            handler.refuse(503, "Unavailable", "cut")
            return True
        cuts.append(path)
        content = hub.commits[MAIN]["model.safetensors"]
        handler.start_file(MAIN, content)
        handler.wfile.write(content[: len(content) // 2])
        handler.wfile.flush()
        handler.close_connection = True
        return True

    hub.fault = cut
    answer = machine.start(hub.url)
    assert cuts and NAME in answer["error"]
    assert_names_the_ways_out(answer["error"])
    assert_only_a_whole_download_is_accepted(hub, machine)


def test_a_start_killed_while_it_downloads_is_made_good_by_the_next(hub: Hub, machine: Machine) -> None:
    half_sent = threading.Event()

    def stall(handler: _Handler, path: str) -> bool:
        if not path.endswith("model.safetensors") or handler.command != "GET":
            return False
        content = hub.commits[MAIN]["model.safetensors"]
        handler.start_file(MAIN, content)
        handler.wfile.write(content[: len(content) // 2])
        handler.wfile.flush()
        half_sent.set()
        time.sleep(2)
        handler.close_connection = True
        return True

    hub.fault = stall
    with machine.begin(hub.url):  # and killed at the end of the block
        assert half_sent.wait(30)
    assert_only_a_whole_download_is_accepted(hub, machine)


def assert_only_a_whole_download_is_accepted(hub: Hub, machine: Machine) -> None:
    """After half a download: no start from the cache alone; with the hub back, the rest is fetched."""
    hub.fault = lambda handler, path: False
    without = machine.start(f"http://127.0.0.1:{closed_port()}")
    assert "out of reach" in without["error"]
    folder = machine.start(hub.url)["folder"]
    assert (folder / "model.safetensors").read_bytes() == hub.commits[MAIN]["model.safetensors"]


def test_two_workers_that_start_together_both_find_a_whole_model(hub: Hub, machine: Machine) -> None:
    with machine.begin(hub.url) as one, machine.begin(hub.url) as other:
        folder = one.answer()["folder"]
        assert other.answer()["folder"] == folder
    assert (folder / "model.safetensors").read_bytes() == hub.commits[MAIN]["model.safetensors"]


def test_a_name_that_is_neither_folder_nor_hub_id_is_refused_without_a_call(hub: Hub, machine: Machine) -> None:
    answer = machine.start(hub.url, name="not a model")
    assert "'not a model' is neither a folder nor a valid hub id" in answer["error"]
    assert_names_the_ways_out(answer["error"])
    assert hub.requests == []


def download(machine: Machine, endpoint: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`qwen-allinone download` as it is typed."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith(("HF_", "QAIO_"))}
    environment |= {"HF_HOME": str(machine.home), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "*"}
    return forked.run("download", *arguments, environment=environment)


def test_a_download_says_how_much_it_is_and_where_and_a_second_one_fetches_nothing(hub: Hub, machine: Machine) -> None:
    folder = machine.home / "copy"
    done = download(machine, hub.url, NAME, "--to", str(folder))
    assert done.returncode == 0, done.stderr
    assert "5 files, 0.8 MB" in done.stdout and f"to fetch into {folder}: 0.8 MB" in done.stdout
    assert f"complete: QAIO_MODEL={folder}" in done.stdout
    assert (folder / "model.safetensors").read_bytes() == hub.commits[MAIN]["model.safetensors"]
    assert not (folder / "pytorch_model.bin").exists()
    hub.requests.clear()
    again = download(machine, hub.url, NAME, "--to", str(folder))
    assert again.returncode == 0 and ": 0.0 MB" in again.stdout
    assert hub.downloaded() == set()


def test_a_file_that_is_not_the_hubs_is_removed_and_comes_anew_the_next_time(hub: Hub, machine: Machine) -> None:
    assert download(machine, hub.url, NAME).returncode == 0
    weights = next(machine.home.rglob("snapshots/*/model.safetensors"))
    weights.resolve().write_bytes(b"b" * weights.stat().st_size)
    told = download(machine, hub.url, NAME)
    assert told.returncode == 2
    assert "was not what the hub has and was removed: run the same command again" in told.stderr.replace("\n", " ")
    assert download(machine, hub.url, NAME).returncode == 0
    assert weights.read_bytes() == hub.commits[MAIN]["model.safetensors"]
    assert machine.start(f"http://127.0.0.1:{closed_port()}", HF_HUB_OFFLINE="1")["folder"] == weights.parent


def test_a_download_without_a_hub_says_so_in_one_line(machine: Machine) -> None:
    told = download(machine, f"http://127.0.0.1:{closed_port()}", NAME)
    assert told.returncode == 2
    assert "out of reach" in told.stderr and "Traceback" not in told.stderr


@pytest.mark.parametrize("name", ["demo", "."])
def test_what_is_on_this_machine_is_not_downloaded(machine: Machine, hub: Hub, name: str) -> None:
    told = download(machine, hub.url, name)
    assert told.returncode == 2 and "is on this machine already" in told.stderr
    assert hub.requests == []
