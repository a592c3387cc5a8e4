"""Conversations over two real workers, or two servers: either may answer the next turn, and either may be killed between
two."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import GUNICORN, PATIENCE_S, PROJECT, Reply, Service, assert_is_chat, services, until
from tests.support.events import Event, read_events
from tests.support.postgres_server import PostgresServer
from tests.support.redis_server import RedisServer
from tests.support.tasks import make_greedy

TEXTS = ["今天被领导批评了", "还要加班到半夜", "同事给我带了晚饭，很暖心", "明天还要早起", "周末想去看海"]


needs_no_second_store = pytest.mark.parametrize("chatty", ["sqlite"], indirect=True)


@dataclass(frozen=True)
class Turned:
    """A streamed turn: what it said, and how many tokens of the prompts had to be computed."""

    session: str
    response: str
    computed: int


@dataclass
class Chatty:
    """Two workers whose replies are short, the likeliest, and the same for the same prompt; steps take 30 ms more."""

    service: Service
    home: Path

    @contextmanager
    def slowly(self) -> Iterator[None]:
        """While it lasts a reply takes seconds, so that there is time to do something in the middle of it."""
        (self.home / "slow").touch()
        try:
            yield
        finally:
            (self.home / "slow").unlink()

    def post(self, text: str, **fields: Any) -> Reply:
        body = json.dumps({"text": text} | fields).encode()
        return self.service.ask("POST", "/chat", body, Content_Type="application/json")

    @contextmanager
    def stream(self, text: str, **fields: Any) -> Iterator[Iterator[Event]]:
        """The events as they come; leaving the context closes the connection."""
        connection = http.client.HTTPConnection("127.0.0.1", self.service.port, timeout=PATIENCE_S)
        try:
            body = json.dumps({"text": text, "stream": True} | fields).encode()
            connection.request("POST", "/chat", body, {"Content-Type": "application/json", "Connection": "close"})
            response = connection.getresponse()
            try:
                assert response.status == 200, response.read()
                yield (event for event in read_events(iter(response.read1, b"")) if event.name != "ping")
            finally:
                response.close()
        finally:
            connection.close()

    def turn(self, text: str, session: str | None = None) -> Turned:
        fields = {"session_id": session} if session else {"session": True}
        with self.stream(text, **fields) as events:
            heard = list(events)
        assert heard[-1].name == "done"
        usage = heard[-1].data["usage"]
        response = "".join(event.data["text"] for event in heard if event.name == "delta")
        return Turned(heard[0].data["session_id"], response, usage["prompt_tokens"] - usage["reused_tokens"])

    def stored(self, session: str) -> list[str]:
        reply = self.service.ask("GET", f"/v1/sessions/{session}")
        assert reply.status == 200, reply.data
        return [turn["text"] for turn in reply.json["turns"]]

    @contextmanager
    def only(self, worker: int) -> Iterator[None]:
        """While it lasts, all that comes is answered by that worker."""
        others = [pid for pid in self.service.workers if pid != worker]
        for pid in others:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in others:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def kill(self, *workers: int) -> None:
        """kill -9, and wait for those that take their place."""
        before = self.service.log.count("ready: model")
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        until(lambda: self.service.log.count("ready: model") == before + len(workers), "new workers are ready")


@pytest.fixture(scope="module", params=["sqlite", "redis", "postgres"])
def chatty(
    request: pytest.FixtureRequest, demo_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Chatty]:
    home = tmp_path_factory.mktemp("chatty")
    # Without `care`, whose vetted text would come at once where a model takes one of the texts here for despair.
    shutil.copytree(PROJECT / "prompts", home / "prompts", ignore=shutil.ignore_patterns("care"))
    make_greedy(home / "prompts" / "chat", 12)
    given = {
        "QAIO_WORKERS": "2",
        "QAIO_PROMPTS": str(home / "prompts"),
        "FAULT_FOLDER": str(home),
        "FAULT_STEP_S": "0.03",
    }
    if request.param == "redis":
        given["QAIO_REDIS_URL"] = request.getfixturevalue("shared_redis").url
    if request.param == "postgres":
        given["QAIO_STATE_URL"] = request.getfixturevalue("shared_postgres").new_database("chatty")
    given["QAIO_SESSIONS_FILE"] = str(home / "state" / "sessions.db")
    with services(home) as start:
        yield Chatty(start(command=(*GUNICORN, "tests.support.faulty_app:app"), **given), home)


@pytest.fixture(scope="module")
def said(chatty: Chatty) -> list[Turned]:
    """The conversation of TEXTS on one worker, undisturbed."""
    turns: list[Turned] = []
    with chatty.only(chatty.service.workers[0]):
        for text in TEXTS:
            turns.append(chatty.turn(text, turns[0].session if turns else None))
    return turns


@needs_no_second_store
def test_on_one_worker_a_turn_computes_what_is_new_only(said: list[Turned]) -> None:
    # Both prompts of a chat: of the sentiment's the text and what follows it; of the reply's the last token before it,
    # the roles around the new text, the text, and a system message where the mood has changed.
    assert max(turned.computed for turned in said[1:]) < 130, said


def test_a_turn_is_the_same_whichever_worker_answers_it(chatty: Chatty, said: list[Turned]) -> None:
    workers = chatty.service.workers
    session = None
    turns = []
    for number, text in enumerate(TEXTS[:4]):
        with chatty.only(workers[number % 2]):
            turns.append(chatty.turn(text, session))
        session = turns[0].session
    assert [turned.response for turned in turns] == [turned.response for turned in said[:4]]
    assert turns[3].computed > said[3].computed, "it was the other worker, which had to compute the turns between"
    assert chatty.stored(str(session)) == TEXTS[:4]


def test_after_kill_9_of_every_worker_the_next_turn_remembers_all(chatty: Chatty, said: list[Turned]) -> None:
    session = chatty.turn(TEXTS[0]).session
    for text in TEXTS[1:3]:
        chatty.turn(text, session)
    chatty.kill(*chatty.service.workers)
    assert chatty.stored(session) == TEXTS[:3]
    assert chatty.turn(TEXTS[3], session).response == said[3].response
    assert chatty.stored(session) == TEXTS[:4]


def test_kill_9_in_the_middle_of_a_turn_stores_no_half_and_holds_nobody_up(chatty: Chatty, said: list[Turned]) -> None:
    session = chatty.turn(TEXTS[0]).session
    chatty.turn(TEXTS[1], session)
    victim = chatty.service.workers[0]
    before = chatty.service.log.count("ready: model")
    with chatty.only(victim), chatty.slowly(), chatty.stream("没有说完的话", session_id=session) as events:
        assert next(events).name == "sentiment"
        os.kill(victim, signal.SIGKILL)
        with pytest.raises((http.client.HTTPException, OSError, AssertionError)):
            assert [event.name for event in events][-1] == "done"
    # At once, by the worker that is left: the lease of one that is dead counts for nothing.
    assert chatty.turn(TEXTS[2], session).response == said[2].response
    assert chatty.stored(session) == TEXTS[:3]
    until(lambda: chatty.service.log.count("ready: model") == before + 1, "a new worker is ready")


def test_of_two_at_once_on_two_workers_one_is_told_to_wait_and_none_is_lost(chatty: Chatty) -> None:
    session = chatty.turn(TEXTS[0]).session
    one, other = chatty.service.workers
    with ExitStack() as stack:
        with chatty.slowly():
            with chatty.only(one):
                events = stack.enter_context(chatty.stream(TEXTS[1], session_id=session))
                assert next(events).name == "sentiment"
            with chatty.only(other):
                refused = chatty.post(TEXTS[2], session_id=session)
        assert (refused.status, refused.json["code"]) == (409, "session_busy")
        assert int(refused.headers["Retry-After"]) >= 1
        assert [event.name for event in events][-1] == "done"
    assert chatty.post(TEXTS[2], session_id=session).status == 200
    assert chatty.stored(session) == TEXTS[:3]


@needs_no_second_store
def test_of_a_crowd_in_one_session_every_answer_is_kept_once(chatty: Chatty) -> None:
    session = chatty.turn(TEXTS[0]).session

    def insist(number: int) -> str:
        text = f"第{number}个人说的话"
        answered = 0
        while answered != 200:
            answered = chatty.post(text, session_id=session).status
            assert answered in (200, 409)
        return text

    with ThreadPoolExecutor(5) as pool:
        texts = list(pool.map(insist, range(5)))
    assert sorted(chatty.stored(session)[1:]) == sorted(texts)


@needs_no_second_store
def test_a_client_that_leaves_keeps_no_turn(chatty: Chatty) -> None:
    session = chatty.turn(TEXTS[0]).session
    with chatty.slowly(), chatty.stream("没有人等到回答", session_id=session) as events:
        assert next(events).name == "sentiment"
    until(lambda: chatty.post(TEXTS[1], session_id=session).status == 200, "the session is free again")
    assert chatty.stored(session) == TEXTS[:2]


@pytest.mark.parametrize("chatty", ["redis"], indirect=True)
def test_redis_killed_and_back_costs_conversations_a_503_and_no_stored_turn(
    chatty: Chatty, shared_redis: RedisServer
) -> None:
    session = chatty.turn(TEXTS[0]).session
    shared_redis.execute("SAVE")  # what an operator's own settings do by themselves
    shared_redis.kill()
    for _ in range(4):
        refused = chatty.post(TEXTS[1], session_id=session)
        assert (refused.status, refused.json["code"]) == (503, "sessions_unavailable")
        assert int(refused.headers["Retry-After"]) >= 1
        assert_is_chat(chatty.post(TEXTS[1]))
    shared_redis.start()
    until(lambda: chatty.post(TEXTS[1], session_id=session).status == 200, "Redis is asked again")
    for worker in chatty.service.workers:
        with chatty.only(worker):
            path = f"/v1/sessions/{session}"
            until(lambda path=path: chatty.service.ask("GET", path).status == 200, "each worker asks it again")  # type: ignore[misc]
    assert chatty.stored(session) == TEXTS[:2]


@pytest.fixture
def servers(
    demo_checkpoint: Path, own_postgres: PostgresServer, tmp_path: Path
) -> Iterator[tuple[PostgresServer, list[Chatty]]]:
    """Two, as of two machines: each with a disk of its own, both with one PostgreSQL."""
    shutil.copytree(PROJECT / "prompts", tmp_path / "prompts", ignore=shutil.ignore_patterns("care"))
    make_greedy(tmp_path / "prompts" / "chat", 12)
    command = (*GUNICORN, "tests.support.faulty_app:app")
    given = {
        "QAIO_PROMPTS": str(tmp_path / "prompts"),
        "QAIO_STATE_URL": own_postgres.new_database("two"),
        "FAULT_FOLDER": str(tmp_path),
        "FAULT_STEP_S": "0.03",
    }
    with services(tmp_path) as start:
        files = [str(tmp_path / f"{number}" / "sessions.db") for number in range(2)]
        started = [start(command=command, QAIO_SESSIONS_FILE=file, **given) for file in files]
        yield own_postgres, [Chatty(service, tmp_path) for service in started]


def test_two_servers_go_on_with_one_conversation_through_the_loss_of_either_and_of_the_database(
    servers: tuple[PostgresServer, list[Chatty]],
) -> None:
    postgres, (one, other) = servers
    session = one.turn(TEXTS[0]).session
    other.turn(TEXTS[1], session)

    # Of two at once one is told to wait, as the other server holds it.
    with ExitStack() as stack:
        with one.slowly():
            events = stack.enter_context(one.stream(TEXTS[2], session_id=session))
            assert next(events).name == "sentiment"
            refused = other.post("来晚了", session_id=session)
        assert (refused.status, refused.json["code"]) == (409, "session_busy")
        assert [event.name for event in events][-1] == "done"
    assert other.stored(session) == TEXTS[:3]

    # The database goes in the middle of a turn: that one is not kept, and nobody is told that it was.
    with ExitStack() as stack:
        with one.slowly():
            events = stack.enter_context(one.stream("没有存下的话", session_id=session))
            assert next(events).name == "sentiment"
            postgres.kill()
        last = list(events)[-1]
        assert last.name == "error" and last.data["code"] == "sessions_unavailable"
    for server in (one, other):
        for _ in range(2):
            refused = server.post(TEXTS[3], session_id=session)
            assert (refused.status, refused.json["code"]) == (503, "sessions_unavailable")
            assert int(refused.headers["Retry-After"]) >= 1
        assert_is_chat(server.post(TEXTS[3]))
        assert server.service.answers("/readyz", 200), "it still serves"

    # Back: both go on by themselves, with all that was kept.
    postgres.start()
    until(lambda: one.post(TEXTS[3], session_id=session).status == 200, "PostgreSQL is asked again")
    until(lambda: other.service.ask("GET", f"/v1/sessions/{session}").status == 200, "by the other server too")
    assert other.stored(session) == TEXTS[:4]

    # One server is lost; the other goes on, and forgets when it is asked to.
    one.service.process.kill()
    other.turn(TEXTS[4], session)
    assert other.stored(session) == TEXTS
    assert other.service.ask("DELETE", f"/v1/sessions/{session}").status == 200
    until(lambda: TEXTS[0].encode() not in postgres.files(), "what was deleted leaves the files")
    for server in (one, other):
        assert "Traceback" not in server.service.log and "unexpected error" not in server.service.log


def test_nothing_went_wrong_that_nobody_was_told_of(chatty: Chatty) -> None:
    assert "Traceback" not in chatty.service.log and "unexpected error" not in chatty.service.log
