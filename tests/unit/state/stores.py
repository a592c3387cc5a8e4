"""Stores of one SQLite file or one Redis, as several workers make them, and leases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qwen_allinone.state.lease import Lease
from tests.support.redis_server import RedisServer

HOUR = 3600.0


@contextmanager
def stores(
    request: pytest.FixtureRequest, tmp_path: Path, sqlite: Callable[..., Any], redis: Callable[..., Any]
) -> Iterator[Callable[..., Any]]:
    """Makes stores of the kind that `request.param` names, `sqlite` or `redis`; what they share is empty at first."""
    opened: list[Any] = []
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("shared_redis")
        server.execute("FLUSHALL")
        yield lambda ttl_s=HOUR: redis(server.url, ttl_s=ttl_s, owner_mb=1, timeout_s=20.0)
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
