"""/v1/files, as OpenAI's clients know it: what batches are made of, and what they have answered."""

from __future__ import annotations

import codecs
import logging
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, Any, Literal
from urllib.parse import quote

from flask import Response, g, jsonify, request
from flask_openapi import FileStorage, OpenAPI
from pydantic import BaseModel, ConfigDict, Field
from werkzeug.formparser import default_stream_factory

from qwen_allinone.errors import BatchesFull, BatchesOff, BatchesUnavailable, InvalidInput, PayloadTooLarge
from qwen_allinone.http.backend import Backend
from qwen_allinone.http.body import Body
from qwen_allinone.http.error_answers import NestedErrorBody, error_responses
from qwen_allinone.http.request_state import state
from qwen_allinone.http.request_terms import looked_at_early
from qwen_allinone.state import SqliteBatches, StoredFile
from qwen_allinone.wording import said

log = logging.getLogger(__name__)

PATH = "/v1/files"
# Uploads of one caller that a worker takes at the same time; who has begun as many may try again after so many seconds.
_AT_ONCE = 2
_RETRY_AFTER_S = 5
_BLOCK_BYTES = 65_536
# What a multipart body has beside the file.
_AROUND_BYTES = 65_536
_SPACE = b" \t\r\n"
_CONTENT: dict[str | int, Any] = {
    200: {"description": "JSONL", "content": {"application/jsonl": {"schema": {"type": "string"}}}}
}


class FileForm(Body):
    """An upload."""

    model_config = ConfigDict(strict=False)  # all that a form holds is text

    file: FileStorage = Field(description="JSONL，每行一个请求：custom_id、method、url、body")
    purpose: Literal["batch"] = Field(description="只能是 batch")
    anchor: Literal["created_at"] | None = Field(None, alias="expires_after[anchor]", description="只能是 created_at")
    seconds: int | None = Field(
        None, ge=3600, le=2_592_000, alias="expires_after[seconds]", description="多少秒后忘掉这个文件"
    )


class FileObject(BaseModel):
    """A file."""

    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    expires_at: int = Field(description="When it is forgotten, in Unix seconds")
    filename: str
    purpose: Literal["batch", "batch_output"]
    status: Literal["processed"]
    status_details: None


class FileList(BaseModel):
    """Some of the caller's files."""

    object: Literal["list"]
    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FilePath(BaseModel):
    """Which file."""

    file_id: str


class FileQuery(BaseModel):
    """Which files."""

    model_config = ConfigDict(extra="forbid")

    purpose: str | None = Field(None, max_length=64)
    limit: int = Field(100, ge=1, le=1000)
    after: str | None = Field(None, max_length=64, description="从这个文件之后开始")
    order: Literal["asc", "desc"] = "desc"


class FileDeleted(BaseModel):
    """The file is gone."""

    id: str
    object: Literal["file"]
    deleted: Literal[True]


def register(app: OpenAPI, backend: Backend) -> None:
    """Add the routes to `app`; without batches they say that they are off."""

    def store() -> SqliteBatches:
        if backend.batches is None:
            raise BatchesOff()
        return backend.batches.store

    under_way = _UnderWay()

    def check_early() -> None:
        """An upload may be larger than other bodies, and is written to a temporary file as it is read. So it must say
        its size, which must fit, before that: of a body that does not say it the rest is lost.
        """
        quota, size = store().quota, request.content_length
        if size is None:
            raise InvalidInput(said("upload_length"))
        if size > quota.file_mb * 1_000_000 + _AROUND_BYTES:
            raise PayloadTooLarge(said("file_too_large", file_mb=quota.file_mb), param="file")
        store().check_room(state.caller, max(size - _AROUND_BYTES, 0))
        under_way.begin(state.caller)
        g.upload_of = state.caller
        request.max_content_length = quota.file_mb * 1_000_000 + _AROUND_BYTES
        _read_form()

    @app.teardown_request
    def end_upload(error: BaseException | None) -> None:
        if "upload_of" in g:
            under_way.end(g.pop("upload_of"))

    errors = error_responses(NestedErrorBody, 400, 404, 500, 503)

    @app.post(
        PATH,
        summary="上传批处理的文件（与 OpenAI 的接口相同）",
        responses={200: FileObject, **errors, **error_responses(NestedErrorBody, 403, 413, 429)},
    )
    @looked_at_early(check_early)
    def upload_file(form: FileForm) -> Response:
        size, lines = _looked_through(form.file.stream)
        kept = store().add_file(
            state.caller, _name(form.file.filename), size, lines, _blocks(form.file.stream), form.seconds
        )
        return jsonify(_describe(kept))

    @app.get(PATH, summary="列出文件", responses={200: FileList, **errors})
    def list_files(query: FileQuery) -> Response:
        found, more = store().files(
            state.caller,
            purpose=query.purpose,
            limit=query.limit,
            after=query.after,
            newest_first=query.order == "desc",
        )
        return jsonify(page([_describe(file) for file in found], more))

    @app.get(f"{PATH}/<file_id>", summary="一个文件", responses={200: FileObject, **errors})
    def retrieve_file(path: FilePath) -> Response:
        return jsonify(_describe(store().file(state.caller, path.file_id)))

    @app.get(f"{PATH}/<file_id>/content", summary="文件的内容", responses={**_CONTENT, **errors})
    def file_content(path: FilePath) -> Response:
        file = store().file(state.caller, path.file_id)
        response = Response(store().content(state.caller, path.file_id), content_type="application/jsonl")
        response.headers["Content-Length"] = str(file.bytes)
        response.headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(file.filename, safe='')}"
        return response

    @app.delete(
        f"{PATH}/<file_id>",
        summary="删除一个文件",
        responses={200: FileDeleted, **errors, **error_responses(NestedErrorBody, 409)},
    )
    def delete_file(path: FilePath) -> Response:
        store().delete_file(state.caller, path.file_id)
        return jsonify(FileDeleted(id=path.file_id, object="file", deleted=True).model_dump())


