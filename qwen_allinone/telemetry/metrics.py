"""Every metric, under the names that vLLM gave them where it has them, and /metrics over all workers."""

from __future__ import annotations

import logging
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client import values as client_values
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.multiprocess import MultiProcessCollector

from qwen_allinone.telemetry.records import REMEMBERED, UNFINISHED, AnswerRecord, RequestRecord

log = logging.getLogger(__name__)

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
# From a label on a fast machine to the longest deadline one would wait for on a slow one.
LATENCY_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 120.0)
TOKEN_S = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5)
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
_REFRESH_S = 1.0
FAILED = 400

disable_created_metrics()  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Vitals:
    """What a worker's gauges and loss counters show, read anew each second."""

    ready: bool
    running: int
    waiting: int
    resident_bytes: int
    lost_log_lines: int
    lost_audit_lines: int
    gold_accuracy: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Share:
    """A worker's place in the folder where all workers keep their numbers."""

    number: int
    folder: str


class Metrics:
    """The metrics of one worker. Within Gunicorn they are shared through files and summed up when asked for."""

    def __init__(
        self, build: Mapping[str, str], labels: Mapping[str, Sequence[str]], share: Share | None = None
    ) -> None:
        """`build`: version, model and weights. `labels`: the labels of each task that has some. `share`: None for a
        process on its own."""
        _keep_in(share)
        self._folder = share.folder if share else None
        self.registry = CollectorRegistry()
        self._read: Callable[[], Vitals] | None = None
        self._lost = {"log": 0, "audit": 0}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._define_counters()
        self._define_histograms()
        self._define_gauges(build)
        for task, names in labels.items():
            for name in names:
                self._labels.labels(task, name)  # from zero on, so that shares add up from the first request
        self._worker_starts.inc()

    def _define_counters(self) -> None:
        def counter(name: str, help_text: str, *labels: str) -> Counter:
            return Counter(f"qaio_{name}", help_text, labels, registry=self.registry)

        self._requests = counter("requests", "Requests answered", "route", "method", "status")
        self._rejected = counter("requests_rejected", "Requests answered with an error, by its code", "code")
        self._labels = counter("labels", "Answers of label tasks, sentiment among them", "task", "label")
        self._feedback = counter(
            "feedback", "Answers of label tasks of which people said what is right", "task", "right"
        )
        self._care = counter("care", "Chats answered with the vetted text of the task care")
        self._alerts = counter(
            "alerts", "Texts at which a rule of alerts held, by what became of that", "rule", "outcome"
        )
        self._alert_messages = counter(
            "alert_messages", "Tries to send an alert, by what became of them", "channel", "outcome"
        )
        self._prompt = counter("prompt_tokens", "Tokens of prompts, reused ones included")
        self._generated = counter("generation_tokens", "Tokens generated")
        self._drafted = counter("spec_decode_num_draft_tokens", "Tokens drafted, of answers that ended well")
        self._accepted = counter("spec_decode_num_accepted_tokens", "Drafted tokens that were right: each saved a step")
        self._queries = counter("prefix_cache_queries", "Prompt tokens looked for among kept keys and values")
        self._hits = counter("prefix_cache_hits", "Prompt tokens found there, and so not computed")
        self._asked_cache = counter("answer_cache_queries", "Answers of greedy tasks looked for among remembered ones")
        self._from_cache = counter(
            "answer_cache_hits", "Answers found there, or computed meanwhile for an equal request"
        )
        self._worker_starts = counter("worker_starts", "Workers started; more than there are workers: restarts")
        self._lost_log = counter("log_lines_lost", "Log lines that could not be written")
        self._lost_audit = counter("audit_lines_lost", "Audit lines that could not be written")

    def _define_histograms(self) -> None:
        def histogram(name: str, help_text: str, buckets: Sequence[float], *labels: str) -> Histogram:
            return Histogram(f"qaio_{name}_seconds", help_text, labels, registry=self.registry, buckets=buckets)

        self._e2e = histogram(
            "e2e_request_latency", "From a request's arrival to its last byte; successful ones", LATENCY_S, "route"
        )
        self._first = histogram("time_to_first_token", "From the queue to the first token of an answer", LATENCY_S)
        self._queue = histogram("request_queue_time", "Time an answer waited for a slot", LATENCY_S)
        self._between = histogram("inter_token_latency", "Mean time between two tokens of an answer", TOKEN_S)

    def _define_gauges(self, build: Mapping[str, str]) -> None:
        def gauge(name: str, help_text: str, *labels: str, mode: str = "livesum") -> Gauge:
            return Gauge(f"qaio_{name}", help_text, labels, registry=self.registry, multiprocess_mode=mode)  # type: ignore[arg-type]

        self._running = gauge("num_requests_running", "Computations that have a slot")
        self._waiting = gauge(
            "num_requests_waiting", "Computations waiting for a slot: a chat begins with two, its labels"
        )
        self._workers = gauge("workers", "Workers alive")
        self._ready = gauge("workers_ready", "Workers whose model is loaded and answers")
        self._resident = gauge("resident_memory_bytes", "Resident memory of each worker", mode="liveall")
        self._gold = gauge(
            "task_gold_accuracy",
            "Share of a label task's gold cases that are right",
            "task",
            mode="livemin",
        )
        info = gauge("build_info", "Workers by what they run", "version", "model", "weights")
        info.labels(**build).set(1)
        self._workers.set(1)

    def watch(self, read: Callable[[], Vitals], every_s: float = _REFRESH_S) -> None:
        """Keep the gauges current: what other workers show of this one is what it wrote last."""
        self._read = read
        self.refresh()
        threading.Thread(target=self._refresh_forever, args=(every_s,), name="metrics", daemon=True).start()

    def stop(self) -> None:
        """Let go of what is watched."""
        self._stopped.set()
        with self._lock:
            self._read = None

    def refresh(self) -> None:
        """Read the vitals now."""
        with self._lock:  # the reading too: an older one must not come after a newer
            if self._read is None:
                return
            vitals = self._read()
            self._ready.set(vitals.ready)
            self._running.set(vitals.running)
            self._waiting.set(vitals.waiting)
            self._resident.set(vitals.resident_bytes)
            for task, accuracy in vitals.gold_accuracy.items():
                self._gold.labels(task).set(accuracy)
            self._count_lost("log", self._lost_log, vitals.lost_log_lines)
            self._count_lost("audit", self._lost_audit, vitals.lost_audit_lines)

    def count(self, request: RequestRecord, *, timed: bool) -> None:
        """Count a finished request; `timed`: its latency belongs to the figures."""
        method = request.method if request.method in METHODS else "other"
        self._requests.labels(request.route, method, str(request.status)).inc()
        if request.code is not None:
            self._rejected.labels(request.code).inc()
        if timed and request.status < FAILED:
            self._e2e.labels(request.route).observe(request.total_s)
        for answer in request.answers:
            self._count_answer(answer, timed=timed)

    def count_feedback(self, task: str, *, right: bool) -> None:
        """Count what somebody said of an answer for the first time."""
        self._feedback.labels(task, "yes" if right else "no").inc()

    def count_alert(self, rule: str, outcome: str) -> None:
        """Count what became of a text at which a rule held."""
        self._alerts.labels(rule, outcome).inc()

    def expect_channel(self, channel: str) -> None:
        """Show a channel from zero on: what Prometheus sees first is no increase, and may be all there will be."""
        for outcome in ("sent", "failed", "dead"):
            self._alert_messages.labels(channel, outcome)

    def count_alert_message(self, channel: str, outcome: str) -> None:
        """Count a try to send an alert."""
        self._alert_messages.labels(channel, outcome).inc()

    def exposition(self) -> bytes:
        """All metrics of all workers in Prometheus' text format."""
        self.refresh()
        if self._folder is None:
            return generate_latest(self.registry)
        try:
            return _exposition_of(self._folder)
        except (struct.error, RuntimeError):  # a file that another worker is just making or growing
            time.sleep(0.05)
            return _exposition_of(self._folder)

    def _count_answer(self, answer: AnswerRecord, *, timed: bool) -> None:
        if answer.label is not None:
            self._labels.labels(answer.task, answer.label).inc()
        self._care.inc(answer.fired)
        self._asked_cache.inc(answer.cache is not None)
        if answer.cache == REMEMBERED:
            self._from_cache.inc()
            return
        self._prompt.inc(answer.prompt_tokens)
        self._generated.inc(answer.generated_tokens)
        self._drafted.inc(answer.drafted_tokens)
        self._accepted.inc(answer.accepted_tokens)
        self._queries.inc(answer.prompt_tokens)
        self._hits.inc(answer.reused_tokens)
        if (
            not timed or answer.finish_reason == UNFINISHED
        ):  # its times are those of its deadline, or of its client's patience
            return
        self._queue.observe(answer.queue_s)
        self._first.observe(answer.queue_s + answer.prefill_s)
        if answer.inter_token_s is not None:
            self._between.observe(answer.inter_token_s)

    def _count_lost(self, what: str, counter: Counter, lost: int) -> None:
        counter.inc(lost - self._lost[what])
        self._lost[what] = lost

    def _refresh_forever(self, every_s: float) -> None:
        while not self._stopped.wait(every_s):
            try:
                self.refresh()
            except Exception:
                log.exception("the gauges could not be refreshed")


def _keep_in(share: Share | None) -> None:
    """Let metrics made from now on live in the shared folder, or in this process."""
    if share is None:
        client_values.ValueClass = client_values.MutexValue
    else:
        client_values.ValueClass = client_values.MultiProcessValue(lambda: share.number)  # type: ignore[no-untyped-call]


def _exposition_of(folder: str) -> bytes:
    registry = CollectorRegistry()
    MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
