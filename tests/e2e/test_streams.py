"""Event streams from two real workers, through nginx too: order, whole characters, leaving, kills and stops."""

from __future__ import annotations

import http.client
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.conftest import GUNICORN, Service, StartService, services, until
from tests.e2e.test_watching import metrics
from tests.support.events import Event, text_of, without_pings
from tests.support.nginx import proxy
from tests.support.streams import Stream, stream, streamed
from tests.support.tasks import greedy_prompts

FAULTY = (*GUNICORN, "tests.support.faulty_app:app")
TEXTS = ("今天心情特别差，工作也不顺利", "我升职了，今天好开心！", "外卖又凉了，真失望", "happy 😀 to see you 👍🏽")
CLIENTS = 8
STREAMS = 200  # `make faults` takes 2,000


@pytest.fixture(scope="module")
def greedy(demo_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Two workers whose replies are greedy: whoever answers, and however, the text is the same."""
    home = tmp_path_factory.mktemp("greedy")
    with services(home) as start:
        yield start(QAIO_WORKERS="2", QAIO_PROMPTS=str(greedy_prompts(home)))


@pytest.fixture(scope="module")
def slow(demo_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Two workers whose steps take 50 ms and more, so that a stream lasts a second or two."""
    home = tmp_path_factory.mktemp("slow")
    with services(home) as start:
        yield start(command=FAULTY, FAULT_FOLDER=str(home), FAULT_STEP_S="0.05", QAIO_WORKERS="2")


def first_delta(opened: Stream) -> Iterator[Event]:
    """The rest of the stream, once its first delta has come."""
    events = opened.events()
    assert next(event for event in events if event.name == "delta")
    return events


def test_eight_clients_at_once_get_each_stream_in_order_and_whole(greedy: Service) -> None:
    expected = {text: greedy.chat(text).json for text in TEXTS}

    def client(number: int) -> int:
        for turn in range(STREAMS // CLIENTS):
            text = TEXTS[(number + turn) % len(TEXTS)]
            events = without_pings(streamed(greedy.port, text))
            assert [event.name for event in events] == ["sentiment", *["delta"] * (len(events) - 2), "done"]
            assert events[0].data["label"] == expected[text]["sentiment"]
            assert text_of(events) == expected[text]["response"]
        return STREAMS // CLIENTS

    with ThreadPoolExecutor(CLIENTS) as pool:
        assert sum(pool.map(client, range(CLIENTS))) == STREAMS


def test_events_come_through_nginx_as_they_are_made(slow: Service) -> None:
    with proxy([slow.port]) as front:
        connection = http.client.HTTPSConnection("localhost", front.https_port, timeout=60, context=front.tls())
        opened = Stream(connection, TEXTS[0])
        assert opened.response.getheader("Content-Type") == "text/event-stream; charset=utf-8"
        came = [(time.monotonic(), event.name) for event in opened.events()]
        opened.leave()
    (sentiment,) = [at for at, name in came if name == "sentiment"]
    assert came[-1][1] == "done" and came[-1][0] - sentiment > 0.3, "all at once: it was buffered"


def test_a_client_that_leaves_frees_its_slot(slow: Service) -> None:
    opened = [stream(slow.port, text) for text in TEXTS]
    for one in opened:
        first_delta(one.__enter__())
    assert metrics(slow)["qaio_num_requests_running"] > 0
    for one in opened:
        one.__exit__(None, None, None)
    left = until(lambda: metrics(slow)["qaio_num_requests_running"] == 0, "their slots are free")
    assert left < 10
    assert streamed(slow.port, TEXTS[0])[-1].name == "done"


def test_the_server_is_alive_while_every_place_has_a_stream_and_one_does_not_read(slow: Service) -> None:
    ended = threading.Event()

    def crowd() -> None:
        while not ended.is_set():
            with stream(slow.port, TEXTS[0]) as opened:
                if opened.status == 200:
                    list(opened.events())

    with stream(slow.port, TEXTS[0]) as idle:  # has its headers and reads no further
        threads = [threading.Thread(target=crowd) for _ in range(24)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(20):
                began = time.monotonic()
                assert slow.ask("GET", "/livez").status == 200
                assert time.monotonic() - began < 5
        finally:
            ended.set()
            for thread in threads:
                thread.join(60)
        assert [event.name for event in idle.events()][-1] == "done"


def test_a_killed_worker_s_stream_has_no_end_and_the_service_goes_on(slow: Service) -> None:
    with stream(slow.port, TEXTS[0]) as opened:
        events, seen = first_delta(opened), []
        for worker in slow.workers:
            os.kill(worker, signal.SIGKILL)
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            for event in events:
                seen.append(event.name)
        assert set(seen) <= {"delta"}
    until(lambda: len(slow.workers) == 2 and slow.answers("/readyz", 200), "new workers are ready")
    assert streamed(slow.port, TEXTS[0])[-1].name == "done"


def test_a_stop_lets_streams_end_and_one_past_its_grace_ends_with_an_error_event(
    start_service: StartService, tmp_path: Path
) -> None:
    settings = {"FAULT_FOLDER": str(tmp_path), "QAIO_WORKERS": "2"}
    for step_s, grace_s, last in (("0.05", "30", "done"), ("0.5", "1", "error")):
        service = start_service(command=FAULTY, FAULT_STEP_S=step_s, QAIO_GRACE_S=grace_s, **settings)
        with stream(service.port, TEXTS[0]) as opened:
            events = first_delta(opened)
            service.process.send_signal(signal.SIGTERM)
            found = list(events)
            assert found[-1].name == last
            assert last == "done" or found[-1].data["code"] == "draining"
        assert service.process.wait(60) == 0
