"""Stores of one SQLite file, one Redis or one PostgreSQL, as several workers make them, and leases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qwen_allinone.postgres_link import PostgresLink
from qwen_allinone.state.lease import Lease
from tests.support.postgres_server import PostgresServer
from tests.support.redis_server import RedisServer

HOUR = 3600.0
STORES = ["sqlite", "redis", "postgres"]


@contextmanager
def links(server: PostgresServer, database: str) -> Iterator[Callable[[], PostgresLink]]:
    """Makes links to a database that is empty at first, one for each worker."""
    url, opened = server.new_database(database), list[PostgresLink]()

    def make(timeout_s: float = 20.0) -> PostgresLink:
        opened.append(PostgresLink(url, timeout_s=timeout_s))
        return opened[-1]

    yield make
    for link in opened:
        link.close()


@contextmanager
def stores(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    sqlite: Callable[..., Any],
    redis: Callable[..., Any],
    postgres: Callable[..., Any],
) -> Iterator[Callable[..., Any]]:
    """Makes stores of the kind that `request.param` names, of STORES; what they share is empty at first."""
    opened: list[Any] = []
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("shared_redis")
        server.execute("FLUSHALL")
        yield lambda ttl_s=HOUR: redis(server.url, ttl_s=ttl_s, owner_mb=1, timeout_s=20.0)
        return
    if request.param == "postgres":
        with links(request.getfixturevalue("shared_postgres"), "stores") as link:
            yield lambda ttl_s=HOUR: postgres(link(), ttl_s=ttl_s, owner_mb=1)
        return

    def make(ttl_s: float = HOUR) -> Any:
        opened.append(sqlite(tmp_path / "folder" / "sessions.db", ttl_s=ttl_s, owner_mb=1, busy_s=20.0))
        return opened[-1]

    yield make
    for store in opened:
        store.close()


def lease(seconds: float = 60.0, longest_s: float = 100.0, token: str | None = None) -> Lease:
    taken = Lease.take(seconds, longest_s)
    return replace(taken, token=token) if token else taken
