"""GET, POST and DELETE /v1/memory/<user>: what is remembered of a user, with QAIO_MEMORY=1."""

from __future__ import annotations

from typing import Literal

from flask import Response, jsonify
from flask_openapi import OpenAPI
from pydantic import BaseModel, ConfigDict, Field

from qwen_allinone.errors import MemoryOff
from qwen_allinone.http.backend import Backend
from qwen_allinone.http.body import Body
from qwen_allinone.http.error_answers import NestedErrorBody, error_responses
from qwen_allinone.http.request_state import state
from qwen_allinone.service import Memories, whose
from qwen_allinone.state import Memory, Whose
from qwen_allinone.telemetry.formatting import timestamp


class UserPath(BaseModel):
    """Whose memories."""

    user: str = Field(description="POST /chat 的 user")


class MemoryPath(UserPath):
    """Which of them."""

    id: str = Field(description="记忆的编号")


class MemoryQuery(BaseModel):
    """Which are shown."""

    model_config = ConfigDict(extra="forbid")

    q: str | None = Field(None, max_length=1000, description="只列出含有这些字词的记忆，最相近的在前")


class NoQuery(BaseModel):
    """A query would be mistaken for a choice of what is deleted."""

    model_config = ConfigDict(extra="forbid")


class NewMemory(Body):
    """A statement to keep."""

    text: str = Field(description="一句话，最多 200 个字符", examples=["用户住在杭州"])


class MemoryInfo(BaseModel):
    """A statement about a user."""

    id: str
    text: str
    source: Literal["chat", "hand"] = Field(description="Found in a chat, or added by hand")
    mood: str | None = Field(description="The sentiment of the chat that it was found in")
    at: str = Field(description="When it was last said, UTC")
    expires: str = Field(description="When it is forgotten unless said again, UTC")
    replaced: str | None = Field(description="When a newer statement took its place, UTC; it is told in no reply since")


class MemoryList(BaseModel):
    """All that is remembered of a user, the newest first."""

    user: str
    memories: list[MemoryInfo]


class MemoriesDeleted(BaseModel):
    """So many are gone."""

    user: str
    deleted: int


def register(app: OpenAPI, backend: Backend) -> None:
    """Add the routes to `app`; where nothing is remembered they say so."""

    def memories() -> Memories:
        if backend.memories is None:
            raise MemoryOff()
        return backend.memories

    errors = error_responses(NestedErrorBody, 400, 404, 500, 503)

    @app.get("/v1/memory/<user>", summary="列出或查找记忆", responses={200: MemoryList, **errors})
    def list_memories(path: UserPath, query: MemoryQuery) -> Response:
        user = _whose(path)
        found = memories().all(user) if query.q is None else memories().search(user, query.q)
        return jsonify(MemoryList(user=path.user, memories=[_describe(memory) for memory in found]).model_dump())

    @app.post(
        "/v1/memory/<user>",
        summary="添加一条记忆",
        responses={200: MemoryInfo, **errors, **error_responses(NestedErrorBody, 413, 415, 429)},
    )
    def add_memory(path: UserPath, body: NewMemory) -> Response:
        return jsonify(_describe(memories().add(_whose(path), body.text)).model_dump())

    @app.delete(
        "/v1/memory/<user>/<id>",
        summary="忘掉一条记忆",
        responses={200: MemoriesDeleted, **errors},
    )
    def delete_memory(path: MemoryPath, query: NoQuery) -> Response:
        memories().delete(_whose(path), path.id)
        return jsonify(MemoriesDeleted(user=path.user, deleted=1).model_dump())

    @app.delete("/v1/memory/<user>", summary="忘掉一个人的全部记忆", responses={200: MemoriesDeleted, **errors})
    def forget_user(path: UserPath, query: NoQuery) -> Response:
        return jsonify(MemoriesDeleted(user=path.user, deleted=memories().forget(_whose(path))).model_dump())


def _whose(path: UserPath) -> Whose:
    return whose(state.caller, path.user)


def _describe(memory: Memory) -> MemoryInfo:
    return MemoryInfo(
        id=memory.id,
        text=memory.text,
        source=memory.source,
        mood=memory.mood,
        at=timestamp(memory.at, "seconds"),
        expires=timestamp(memory.expires, "seconds"),
        replaced=None if memory.replaced is None else timestamp(memory.replaced, "seconds"),
    )
