"""Spans of real workers, each forked by Gunicorn, at a collector on loopback that is away for a while."""

from __future__ import annotations

import json
import os
import signal

import pytest

from tests.e2e.conftest import StartService, free_port, until
from tests.support.collector import collecting

pytest.importorskip("opentelemetry.sdk.trace", reason="pip install -r requirements-otel.txt")
pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="pip install -r requirements-otel.txt")

pytestmark = pytest.mark.timeout(600)
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
BODY = json.dumps({"text": "今天很开心"}).encode()


def test_each_worker_sends_its_spans_and_those_left_when_it_ends(start_service: StartService) -> None:
    with collecting() as collector:
        # Longer than the test: all that arrives is sent at the workers' end.
        given = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "3600000"}
        service = start_service(QAIO_WORKERS="2", QAIO_FIT="off", **given)
        headers = {"Content_Type": "application/json", "traceparent": f"00-{TRACE}-{SPAN}-01"}
        pids: set[int] = set()

        def answered_by_both() -> bool:
            service.ask("POST", "/v1/tasks/sentiment", BODY, X_Request_Id=f"ask-{len(asked)}", **headers)
            asked.append(len(asked))
            lines = [json.loads(line) for line in service.log.splitlines() if '"trace_id"' in line]
            pids.update(line["pid"] for line in lines if line["trace_id"] == TRACE and line["span_id"] == SPAN)
            return len(pids) == 2

        asked: list[int] = []
        until(answered_by_both, "both workers answer")
        assert collector.spans == []
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(60) == 0
        servers = [span for span in collector.spans if span.parent == SPAN]
        assert sorted(span.attributes["qaio.request_id"] for span in servers) == sorted(f"ask-{n}" for n in asked)
        assert {span.trace_id for span in collector.spans} == {TRACE}


def test_a_collector_that_is_away_costs_a_line_and_holds_up_no_end(start_service: StartService) -> None:
    given = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}", "OTEL_BSP_SCHEDULE_DELAY": "100"}
    service = start_service(QAIO_FIT="off", **given)
    for _ in range(3):
        answer = service.ask("POST", "/v1/tasks/sentiment", BODY, Content_Type="application/json")
        assert answer.status == 200, answer.data
    until(lambda: '"opentelemetry.' in service.log, "the log tells of it")
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(20) == 0, "the exporter alone would wait half a minute"
    lines = [json.loads(line) for line in service.log.splitlines() if '"opentelemetry.' in line]
    assert len(lines) == 1 and lines[0]["level"] == "warning", lines
    assert not [line for line in service.log.splitlines() if '"level": "error"' in line]


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="threads are counted in /proc")
def test_the_master_has_no_thread_of_it(start_service: StartService) -> None:
    with collecting() as collector:
        with_spans = start_service(QAIO_FIT="off", OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
        without = start_service(QAIO_FIT="off")
        threads = [len(os.listdir(f"/proc/{service.process.pid}/task")) for service in (with_spans, without)]
        assert threads[0] == threads[1]
        worker, other = [len(os.listdir(f"/proc/{one.workers[0]}/task")) for one in (with_spans, without)]
        assert worker > other
