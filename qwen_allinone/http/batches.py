"""/v1/batches, as OpenAI's clients know it: a file of requests that are answered when nobody else wants the engine."""

from __future__ import annotations

from typing import Any, Literal

from flask import Response, jsonify
from flask_openapi import OpenAPI
from pydantic import BaseModel, ConfigDict, Field

from qwen_allinone.errors import BatchesOff, BatchFileNotFound, InvalidInput
from qwen_allinone.http import batch_lines
from qwen_allinone.http.backend import Backend, Batches
from qwen_allinone.http.body import Body
from qwen_allinone.http.error_answers import NestedErrorBody, error_responses
from qwen_allinone.http.files import page
from qwen_allinone.http.request_state import state
from qwen_allinone.state import Batch
from qwen_allinone.state.batches import TIMES
from qwen_allinone.wording import is_it, said

PATH = "/v1/batches"
_MOST_PAIRS, _LONGEST_KEY, _LONGEST_VALUE = 16, 64, 512


class OutputExpiresAfter(Body):
    """How long the output is kept."""

    anchor: Literal["created_at"]
    seconds: int = Field(ge=3600, le=2_592_000)


class BatchRequest(Body):
    """What is to be answered."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"input_file_id": "file-...", "endpoint": "/v1/tasks/sentiment", "completion_window": "24h"}
        }
    )

    input_file_id: str = Field(max_length=64, description="POST /v1/files 返回的 id")
    endpoint: str = Field(max_length=256, description="每一行的 url：/chat、/v1/tasks/<task>、/v1/chat/completions、…")
    completion_window: Literal["24h"] = Field(description="只能是 24h")
    metadata: dict[str, str] | None = Field(None, description="最多 16 对字符串，原样返回")
    output_expires_after: OutputExpiresAfter | None = Field(None, description="输出文件保留多久")


class BatchError(BaseModel):
    """What is wrong with an input file."""

    code: str
    line: int | None
    message: str
    param: str | None


class BatchErrors(BaseModel):
    """All of it, up to a hundred."""

    object: Literal["list"]
    data: list[BatchError]


class RequestCounts(BaseModel):
    """Lines of the input file; those that were cancelled or came too late count as failed."""

    total: int
    completed: int
    failed: int


class BatchObject(BaseModel):
    """A batch; times in Unix seconds."""

    id: str
    object: Literal["batch"]
    endpoint: str
    errors: BatchErrors | None
    input_file_id: str
    completion_window: Literal["24h"]
    status: Literal[
        "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
    ]
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    metadata: dict[str, str] | None


class BatchList(BaseModel):
    """Some of the caller's batches, the newest first."""

    object: Literal["list"]
    data: list[BatchObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class BatchPath(BaseModel):
    """Which batch."""

    batch_id: str


class BatchQuery(BaseModel):
    """Which batches."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(20, ge=1, le=100)
    after: str | None = Field(None, max_length=64, description="从这个批处理之后开始")


def register(app: OpenAPI, backend: Backend) -> None:
    """Add the routes to `app`; without batches they say that they are off."""
    known = batch_lines.endpoints(task.name for task in backend.service.registry)

    def batches() -> Batches:
        if backend.batches is None:
            raise BatchesOff()
        return backend.batches

    errors = error_responses(NestedErrorBody, 400, 404, 500, 503)

    @app.post(
        PATH,
        summary="批处理：一个文件的请求，空闲时回答（与 OpenAI 的接口相同）",
        responses={200: BatchObject, **errors, **error_responses(NestedErrorBody, 413, 415, 429)},
    )
    def create_batch(body: BatchRequest) -> Response:
        there = batches()
        if body.endpoint not in known:
            raise InvalidInput(
                said("unknown_endpoint", endpoint=body.endpoint, asked=is_it(body.endpoint, known), known=known),
                param="endpoint",
            )
        _check_metadata(body.metadata)
        keep_s = body.output_expires_after.seconds if body.output_expires_after else None
        try:
            made = there.store.create_batch(state.caller, body.input_file_id, body.endpoint, body.metadata, keep_s)
        except BatchFileNotFound as error:
            error.param = "input_file_id"  # as this body calls it
            raise
        there.wake()
        return jsonify(_describe(made))

    @app.get(PATH, summary="列出批处理", responses={200: BatchList, **errors})
    def list_batches(query: BatchQuery) -> Response:
        found, more = batches().store.batches(state.caller, limit=query.limit, after=query.after)
        return jsonify(page([_describe(batch) for batch in found], more))

    @app.get(f"{PATH}/<batch_id>", summary="一个批处理", responses={200: BatchObject, **errors})
    def retrieve_batch(path: BatchPath) -> Response:
        return jsonify(_describe(batches().store.batch(state.caller, path.batch_id)))

    @app.post(
        f"{PATH}/<batch_id>/cancel",
        summary="取消一个批处理",
        responses={200: BatchObject, **errors, **error_responses(NestedErrorBody, 409)},
    )
    def cancel_batch(path: BatchPath) -> Response:
        there = batches()
        cancelled = there.store.cancel(state.caller, path.batch_id)
        there.wake()
        return jsonify(_describe(cancelled))


def _check_metadata(given: dict[str, str] | None) -> None:
    pairs = (given or {}).items()
    if len(pairs) > _MOST_PAIRS or any(len(k) > _LONGEST_KEY or len(v) > _LONGEST_VALUE for k, v in pairs):
        most = {"most_pairs": _MOST_PAIRS, "longest_key": _LONGEST_KEY, "longest_value": _LONGEST_VALUE}
        raise InvalidInput(said("metadata_form", **most), param="metadata")


def _describe(batch: Batch) -> dict[str, Any]:
    errors = [BatchError(code=e.code, line=e.line, message=e.message, param=e.param) for e in batch.errors]
    return BatchObject(
        id=batch.id,
        object="batch",
        endpoint=batch.endpoint,
        errors=BatchErrors(object="list", data=errors) if errors else None,
        input_file_id=batch.input_file_id,
        completion_window="24h",
        status=batch.status,
        output_file_id=batch.output_file_id,
        error_file_id=batch.error_file_id,
        created_at=int(batch.created),
        expires_at=int(batch.expires),
        request_counts=RequestCounts(total=batch.total, completed=batch.completed, failed=batch.failed),
        metadata=None if batch.metadata is None else dict(batch.metadata),
        **{name: int(batch.times[name]) if name in batch.times else None for name in TIMES},
    ).model_dump()
