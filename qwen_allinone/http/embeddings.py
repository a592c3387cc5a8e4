"""POST /v1/embeddings, as OpenAI's clients know it: vectors of texts by the same model."""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from typing import Annotated, Literal

from flask import Response, jsonify
from flask_openapi import OpenAPI
from pydantic import BaseModel, Field, model_validator

from qwen_allinone.http.backend import Backend
from qwen_allinone.http.body import Body
from qwen_allinone.http.error_answers import NestedErrorBody, error_responses
from qwen_allinone.http.messages import without_nulls
from qwen_allinone.http.prompts import Prompt, prompts
from qwen_allinone.http.request_terms import needs_engine, parameters, terms
from qwen_allinone.service.embeddings import embed, unit

_MOST_TEXTS = 256


class EmbeddingRequest(Body):
    """Texts to be compared by their vectors. A field that is not listed is refused."""

    model: str = Field(description="本服务的模型名，见 GET /v1/models")
    input: Annotated[list[Prompt], *prompts(_MOST_TEXTS)] = Field(
        description=f"文字或 token 编号，最多 {_MOST_TEXTS} 个", examples=["今天心情特别差"]
    )
    encoding_format: Literal["float", "base64"] = Field("float", description="base64：小端 float32")
    user: str = Field("", description="客户端自己的备注，不作处理")

    _unset = model_validator(mode="before")(without_nulls)


class Embedding(BaseModel):
    """The vector of one text, of length 1; as base64 of little-endian float32 if that was asked for."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingUsage(BaseModel):
    """Tokens read, with those that stand around each text."""

    prompt_tokens: int
    total_tokens: int


class Embeddings(BaseModel):
    """The vectors, in the order of the texts."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


def register(app: OpenAPI, backend: Backend) -> None:
    """Add the route to `app`."""

    @app.post(
        "/v1/embeddings",
        summary="文字的向量（与 OpenAI 的接口相同）",
        responses={200: Embeddings, **error_responses(NestedErrorBody, 400, 404, 413, 415, 500, 503, 504)},
        openapi_extensions=parameters(),
    )
    @needs_engine
    def embeddings(body: EmbeddingRequest) -> Response:
        backend.check_model(body.model)
        answers = embed(backend.service, body.input, terms(backend))
        written = _packed if body.encoding_format == "base64" else list[float]
        data = [
            {"object": "embedding", "index": number, "embedding": written(unit(answer.result.vector))}
            for number, answer in enumerate(answers)
        ]
        read = sum(answer.result.prompt_tokens for answer in answers)
        return jsonify(object="list", data=data, model=body.model, usage={"prompt_tokens": read, "total_tokens": read})


def _packed(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
