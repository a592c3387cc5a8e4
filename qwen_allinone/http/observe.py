"""Watches every request from its arrival to its last byte and tells of it: log, audit log, metrics; GET /metrics."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any

from flask import Response, g, request
from flask_openapi import OpenAPI

from qwen_allinone.alerts import Notices
from qwen_allinone.engine import FinishReason
from qwen_allinone.http.alerting import teller
from qwen_allinone.http.body import parse_json
from qwen_allinone.http.request_state import RequestState
from qwen_allinone.service import Answer
from qwen_allinone.tasks import Masking, MaskKind
from qwen_allinone.telemetry import AnswerRecord, RequestRecord, Telemetry
from qwen_allinone.telemetry.logs import begin_request, end_request
from qwen_allinone.telemetry.metrics import CONTENT_TYPE, FAILED
from qwen_allinone.telemetry.trace_parent import trace_parent

METRICS = "/metrics"
# Asked every few seconds by machines: no lines, no latencies.
QUIET = frozenset({"/livez", "/readyz", "/health", METRICS})
UNKNOWN_ROUTE = "unknown"
_MOST_TEXT = 500
_SECRET = frozenset({"session_id", "previous_response_id"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")

_METRICS_ANSWER: dict[str | int, Any] = {
    200: {"description": "Prometheus text format", "content": {"text/plain": {"schema": {"type": "string"}}}}
}


def register(
    app: OpenAPI, telemetry: Telemetry, masks: Collection[MaskKind] = (), notices: Notices | None = None
) -> None:
    """Add the hooks and /metrics. To be called before anything else is registered: first to begin, last to end.

    `masks` are kinds of numbers that no log and no alert may show. `notices`: None where there are no rules.
    """
    alerts = teller(notices, masks) if notices else None

    @app.before_request
    def begin() -> None:
        given = request.headers.get("X-Request-Id", "")
        g.state = RequestState(given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex)
        g.state.alerts = alerts
        g.state.trace = trace_parent(request.headers.get("traceparent", ""))
        begin_request(g.state.id, g.state.trace)

    @app.after_request
    def watch_until_closed(response: Response) -> Response:
        if g.state.alerts and response.status_code < FAILED and not response.is_streamed:
            g.state.tell_alerts()
        finish = _finisher(response, telemetry, masks)
        if response.direct_passthrough:  # a file: werkzeug closes that and not the response
            finish()
        else:
            response.call_on_close(finish)
        return response

    app.teardown_request(lambda _: end_request())

    @app.get(METRICS, summary="Prometheus 指标（所有 worker 合计）", responses=_METRICS_ANSWER)
    def metrics() -> Response:
        return Response(telemetry.metrics.exposition(), content_type=CONTENT_TYPE)


def _finisher(response: Response, telemetry: Telemetry, masks: Collection[MaskKind]) -> Callable[[], None]:
    """What tells of the request once its response is closed.

    Flask's request may be gone by then, so all is read now; but for the answers and errors, lists that a response
    still being made goes on filling.
    """
    route = request.url_rule.rule if request.url_rule else UNKNOWN_ROUTE
    method, state = request.method, g.state
    masking = Masking() if telemetry.tells_text else None
    inputs = _inputs(masking, masks) if masking else {}

    def finish() -> None:
        if state.alerts and response.is_streamed:  # broken off, or one that ends without a word of its own
            state.tell_alerts()
        record = RequestRecord(
            request_id=state.id,
            method=method,
            route=route,
            status=response.status_code,
            total_s=time.monotonic() - state.began,
            caller=state.caller,
            address=state.address,
            code=state.errors[-1] if state.errors else None,
            answers=tuple(map(answer_record, state.answers)),
            text=inputs | _outputs(state.answers, masking, masks) if masking else {},
            began=state.began,
            trace=state.trace,
        )
        telemetry.record(record, quiet=route in QUIET, waited_for=not state.is_behind)

    return finish


def answer_record(answer: Answer) -> AnswerRecord:
    """What is told of an answer. Between tokens there is time where several were decoded one after the other; the stop
    token was waited for too."""
    result = answer.result
    steps = len(result.ids) - (result.finish_reason is not FinishReason.STOP)
    is_decoded = steps > 0 and result.label is None and not result.scores
    return AnswerRecord(
        task=answer.task,
        label=answer.label,
        finish_reason=result.finish_reason.value,
        prompt_tokens=result.prompt_tokens,
        reused_tokens=result.reused_tokens,
        generated_tokens=len(result.ids),
        queue_s=result.queue_s,
        prefill_s=result.prefill_s,
        decode_s=result.decode_s,
        inter_token_s=result.decode_s / steps if is_decoded else None,
        cache=answer.cache,
        fired=answer.fired,
        submitted=result.submitted,
        drafted_tokens=result.drafted_tokens,
        accepted_tokens=result.accepted_tokens,
    )


def _inputs(masking: Masking, masks: Collection[MaskKind]) -> dict[str, Any]:
    """The strings of the body, cut; nothing of a body that is no object, nor what opens a conversation to others."""
    body: Any = None
    if request.mimetype == "application/json":
        with suppress(Exception):  # too large, cut short, no JSON: the answer has said so
            body = parse_json(request.get_data(cache=True))
    texts = body.items() if isinstance(body, dict) else ()
    shown = ((key, value) for key, value in texts if isinstance(value, str) and key not in _SECRET)
    return {"inputs": {key[:64]: _hidden(value, masking, masks) for key, value in shown}}


def _outputs(answers: list[Answer], masking: Masking, masks: Collection[MaskKind]) -> dict[str, Any]:
    return {"outputs": [_hidden(answer.label or answer.text, masking, masks) for answer in answers]}


def _hidden(text: str, masking: Masking, masks: Collection[MaskKind]) -> str:
    """What may be shown: cut so that no number is cut out of its form, which would show what is left of it."""
    return masking.hide(text[: 2 * _MOST_TEXT], masks)[:_MOST_TEXT]
