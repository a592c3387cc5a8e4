"""POST /tokenize and /detokenize, in vLLM's shape: how many tokens a text takes, and how many are left for a reply."""

from __future__ import annotations

from typing import Annotated, Any

from flask import Response, jsonify
from flask_openapi import OpenAPI
from pydantic import BaseModel, Field, model_validator

from qwen_allinone.errors import InvalidInput
from qwen_allinone.http.backend import Backend
from qwen_allinone.http.body import Body
from qwen_allinone.http.error_answers import ErrorBody, error_responses
from qwen_allinone.http.messages import Messages, without_nulls
from qwen_allinone.service import Codec
from qwen_allinone.service.completions import conversation_ids, text_ids
from qwen_allinone.wording import said

_MOST_IDS = 16_384


class TokenizeRequest(Body):
    """A text, or messages as the model's template puts them."""

    model: str | None = Field(None, description="本服务的模型名，可以不写")
    prompt: str | None = Field(None, description="一段文字")
    messages: Messages | None = Field(None, description="或一段对话，二者给一个")
    return_token_strs: bool = Field(False, description="true：也列出每个 token 的文字")

    _unset = model_validator(mode="before")(without_nulls)


class Tokens(BaseModel):
    """Token ids in their order."""

    tokens: list[int]
    count: int
    max_model_len: int = Field(description="Tokens that prompt and reply may have together")
    room: int = Field(description="Tokens that are left for a reply")
    token_strs: list[str] | None = Field(None, description="Only if asked for")


class DetokenizeRequest(Body):
    """Token ids."""

    model: str | None = Field(None, description="本服务的模型名，可以不写")
    tokens: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=_MOST_IDS, fail_fast=True)]

    _unset = model_validator(mode="before")(without_nulls)


class Text(BaseModel):
    """What the ids say; control tokens are left out."""

    prompt: str


def register(app: OpenAPI, backend: Backend) -> None:
    """Add the routes to `app`."""
    errors = error_responses(ErrorBody, 400, 404, 413, 415, 500, 503)

    @app.post("/tokenize", summary="文字有多少个 token，还剩多少给回复", responses={200: Tokens, **errors})
    def tokenize(body: TokenizeRequest) -> Response:
        codec = _codec_for(body.model)
        if (body.prompt is None) == (body.messages is None):
            raise InvalidInput(said("prompt_or_messages"), param="prompt")
        if body.messages is not None:
            ids = conversation_ids([message.pair for message in body.messages], codec)
        else:
            ids = text_ids(str(body.prompt), codec)
        shown: dict[str, Any] = {"tokens": ids, "count": len(ids), "max_model_len": codec.context}
        shown["room"] = max(codec.context - len(ids), 0)
        if body.return_token_strs:
            shown["token_strs"] = list(map(codec.tokenizer.text_of, ids))
        return jsonify(shown)

    @app.post("/detokenize", summary="token 编号变回文字", responses={200: Text, **errors})
    def detokenize(body: DetokenizeRequest) -> Response:
        codec = _codec_for(body.model)
        if not codec.tokenizer.ids.issuperset(body.tokens):
            raise InvalidInput(said("tokens_unknown"), param="tokens")
        return jsonify(prompt=codec.tokenizer.decode(body.tokens))

    def _codec_for(model: str | None) -> Codec:
        if model is not None:
            backend.check_model(model)
        return backend.service.codec
