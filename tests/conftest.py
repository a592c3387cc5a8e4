"""Fixtures for all tests: tiny checkpoints, the demo's checkpoint, and settings that keep runs short and repeatable."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

# Before anything imports them: no test may reach the hub, and forked tokenizers must not warn.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest
import torch
from hypothesis import HealthCheck, settings

from qwen_allinone.model.tokenizer import Tokenizer
from qwen_allinone.telemetry.logs import StderrHandler
from tests.support import postgres_server
from tests.support.checkpoints import Shape, write_checkpoint, write_tokenizer
from tests.support.redis_server import BINARY, WHY_NOT, RedisServer

PROJECT = Path(__file__).resolve().parents[1]

# derandomize: the same examples on every run, so that a failure is about the change and not about luck.
settings.register_profile(
    "tests",
    deadline=None,
    derandomize=True,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("tests")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rows", type=int, default=300, help="rows of the feedback desk's kill tests; 20000: the full proof"
    )
    parser.addoption("--kills", type=int, default=3, help="kills in each of them; 20: the full proof")


@pytest.fixture
def rows(request: pytest.FixtureRequest) -> int:
    """How many rows a test of kills goes through."""
    return int(request.config.getoption("--rows"))


@pytest.fixture
def kills(request: pytest.FixtureRequest) -> int:
    """How often it kills."""
    return int(request.config.getoption("--kills"))


@pytest.fixture(scope="session", autouse=True)
def _one_compute_thread() -> Iterator[None]:
    """Tiny matrices are faster on one thread, and tests share the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _no_qaio_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own QAIO_* variables must not change what a test sees."""
    for name in [name for name in os.environ if name.startswith("QAIO_")]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """A test that sets the service's logging up must not decide what later tests see."""
    root, hooks = logging.getLogger(), (sys.excepthook, threading.excepthook)
    level = root.level
    yield
    for handler in [handler for handler in root.handlers if isinstance(handler, StderrHandler)]:
        root.removeHandler(handler)
    root.setLevel(level)
    logging.captureWarnings(False)
    sys.excepthook, threading.excepthook = hooks


@pytest.fixture(scope="session")
def prompts_folder() -> Path:
    """The tasks that ship with the project."""
    return PROJECT / "prompts"


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer with Qwen's control tokens and chat template, no weights."""
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole tiny checkpoint: grouped-query attention, biases, tied embedding, random weights."""
    return write_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def untied_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `tiny_checkpoint`, with as many key heads as query heads and a head of its own."""
    return write_checkpoint(tmp_path_factory.mktemp("untied"), Shape(kv_heads=4, tied=False, theta=1e6), seed=1)


@pytest.fixture(scope="session")
def demo_checkpoint() -> Path:
    """The checkpoint that ships with the project."""
    folder = PROJECT / "demo" / "checkpoint"
    if not (folder / "model.safetensors").exists():
        pytest.skip("demo/checkpoint/model.safetensors is absent: train it with `python -m demo.train`")
    return folder


@pytest.fixture(scope="module")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One that the tests of a module share."""
    yield from _redis_in(tmp_path_factory.mktemp("redis"))


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """One for a test alone."""
    yield from _redis_in(tmp_path)


@pytest.fixture(scope="session")
def shared_postgres() -> Iterator[postgres_server.PostgresServer]:
    """One that all tests share; each makes a database of its own."""
    yield from _postgres()


@pytest.fixture
def own_postgres() -> Iterator[postgres_server.PostgresServer]:
    """One for a test alone."""
    yield from _postgres()


def _postgres() -> Iterator[postgres_server.PostgresServer]:
    if why := postgres_server.why_not():
        pytest.skip(why)
    server = postgres_server.PostgresServer()
    yield server
    server.end()


def _redis_in(folder: Path) -> Iterator[RedisServer]:
    if BINARY is None:
        pytest.skip(WHY_NOT)
    server = RedisServer(folder)
    yield server
    server.end()


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every text that a tokenizer encodes from here on, in order."""
    texts: list[str] = []
    encode = Tokenizer.encode

    def record(self: Tokenizer, text: str) -> list[int]:
        texts.append(text)
        return encode(self, text)

    monkeypatch.setattr(Tokenizer, "encode", record)
    return texts
