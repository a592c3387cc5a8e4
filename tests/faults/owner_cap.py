"""One key's conversations have filled its share: it is told so, and nobody else is."""

from __future__ import annotations

from collections import Counter

from qwen_allinone.errors import OwnerFull
from qwen_allinone.state import SqliteStore, Turn
from qwen_allinone.state.lease import Lease
from tests.faults.callers import CHAT, TEXT, pair
from tests.faults.scenario import Bench, Scenario

SHARE_MB = 1
FIRST = {**TEXT, "session": True}


def run(bench: Bench) -> None:
    file = bench.home / "sessions.db"
    greedy, neighbour = pair(
        bench, QAIO_SESSIONS_FILE=str(file), QAIO_SESSIONS_KEY_MB=str(SHARE_MB), QAIO_SESSIONS_MAX_MB="10"
    )
    assert greedy.post(CHAT, FIRST).status == 200
    written = _fill(file, "greedy")
    asked = bench.size(100, 20)
    own = Counter(greedy.post(CHAT, FIRST).status for _ in range(10))
    others = Counter(neighbour.post(CHAT, FIRST).status for _ in range(asked))
    bench.check(
        f"a key whose conversations have filled its {SHARE_MB} MB gets 429",
        f"{dict(own)}, {written} turns",
        own == {429: 10},
    )
    bench.check(f"none of another's {asked} new conversations is refused", dict(others), others == {200: asked})


def _fill(file: object, owner: str) -> int:
    """Write turns as a worker does, until this owner may write no more; returns how many."""
    store = SqliteStore(file, ttl_s=3600.0, max_mb=10, owner_mb=SHARE_MB)  # type: ignore[arg-type]
    turn = Turn("长" * 300, "正面", "正面", "好" * 3000)
    for number in range(100_000):
        id, lease = f"{number:032d}", Lease.take(60.0, 60.0)
        try:
            store.create(id, owner, lease)
        except OwnerFull:
            store.close()
            return number
        store.append(id, turn, 0, lease)
    raise AssertionError("the share is never full")


SCENARIO = Scenario("owner-cap", run, plant="one share", finds="none of another's")
