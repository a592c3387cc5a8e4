"""Tools that a client offers. The dialect leaves it to the model whether it calls one; this service never does.

So they may be offered, and are checked, and the reply is a text. To insist on a call is refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from qwen_allinone.http.body import Body
from qwen_allinone.http.messages import complaint, without_nulls
from qwen_allinone.wording import said

_MOST_TOOLS = 128
_CHOICES = ("none", "auto")


class OfferedFunction(Body):
    """A function as OpenAI describes one. Its parameters are a JSON schema, which nothing is made of."""

    name: str = Field(min_length=1, max_length=128)
    description: str = ""
    parameters: dict[str, Any] = Field(default_factory=dict)
    strict: bool = False

    _unset = model_validator(mode="before")(without_nulls)


class OfferedTool(Body):
    """A function among tools."""

    type: Literal["function"]
    function: OfferedFunction


class FlatTool(OfferedFunction):
    """The same as clients of /v1/responses write it, without a level between."""

    type: Literal["function"]


def _choice(value: Any) -> Any:
    if value not in _CHOICES:
        raise complaint(said("no_tool_choice"))
    return value


Tools = Annotated[list[OfferedTool], Field(max_length=_MOST_TOOLS, fail_fast=True)]
FlatTools = Annotated[list[FlatTool], Field(max_length=_MOST_TOOLS, fail_fast=True)]
Functions = Annotated[list[OfferedFunction], Field(max_length=_MOST_TOOLS, fail_fast=True)]
ToolChoice = Annotated[
    Literal["none", "auto"], BeforeValidator(_choice), WithJsonSchema({"type": "string", "enum": list(_CHOICES)})
]
