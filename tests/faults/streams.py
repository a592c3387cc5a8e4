"""Two thousand streamed replies: in order, whole, and nothing left behind by those who hang up.

The model is a tiny one with random weights, whose replies are what is hardest to stream: characters in several tokens,
bytes that never become one. What a reply is as a whole stands in the log.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from qwen_allinone.tasks import CHAT, SENTIMENT
from tests.e2e.conftest import PROJECT, Service, until
from tests.e2e.test_watching import metrics
from tests.faults.load import TEXTS
from tests.faults.scenario import Bench, Scenario
from tests.support.checkpoints import write_checkpoint
from tests.support.events import Event, text_of, without_pings
from tests.support.streams import stream

CLIENTS = 8
LEAVERS = 8  # one of so many streams is left early


def run(bench: Bench) -> None:
    replies = bench.size(2000, 120)
    model, prompts = write_checkpoint(bench.home / "model"), bench.home / "prompts"
    for task in (SENTIMENT, CHAT):  # the others' prompts are too long in this model's tokens
        shutil.copytree(PROJECT / "prompts" / task, prompts / task)
    service = bench.start(
        QAIO_WORKERS="2",
        QAIO_MODEL=str(model),
        QAIO_PROMPTS=str(prompts),
        QAIO_LOG_TEXT="1",
        QAIO_LOG_FORMAT="json",
    )
    told: dict[str, str] = {}
    kinds: Counter[str] = Counter()

    def client(number: int) -> None:
        for turn in range(replies // CLIENTS):
            name = f"stream-{number}-{turn}"
            with stream(service.port, TEXTS[turn % len(TEXTS)], request_id=name) as opened:
                if opened.status != 200:
                    kinds[f"status {opened.status}"] += 1
                elif found := _in_order(without_pings(opened.events())):
                    told[name] = found
                else:
                    kinds["out of order"] += 1
            if turn % LEAVERS == number:
                with stream(service.port, TEXTS[0]) as opened:
                    next(opened.events(), None)
                    kinds["left"] += 1
            bench.say(f"{len(told)} of {replies} streams")

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(client, range(CLIENTS)))
    until(lambda: told.keys() <= _logged(service).keys(), "the log has every request", 20)
    whole = _logged(service)
    kinds.update("whole" if text == whole[name] else "torn" for name, text in told.items())
    bench.check(
        f"{CLIENTS} clients, {replies} streams: events in order, the pieces are the reply",
        ", ".join(f"{kind}: {count}" for kind, count in kinds.most_common()),
        kinds["whole"] == replies // CLIENTS * CLIENTS,
    )
    seconds = until(lambda: metrics(service)["qaio_num_requests_running"] == 0, "slots are free", 10)
    bench.check("slots of those who left are free", f"within {seconds:.1f} s", True)


def _in_order(events: list[Event]) -> str:
    """The reply's text; empty where events are missing or not in order."""
    names = [event.name for event in events]
    return text_of(events) if names == ["sentiment", *["delta"] * (len(names) - 2), "done"] else ""


def _logged(service: Service) -> dict[str, str]:
    """The reply of each finished chat, by request id."""
    lines = [json.loads(line) for line in service.log.splitlines() if '"outputs"' in line]
    return {line["request_id"]: line["outputs"][1] for line in lines if len(line["outputs"]) == 2}


SCENARIO = Scenario("streams", run, plant="torn", finds="the pieces are the reply")
