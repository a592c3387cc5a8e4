"""The application factory: routes, the documentation page, and what every answer carries."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any
from urllib.parse import quote

from flask import Response, jsonify, redirect
from flask.json.provider import DefaultJSONProvider
from flask_openapi import Info, OpenAPI
from pydantic import BaseModel

from qwen_allinone import __version__
from qwen_allinone.alerts import Notices
from qwen_allinone.http import (
    adapters,
    analyze,
    batches,
    chat,
    classify,
    decisions,
    embeddings,
    error_answers,
    feedback,
    files,
    guards,
    idempotency,
    large_bodies,
    memory,
    models,
    observe,
    openai,
    ops,
    prompt_bench,
    request_terms,
    responses,
    route,
    sessions,
    sse,
    systemone,
    tasks,
    text_completions,
    tokenize,
    usage,
)
from qwen_allinone.http.adapters import AskToReload
from qwen_allinone.http.backend import Backend, Batches, PromptBench
from qwen_allinone.http.body import StrictRequest
from qwen_allinone.http.guards import Guards
from qwen_allinone.http.idempotency import Once
from qwen_allinone.http.request_state import state
from qwen_allinone.service import Memories, Service
from qwen_allinone.state import Corrections, Responses, Sessions, UsageAccounts
from qwen_allinone.telemetry import Telemetry

_ROUTES = (
    request_terms,  # a hook, before any route is asked
    *(chat, sessions, memory, tasks, route, analyze, prompt_bench),
    *(
        models,
        openai,
        responses,
        text_completions,
        embeddings,
        decisions,
        systemone,
        classify,
        tokenize,
        files,
        batches,
    ),  # in other servers' shapes
)
_OPENAPI_VERSION = "3.1.0"
# The only pages are Swagger's, with a script and styles inside: they load nothing from elsewhere and ask nobody else.
_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
_ABOUT = "一个小模型，多种任务。One small language model behind a small HTTP API; every task is a prompt folder."


class About(BaseModel):
    """What this is, and where to go on; addresses are relative to this one."""

    name: str = "Qwen All-in-One"
    version: str = __version__
    about: str = _ABOUT
    docs: str = "docs"
    openapi: str = "openapi.json"
    tasks: str = "v1/tasks"
    health: str = "health"


class _Json(DefaultJSONProvider):
    """Answers as UTF-8, their keys in the order in which they were made, and never NaN or Infinity: no client could
    parse these."""

    ensure_ascii = False
    sort_keys = False

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        kwargs.setdefault("allow_nan", False)
        return super().dumps(obj, **kwargs)


def create_app(
    service: Service,
    conversations: Sessions,
    kept_responses: Responses,
    memories: Memories | None = None,
    *,
    model_names: Sequence[str],
    max_body_bytes: int,
    guarded_by: Guards,
    once: Once,
    telemetry: Telemetry,
    ask_to_reload: AskToReload,
    ping_s: float = 10.0,
    corrections: Corrections | None = None,
    batches_kept: Batches | None = None,
    accounts: UsageAccounts | None = None,
    admins: Collection[str] = (),
    remembers_completions: bool = False,
    notices: Notices | None = None,
    bench: PromptBench | None = None,
) -> OpenAPI:
    """Build the WSGI app around `service`.

    `memories` is None where nothing is remembered. The first of `model_names` goes into the header X-Model, the others
    are what clients may call the model too; `telemetry` hears of requests; streams ping every `ping_s` seconds when
    they have nothing to say; `corrections` keeps answers for feedback; `batches_kept`: None where none are worked off;
    `accounts` keeps what was used, which `admins` see of everybody; they may `ask_to_reload`. `remembers_completions`:
    chat completions with a user have memory unless they say otherwise. `notices`: None where there are no rules of
    alerts. `bench`: where prompts are edited, None: nowhere.
    """
    app = OpenAPI(
        __name__,
        info=Info(title="Qwen All-in-One", version=__version__, description=_ABOUT),
        doc_prefix="/docs",
        doc_url="/../openapi.json",  # from the page's own folder: the one document there is
        static_folder=None,
        validation_error_callback=error_answers.raise_invalid,
        validation_error_status=400,
        validation_error_model=error_answers.ErrorBody,
    )
    app.openapi_version = _OPENAPI_VERSION
    app.request_class = StrictRequest
    app.config["MAX_CONTENT_LENGTH"] = max_body_bytes
    app.json = _Json(app)
    observe.register(app, telemetry, service.registry.masks, notices)  # first, so that it sees whatever the others do
    _carry_headers(app, model_names[0], service.registry.version)
    error_answers.register(app)
    guards.register(app, guarded_by)
    large_bodies.register(app, service.engine.pace)
    idempotency.register(app, once)
    app.extensions.update(engine=service.engine, telemetry=telemetry)  # for the Gunicorn worker, see serving/worker.py
    backend = Backend(
        service,
        conversations,
        kept_responses,
        memories,
        remembers_completions,
        tuple(model_names),
        ping_s,
        corrections,
        batches_kept,
        bench,
    )
    for routes in _ROUTES:
        routes.register(app, backend)
    feedback.register(app, backend, telemetry)
    usage.register(app, accounts, admins, has_keys=guarded_by.credentials.required)
    adapters.register(app, service.registry.version, admins, ask_to_reload)
    ops.register(app, service)
    _serve_docs(app, guarded_by)
    return app


def _carry_headers(app: OpenAPI, model_name: str, prompt_version: str) -> None:
    header_name = quote(model_name)  # a header takes ASCII, a folder may have any name

    @app.after_request
    def add_headers(response: Response) -> Response:
        response.headers["X-Request-Id"] = state.id
        response.headers["X-Model"] = header_name
        response.headers["X-Prompt-Version"] = prompt_version
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers.setdefault("Cache-Control", "no-store")
        if response.mimetype == "text/html":
            response.headers["Content-Security-Policy"] = _POLICY
        if response.mimetype == "application/json":
            response.content_type = "application/json; charset=utf-8"
        return response


def _serve_docs(app: OpenAPI, guarded_by: Guards) -> None:
    """/, /openapi.json and /docs; the Swagger page and its scripts come from an installed package.

    All addresses are relative, so that they hold behind a proxy that serves this under a path of its own.
    """

    @app.get("/", summary="这是什么，接口说明在哪里", responses={200: About})
    def about() -> Response:
        return jsonify(About().model_dump())

    @app.get("/openapi.json", doc_ui=False)
    def openapi_json() -> Response:
        document = guards.document(sse.document(error_answers.document_errors(app.api_doc)), guarded_by)
        document = idempotency.document(document)
        return jsonify(document | {"servers": [{"url": "./"}]})  # the folder that this document is in

    @app.get("/docs", doc_ui=False)
    def docs() -> Response:
        return redirect("docs/swagger")  # type: ignore[return-value]
