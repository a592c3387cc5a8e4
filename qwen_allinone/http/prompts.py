"""Texts or token ids, one or many, as OpenAI's clients write them where there is no conversation."""

from __future__ import annotations

from functools import partial
from typing import Any

from pydantic import BeforeValidator, WithJsonSchema

from qwen_allinone.http.messages import complaint
from qwen_allinone.wording import said

Prompt = str | list[int]
_TEXT, _IDS = {"type": "string"}, {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}


def prompts(most: int) -> tuple[Any, ...]:
    """What makes a field of `list[Prompt]` take up to so many, however they are written."""
    many = {"type": "array", "minItems": 1, "maxItems": most}
    schema = {"anyOf": [_TEXT, _IDS, many | {"items": _TEXT}, many | {"items": _IDS}]}
    return BeforeValidator(partial(_listed, most)), WithJsonSchema(schema)


def _listed(most: int, value: Any) -> Any:
    """A list of texts or of lists of token ids."""
    given = value if isinstance(value, list) and not all(map(_is_id, value)) else [value]
    for prompt in given:
        if not isinstance(prompt, str) and not (isinstance(prompt, list) and all(map(_is_id, prompt))):
            raise complaint(said("prompt_form"))
    if len({type(prompt) for prompt in given}) != 1 or len(given) > most:
        raise complaint(said("prompt_most", most=most))
    return given


def _is_id(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**31
