"""Messages as OpenAI's clients write them, read strictly: texts only, and what is not supported is named."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from qwen_allinone.http.body import Body
from qwen_allinone.http.error_answers import SAID
from qwen_allinone.service.completions import Utterance
from qwen_allinone.wording import said

MOST_MESSAGES = 2048
JSON_PART = "input_json"  # its data are read as text
# What clients send besides text, and what to call it.
_UNSUPPORTED = {
    "image_url": said("an_image"),
    "input_image": said("an_image"),
    "input_audio": said("a_sound"),
    "file": said("a_file"),
    "input_file": said("a_file"),
}


def complaint(message: str) -> PydanticCustomError:
    """What a validator raises; the field's name is put before `message`."""
    return PydanticCustomError(SAID, "{message}", {"message": message})


def join_parts(content: Any, *kinds: str) -> Any:
    """The text of a list of parts of these kinds; what is no list is left to be checked as it is.

    Raises:
        PydanticCustomError: a part that is no text; it is named.
    """
    if not isinstance(content, list):
        return content
    return "".join(_text_of(number, part, kinds) for number, part in enumerate(content, 1))


def _text_of(number: int, part: Any, kinds: tuple[str, ...]) -> str:
    given = without_nulls(part) if isinstance(part, dict) else {}
    kind = given.get("type")
    if isinstance(kind, str) and kind in _UNSUPPORTED:
        raise complaint(said("part_no_text", number=number, unsupported=_UNSUPPORTED[kind], kind=kind))
    field, of = ("data", (dict, list)) if kind == JSON_PART else ("text", (str,))
    if kind not in kinds or set(given) != {"type", field} or not isinstance(given[field], of):
        raise complaint(said("part_form", number=number, kind=kinds[0]))
    return json.dumps(given[field], ensure_ascii=False) if kind == JSON_PART else str(given[field])


def without_nulls(value: Any) -> Any:
    """An object without what is null: so clients write what they leave unset."""
    return {key: given for key, given in value.items() if given is not None} if isinstance(value, dict) else value


def content_schema(kind: str) -> WithJsonSchema:
    """How the OpenAPI document describes what `join_parts` takes."""
    part = {
        "type": "object",
        "properties": {"type": {"const": kind}, "text": {"type": "string"}},
        "required": ["type", "text"],
    }
    return WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": part}]})


def _said_nothing(message: Any) -> Any:
    """A message of the model's without content, as clients keep one that only called a tool, is an empty one."""
    silent = isinstance(message, dict) and message.get("role") == "assistant" and "content" not in message
    return {**message, "content": ""} if silent else message


class ChatMessage(Body):
    """One message: who says what."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, BeforeValidator(lambda content: join_parts(content, "text")), content_schema("text")] = (
        Field(description="文字，或若干 text 段")
    )

    name: str = Field("", max_length=64, description="客户端自己的备注：模型不知道名字")
    tool_calls: Annotated[list[Any], Field(max_length=0)] = Field([], description="只能是空的")

    _unset = model_validator(mode="before")(lambda value: _said_nothing(without_nulls(value)))

    @property
    def pair(self) -> Utterance:
        """As the model's template knows it: a developer's word is the system's."""
        return ("system" if self.role == "developer" else self.role, self.content)


Messages = Annotated[list[ChatMessage], Field(min_length=1, max_length=MOST_MESSAGES, fail_fast=True)]
