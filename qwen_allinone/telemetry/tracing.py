"""Spans of finished requests, sent to an OpenTelemetry collector by a thread of their own (OTLP over HTTP, protobuf).

OpenTelemetry is asked for only where it is used: it is in requirements-otel.txt, not among what the service needs. How
it sends, and which requests, its own variables say (OTEL_*).
"""

from __future__ import annotations

import importlib.util
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from qwen_allinone.errors import SettingsError, StartupError
from qwen_allinone.telemetry.metrics import METHODS
from qwen_allinone.telemetry.records import AnswerRecord, RequestRecord
from qwen_allinone.telemetry.trace_parent import TraceParent
from qwen_allinone.wording import said

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_NEEDED = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http.trace_exporter")
_NAME = "qwen-allinone"
# A request may have hundreds of answers; of the first the spans show how it went.
_MOST_ANSWERS = 16
_BROKEN = 500
# For the last spans at the end of the process.
_END_S = 1.0
_COMPLAIN_EVERY_S = 60.0
# Who says that spans could not be sent, at every try, or taken in, at every span.
_COMPLAINERS = ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "opentelemetry.sdk._shared_internal")

Span = Any  # opentelemetry.trace.Span, where that is installed


def wanted_by(environ: Mapping[str, str] = os.environ) -> str | None:
    """Which variable says where spans are to be sent; None if none does. Empty is unset, as OpenTelemetry has it."""
    return next((name for name in ENDPOINTS if environ.get(name, "").strip()), None)


def check(environ: Mapping[str, str] = os.environ) -> None:
    """See at startup that spans could be sent; whether somebody takes them is no reason not to start.

    Raises:
        StartupError: they are wanted, and OpenTelemetry is not installed. SettingsError: an address that is no URL.
    """
    setting = wanted_by(environ)
    if setting is None:
        return
    if not environ[setting].strip().startswith(("http://", "https://")):
        raise SettingsError(said("otel_endpoint_form", setting=setting))
    if not all(map(_is_installed, _NEEDED)):
        raise StartupError(said("needs_opentelemetry", setting=setting))


class Tracing:
    """Makes spans of finished requests. To be made in the process that serves: threads do not outlive a fork."""

    def __init__(self, model: str, version: str) -> None:
        """`model` is what clients know it as. Raises whatever OpenTelemetry does at a variable it cannot read."""
        from opentelemetry import trace
        from opentelemetry.context import Context
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        for name in _COMPLAINERS:
            logging.getLogger(name).addFilter(_now_and_then)
        ours = {"service.name": _NAME, "service.version": version}
        resource = Resource.create(ours | dict(OTELResourceDetector().detect().attributes))
        self._api, self._nothing, self._model = trace, Context(), model
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("qwen_allinone", version)
        # Begun now: Python starts no threads at its end, and without one a collector that is away would hold that up.
        self._ending = threading.Event()
        self._last = threading.Thread(target=self._end, name="tracing end", daemon=True)
        self._last.start()

    def tell(self, request: RequestRecord) -> None:
        """Queue the spans of a request that has just ended; where the queue is full they are lost."""
        ended = time.time_ns()
        began = ended - _nanoseconds(request.total_s)
        server = self._tracer.start_span(
            _name(request),
            context=self._parent(request.trace),
            kind=self._api.SpanKind.SERVER,
            attributes=self._attributes(request),
            start_time=began,
        )
        if server.is_recording():
            within = self._api.set_span_in_context(server, self._nothing)
            for answer in request.answers[:_MOST_ANSWERS]:
                self._tell_answer(answer, within, began - _nanoseconds(request.began))
        if request.status >= _BROKEN:
            server.set_status(self._api.StatusCode.ERROR)
        server.end(ended)

    def close(self) -> None:
        """At the end of the process: send what is left, but do not wait for a collector that is away."""
        self._ending.set()
        self._last.join(_END_S)

    def _end(self) -> None:
        self._ending.wait()
        self._provider.shutdown()

    def _parent(self, trace: TraceParent | None) -> Any:
        """The context of the caller's span; without one a span begins a trace of its own."""
        if trace is None:
            return self._nothing
        flags = self._api.TraceFlags(self._api.TraceFlags.SAMPLED if trace.sampled else self._api.TraceFlags.DEFAULT)
        caller = self._api.SpanContext(int(trace.trace_id, 16), int(trace.span_id, 16), True, flags)
        return self._api.set_span_in_context(self._api.NonRecordingSpan(caller), self._nothing)

    def _attributes(self, request: RequestRecord) -> dict[str, str | int]:
        """OpenTelemetry's own names where it has one. No text, no label and no path as sent."""
        answers = request.answers
        told: dict[str, str | int | None] = {
            "http.request.method": _method(request),
            "http.route": request.route,
            "http.response.status_code": request.status,
            "error.type": request.code,
            "qaio.request_id": request.request_id,
        }
        if answers:
            told |= {
                "qaio.task": "+".join(dict.fromkeys(answer.task for answer in answers)),
                "qaio.answers": len(answers),
                "gen_ai.response.model": self._model,
                "gen_ai.usage.input_tokens": sum(answer.prompt_tokens for answer in answers),
                "gen_ai.usage.output_tokens": sum(answer.generated_tokens for answer in answers),
            }
        return {name: value for name, value in told.items() if value is not None}

    def _tell_answer(self, answer: AnswerRecord, within: Any, clock: int) -> None:
        """`clock`: nanoseconds since the epoch when time.monotonic() was 0."""
        for name, began, ended in _phases(answer):
            span: Span = self._tracer.start_span(
                name,
                context=within,
                attributes={"qaio.task": answer.task},
                start_time=clock + _nanoseconds(began),
            )
            span.end(clock + _nanoseconds(ended))


class _NowAndThen(logging.Filter):
    """Lets one line through, and no other for a minute: a collector that is away is no news at every try."""

    def __init__(self) -> None:
        super().__init__()
        self._last: float | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if self._last is not None and now - self._last < _COMPLAIN_EVERY_S:
            return False
        self._last = now
        return True


_now_and_then = _NowAndThen()


def _phases(answer: AnswerRecord) -> Iterator[tuple[str, float, float]]:
    """What an answer took its time for: name, beginning and end, by time.monotonic(); nothing that took none."""
    at = answer.submitted
    for name, seconds in (("waiting", answer.queue_s), ("prefill", answer.prefill_s), ("decode", answer.decode_s)):
        if at and seconds > 0:
            yield name, at, at + seconds
        at += seconds


def _name(request: RequestRecord) -> str:
    return f"{_method(request)} {request.route}"


def _method(request: RequestRecord) -> str:
    """One that nobody made up."""
    return request.method if request.method in METHODS else "_OTHER"


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # not even what it is a part of
        return False
