"""What is counted, when, and under which labels."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from qwen_allinone.telemetry import Telemetry
from qwen_allinone.telemetry.metrics import Metrics, Vitals
from qwen_allinone.telemetry.records import AnswerRecord, RequestRecord

LABEL = AnswerRecord("sentiment", "正面", "label", 30, 20, 1, 0.5, 0.25, 0.0, None)
REPLY = AnswerRecord("chat", None, "stop", 40, 25, 10, 0.0, 0.5, 1.0, 0.1, drafted_tokens=8, accepted_tokens=5)
CHAT = RequestRecord("abc-1", "POST", "/chat", 200, 2.0, answers=(LABEL, REPLY))
VITALS = Vitals(ready=True, running=2, waiting=3, resident_bytes=4096, lost_log_lines=0, lost_audit_lines=0)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics({"version": "1", "model": "demo", "weights": "fp32"}, {"sentiment": ["正面", "负面"]})


def read(metrics: Metrics) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Samples by name and labels, from the text that a Prometheus would get."""
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(metrics.exposition().decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def test_a_chat_counts_its_request_its_tokens_and_its_times(metrics: Metrics) -> None:
    metrics.count(CHAT, timed=True)
    seen = read(metrics)
    assert seen["qaio_requests_total"] == {(("method", "POST"), ("route", "/chat"), ("status", "200")): 1}
    for name, value in {
        "qaio_prompt_tokens_total": 70,
        "qaio_generation_tokens_total": 11,
        "qaio_spec_decode_num_draft_tokens_total": 8,
        "qaio_spec_decode_num_accepted_tokens_total": 5,
        "qaio_prefix_cache_queries_total": 70,
        "qaio_prefix_cache_hits_total": 45,
        "qaio_time_to_first_token_seconds_sum": 1.25,
        "qaio_time_to_first_token_seconds_count": 2,
        "qaio_request_queue_time_seconds_sum": 0.5,
        "qaio_inter_token_latency_seconds_sum": 0.1,
        "qaio_inter_token_latency_seconds_count": 1,
        "qaio_worker_starts_total": 1,
    }.items():
        assert seen[name] == {(): pytest.approx(value)}, name
    assert seen["qaio_e2e_request_latency_seconds_sum"] == {(("route", "/chat"),): 2.0}
    assert "qaio_requests_rejected_total" not in seen


def test_labels_are_counted_from_zero_on(metrics: Metrics) -> None:
    positive, negative = ((("label", label), ("task", "sentiment")) for label in ("正面", "负面"))
    assert read(metrics)["qaio_labels_total"] == {positive: 0, negative: 0}
    metrics.count(CHAT, timed=True)
    assert read(metrics)["qaio_labels_total"] == {positive: 1, negative: 0}


def test_tries_to_send_alerts_are_counted_from_zero_on(metrics: Metrics) -> None:
    metrics.expect_channel("ops")
    sent, failed, dead = ((("channel", "ops"), ("outcome", outcome)) for outcome in ("sent", "failed", "dead"))
    assert read(metrics)["qaio_alert_messages_total"] == {sent: 0, failed: 0, dead: 0}
    metrics.count_alert_message("ops", "dead")
    assert read(metrics)["qaio_alert_messages_total"] == {sent: 0, failed: 0, dead: 1}


def test_a_chat_that_care_answered_is_counted_remembered_or_not(metrics: Metrics) -> None:
    assert read(metrics)["qaio_care_total"] == {(): 0}
    for answer in (replace(LABEL, fired=True), replace(LABEL, fired=True, cache="HIT"), LABEL):
        metrics.count(replace(CHAT, answers=(answer,)), timed=True)
    assert read(metrics)["qaio_care_total"] == {(): 2}


def test_a_refusal_is_counted_by_its_code_and_does_not_make_the_service_look_fast(metrics: Metrics) -> None:
    metrics.count(RequestRecord("abc-1", "POST", "/chat", 503, 0.001, code="server_busy"), timed=True)
    seen = read(metrics)
    assert seen["qaio_requests_rejected_total"] == {(("code", "server_busy"),): 1}
    assert "qaio_e2e_request_latency_seconds_count" not in seen


def test_health_checks_are_counted_but_not_timed(metrics: Metrics) -> None:
    metrics.count(RequestRecord("abc-1", "GET", "/livez", 200, 0.001), timed=False)
    seen = read(metrics)
    assert len(seen["qaio_requests_total"]) == 1
    assert "qaio_e2e_request_latency_seconds_count" not in seen


def test_methods_a_client_makes_up_share_one_label(metrics: Metrics) -> None:
    for number in range(50):
        metrics.count(RequestRecord("abc-1", f"M{number}", "unknown", 405, 0.1, code="method_not_allowed"), timed=True)
    assert read(metrics)["qaio_requests_total"] == {(("method", "other"), ("route", "unknown"), ("status", "405")): 50}


def test_gauges_show_the_vitals_at_the_time_of_the_question(metrics: Metrics) -> None:
    now = VITALS
    metrics.watch(lambda: now, every_s=3600)
    assert read(metrics)["qaio_num_requests_waiting"] == {(): 3}
    now = replace(VITALS, ready=False, running=0, waiting=0)
    seen = read(metrics)
    metrics.stop()
    assert [seen[f"qaio_{name}"] for name in ("workers_ready", "num_requests_running", "num_requests_waiting")] == [
        {(): 0}
    ] * 3
    assert seen["qaio_resident_memory_bytes"] == {(): 4096}


def test_gauges_are_kept_current_when_nobody_asks(metrics: Metrics) -> None:
    now = VITALS
    metrics.watch(lambda: now, every_s=0.01)
    now = replace(VITALS, running=7)
    ends = time.monotonic() + 30
    while metrics.registry.get_sample_value("qaio_num_requests_running") != 7:
        assert time.monotonic() < ends
        time.sleep(0.01)
    metrics.stop()


def test_lost_lines_are_counted_once_each(metrics: Metrics) -> None:
    now = replace(VITALS, lost_log_lines=5)
    metrics.watch(lambda: now, every_s=3600)
    for _ in range(3):
        assert read(metrics)["qaio_log_lines_lost_total"] == {(): 5}
    now = replace(VITALS, lost_log_lines=6, lost_audit_lines=2)
    seen = read(metrics)
    metrics.stop()
    assert (seen["qaio_log_lines_lost_total"], seen["qaio_audit_lines_lost_total"]) == ({(): 6}, {(): 2})


def test_build_info_says_what_runs(metrics: Metrics) -> None:
    labels = (("model", "demo"), ("version", "1"), ("weights", "fp32"))
    assert read(metrics)["qaio_build_info"] == {labels: 1}


def test_telling_of_a_request_never_raises(metrics: Metrics, caplog: pytest.LogCaptureFixture) -> None:
    telemetry = Telemetry(metrics)
    telemetry.record(RequestRecord("abc-1", "GET", None, "?", None), quiet=False)  # type: ignore[arg-type]
    assert "could not be told of" in caplog.text


def test_questions_at_the_same_time_count_lost_lines_once(metrics: Metrics) -> None:
    lost = iter(range(1, 100_000))
    metrics.watch(lambda: replace(VITALS, lost_log_lines=next(lost)), every_s=0.001)
    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(metrics.refresh) for _ in range(500)]:
            future.result()
    metrics.stop()
    assert metrics.registry.get_sample_value("qaio_log_lines_lost_total") == next(lost) - 1
