"""What goes for memories in PostgreSQL alone: its files, its absence, its extension, its password."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from qwen_allinone import postgres_link
from qwen_allinone.errors import MemoryUnavailable, StartupError
from qwen_allinone.postgres_link import PostgresLink
from qwen_allinone.state import PostgresMemories, Whose
from tests.support.naive_memories import likest_ids
from tests.support.postgres_server import PASSWORD, PostgresServer

XIAO, OTHER = Whose("alice", "u-1"), Whose(None, "u-1")
MARKED = "Quetzalcoatlus{}"

Make = Callable[..., PostgresMemories]


@pytest.fixture
def make() -> Iterator[Make]:
    opened: list[PostgresLink] = []

    def make(url: str, timeout_s: float = 20.0) -> PostgresMemories:
        opened.append(PostgresLink(url, timeout_s=timeout_s))
        return PostgresMemories(opened[-1], ttl_s=3600.0, most=100, erase_every_s=0.0)

    yield make
    for link in opened:
        link.close()


def vector(*values: float) -> bytes:
    return np.array(values, np.float16).tobytes()


def test_of_what_is_forgotten_no_byte_stays_in_the_files(shared_postgres: PostgresServer, make: Make) -> None:
    """Even while somebody holds a snapshot from before, and though the planner has looked at the tables."""
    url = shared_postgres.new_database("files")
    store = make(url)
    kept = [store.add(XIAO, MARKED.format(number)) for number in range(20)]
    for memory in kept:
        store.put_vector(XIAO, memory, "m", b"Vector%04d" % 1 * 40)
    store.add(OTHER, "Pteranodon")
    store.note(XIAO, MARKED.format("note"), None)
    shared_postgres.execute("ANALYZE", "files")
    assert MARKED.format("note").encode() in shared_postgres.files(), "or the test shows nothing"
    with shared_postgres._psycopg.connect(url, options="-c default_transaction_isolation=serializable") as old:
        old.execute("SELECT count(*) FROM pg_class")
        store.delete(XIAO, kept[0].id)
        assert MARKED.format("0").encode() + b"\x00" not in shared_postgres.files()
        assert store.forget(XIAO) == 19
        found = shared_postgres.files()
    assert b"Quetzalcoatlus" not in found and b"Pteranodon" in found
    assert [memory.text for memory in store.all(OTHER)] == ["Pteranodon"]


def test_a_postgres_that_is_gone_is_a_store_that_cannot_be_used_until_it_is_back(
    own_postgres: PostgresServer, make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("qwen_allinone.away._RETRY_S", 0.0)
    store = make(own_postgres.new_database("gone"))
    memory = store.add(XIAO, "用户有猫")
    own_postgres.kill()
    steps: list[Callable[[], object]] = [
        lambda: store.check_room(XIAO),
        lambda: store.all(XIAO),
        lambda: likest_ids(store, XIAO, "m", vector(1)),
        lambda: store.unread("m", 5),
        lambda: store.add(XIAO, "用户住在杭州"),
        lambda: store.note(XIAO, "我有猫", None),
        lambda: store.take(1.0),
        lambda: store.put_vector(XIAO, memory, "m", vector(1)),
        store.tidy,
        lambda: store.delete(XIAO, memory.id),
        lambda: store.forget(XIAO),
    ]
    for step in steps:
        with pytest.raises(MemoryUnavailable):
            step()
    own_postgres.start()
    assert store.all(XIAO) == [memory], "what was answered outlives a crash"
    told = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(told) == 1 and "does not answer" in told[0].getMessage()


@pytest.mark.parametrize(
    "url", ["postgresql://postgres:hunter2@127.0.0.1:{port}/x", "postgresql://h:hunter2@127.0.0.1:9/x"]
)
def test_a_wrong_password_or_address_is_told_without_quoting_it(
    shared_postgres: PostgresServer, make: Make, caplog: pytest.LogCaptureFixture, url: str
) -> None:
    caplog.set_level(logging.DEBUG)
    store = make(url.format(port=shared_postgres.port), timeout_s=2.0)
    with pytest.raises(MemoryUnavailable) as caught:
        store.all(XIAO)
    said = f"{caught.value} {caught.value.__cause__!r} {caught.value.__cause__.__cause__!r} {caplog.text}"
    assert "does not answer" in said and "hunter" not in said and PASSWORD not in said and "127.0.0.1" not in said


def test_an_extension_that_comes_later_has_the_vectors_made_anew(
    shared_postgres: PostgresServer, make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    url = shared_postgres.new_database("later")
    with monkeypatch.context() as without:
        without.setattr(PostgresLink, "tried", lambda *_: False)
        before = make(url)
        memory = before.add(XIAO, "用户有猫")
        before.put_vector(XIAO, memory, "m", vector(1, 0))
        assert likest_ids(before, XIAO, "m", vector(1, 0)) == [memory.id]
    assert "pgvector is not there" in caplog.text
    after = make(url)
    assert after.unread("m", 5) == [(XIAO, memory)] and likest_ids(after, XIAO, "m", vector(1, 0)) == []
    after.put_vector(XIAO, memory, "m", vector(1, 0))
    assert likest_ids(after, XIAO, "m", vector(1, 0)) == [memory.id]
    with pytest.raises(MemoryUnavailable):
        likest_ids(before, XIAO, "m", vector(1, 0))
    assert likest_ids(before, XIAO, "m", vector(1, 0)) == [memory.id], "it has looked anew"
    (share,) = shared_postgres.execute("SELECT bytes FROM qaio_memory_shares", "later")
    (bytes_kept,) = shared_postgres.execute("SELECT bytes FROM qaio_memories", "later")
    assert share == bytes_kept


def test_a_character_that_postgres_does_not_keep_costs_nothing_else(
    shared_postgres: PostgresServer, make: Make
) -> None:
    store = make(shared_postgres.new_database("nul"))
    store.note(XIAO, "我\x00有猫", None)
    note = store.take(60.0)
    assert note and note.text == "我\N{REPLACEMENT CHARACTER}有猫"
    with pytest.raises(Exception, match="404|memory|记忆"):
        store.delete(XIAO, "\x00")


def test_without_psycopg_the_start_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_link, "psycopg", None)
    with pytest.raises(StartupError, match=r"pip install -r requirements-postgres\.txt") as caught:
        PostgresLink("postgresql://u:hunter2@h/db")
    assert "hunter" not in str(caught.value)