class _UnderWay:
    """The uploads that this worker takes at the moment, by caller: each may fill a temporary file."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str | None] = Counter()

    def begin(self, caller: str | None) -> None:
        """Raises BatchesFull."""
        with self._lock:
            if self._counts[caller] >= _AT_ONCE:
                message = said("uploads_at_once", at_once=_AT_ONCE)
                raise BatchesFull(message, headers={"Retry-After": str(_RETRY_AFTER_S)})
            self._counts[caller] += 1

    def end(self, caller: str | None) -> None:
        with self._lock:
            self._counts[caller] -= 1
            self._counts += Counter()  # forgets who has none


def _read_form() -> None:
    """Have the body of the request in hand in a temporary file, which is gone at once where that fails.

    Raises:
        BatchesUnavailable: it cannot be written, most often for want of room.
    """
    made: list[IO[bytes]] = []

    def temporary(**given: Any) -> IO[bytes]:
        made.append(default_stream_factory(**given))
        return made[-1]

    request._get_file_stream = temporary  # type: ignore[method-assign, assignment]
    try:
        _ = request.files
    except BaseException as error:
        for file in made:
            with suppress(OSError):
                file.close()
        if not isinstance(error, OSError):
            raise
        log.error("uploads: a temporary file in %s: %s; an upload is answered 503", _folder(), error)
        raise BatchesUnavailable() from error


def _folder() -> str:
    try:
        return tempfile.gettempdir()
    except OSError:
        return "any folder"


def page(shown: list[dict[str, Any]], more: bool) -> dict[str, Any]:
    """A part of a list, as OpenAI has it."""
    ends = {"first_id": shown[0]["id"] if shown else None, "last_id": shown[-1]["id"] if shown else None}
    return {"object": "list", "data": shown, **ends, "has_more": more}


def _describe(file: StoredFile) -> dict[str, Any]:
    return FileObject(
        id=file.id,
        object="file",
        bytes=file.bytes,
        created_at=int(file.created),
        expires_at=int(file.expires),
        filename=file.filename,
        purpose=file.purpose,
        status="processed",
        status_details=None,
    ).model_dump()


def _looked_through(stream: IO[bytes]) -> tuple[int, int]:
    """The bytes of an upload, and how many of its lines have something in.

    Raises:
        InvalidInput: there are none, or it is not UTF-8; the message names the line.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    size = lines = number = 0
    empty = True
    for block in _blocks(stream):
        try:
            decoder.decode(block)
        except UnicodeDecodeError as error:
            raise _not_utf8(number + block[: max(error.start, 0)].count(b"\n") + 1) from None
        size += len(block)
        for piece in block.split(b"\n")[:-1]:
            lines += not empty or bool(piece.strip(_SPACE))
            empty = True
        empty = empty and not block.rpartition(b"\n")[2].strip(_SPACE)
        number += block.count(b"\n")
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise _not_utf8(number + 1) from None
    lines += not empty
    if not lines:
        raise InvalidInput(said("file_empty"), param="file")
    return size, lines


def _not_utf8(line: int) -> InvalidInput:
    return InvalidInput(said("file_not_utf8", line=line), param="file")


def _blocks(stream: IO[bytes]) -> Iterator[bytes]:
    """All bytes of a file, from its start."""
    stream.seek(0)
    while block := stream.read(_BLOCK_BYTES):
        yield block


def _name(given: str | None) -> str:
    """What a client calls its file: shown again, and nothing else."""
    name = (given or "").replace("\\", "/").rpartition("/")[2]
    return "".join(c for c in name.encode("utf-8", "replace").decode() if c.isprintable())[:255] or "upload.jsonl"
