"""What remembering adds to /chat: one table.

    python -m benchmarks.recall_time --model demo --users 1000 --memories 1000

Memories are written into a SQLite file of their own, with vectors, straight into its table: a million additions through
the service would take long. Then requests with and without a user are sent in turn, each of another user and text, and
timed up to the sentiment and up to the first piece of the reply. Figures are medians. Nothing else should run meantime.
"""

from __future__ import annotations

import os
import sqlite3
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any

import typer
from flask.testing import FlaskClient
from rich.console import Console
from rich.progress import track
from rich.table import Table

from qwen_allinone.bootstrap import build_service, wrap
from qwen_allinone.engine import Status
from qwen_allinone.service import Service, Terms
from qwen_allinone.service.recall import vector_model, vector_of
from qwen_allinone.settings import Settings
from qwen_allinone.state import SqliteMemories
from qwen_allinone.state.memories import Whose

ROWS = Path(__file__).with_name("recall.tsv")
_COPY = """
INSERT INTO memories
SELECT lower(hex(randomblob(8))), owner, ?, text, form, topic, source, mood, at, expires, replaced, model, vector
FROM memories WHERE user = 'u0'
"""


def fill(file: Path, service: Service, users: int, memories: int) -> None:
    """The facts of `recall.tsv`, numbered so that no two are one, for user u0; all others have the same."""
    facts = [line.split("\t")[1] for line in ROWS.read_text(encoding="utf-8").splitlines()[1:]]
    store = SqliteMemories(file, ttl_s=1e7, most=memories, max_mb=100_000)
    whose, model = Whose(None, "u0"), vector_model(service.codec)
    for number in track(range(memories), description="one user's memories"):
        text = f"{facts[number % len(facts)]}（{number}）"
        with service.request(Terms()) as request:
            store.put_vector(whose, store.add(whose, text), model, vector_of(request, text))
    store.close()
    with sqlite3.connect(file) as db:
        for number in track(range(1, users), description="the others'"):
            db.execute(_COPY, (f"u{number}",))


def timed(client: FlaskClient, body: dict[str, Any]) -> tuple[float, float]:
    """Seconds up to the sentiment, and from there to the first piece of the reply."""
    began = time.perf_counter()
    at = dict[str, float]()
    answer = client.post("/chat", json=body | {"stream": True}, buffered=False)
    for piece in answer.iter_encoded():
        for line in piece.decode().splitlines():
            if line.startswith("event: "):
                at.setdefault(line[7:], time.perf_counter() - began)
        if "delta" in at:
            break
    answer.close()
    if "delta" not in at:
        raise SystemExit(f"no reply: {answer.status} {list(at)}")
    return at["sentiment"], at["delta"] - at["sentiment"]


def main(
    model: Annotated[str, typer.Option(help="Hub id, folder, or demo")] = "demo",
    users: Annotated[int, typer.Option(min=1)] = 1000,
    memories: Annotated[int, typer.Option(min=1, help="Of each user")] = 1000,
    rounds: Annotated[int, typer.Option(min=1)] = 200,
) -> None:
    """Fill, ask in turn, print."""
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "sessions.db"
        given = {"QAIO_MODEL": model, "QAIO_MEMORY": "1", "QAIO_SESSIONS_FILE": str(file), "QAIO_FIT": "off"}
        more = {"QAIO_SESSIONS_MAX_MB": "100000", "QAIO_MEMORY_ITEMS": str(memories), "QAIO_LOG_LEVEL": "error"}
        settings = Settings.load(os.environ | given | more)
        service = build_service(settings)
        if service.engine.wait_until_settled() is not Status.READY:
            raise SystemExit(service.engine.problem)
        fill(file, service, users, memories)
        console.print(f"{users:,} users, {memories:,} memories each, {file.stat().st_size / 1e6:,.0f} MB")
        client = wrap(service, settings).test_client()
        texts = [line.split("\t")[2] for line in ROWS.read_text(encoding="utf-8").splitlines()[1:]]
        found = defaultdict[str, list[tuple[float, float]]](list)
        for number in track(range(rounds), description="asking"):
            text = f"{texts[number % len(texts)]}，{number}"
            found["without a user"].append(timed(client, {"text": text}))
            found["with one"].append(timed(client, {"text": text + "。", "user": f"u{number * 7919 % users}"}))
        service.engine.stop()
    table = Table("/chat", "to the sentiment, ms", "from there to the reply's first piece, ms", "together, ms")
    for name, times in found.items():
        parts = [statistics.median(part) * 1000 for part in (*zip(*times, strict=True), [sum(pair) for pair in times])]
        table.add_row(name, *(f"{part:.1f}" for part in parts))
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
