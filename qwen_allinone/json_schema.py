"""JSON schemas as grammars that tokens can follow (llguidance): checked here, followed in service/grammar_forms.py.

What a schema cannot ask for is refused, never overlooked: an answer either fits all of it or is not begun.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any

from llguidance import LLMatcher, LLParserLimits

MOST_CHARACTERS = 32_768
_KEPT = 64  # grammars
# JSON on one line, so that a small model does not lose itself in white space; and nothing of a schema is overlooked.
# All options stand here, for a schema may set any that does not ("x-guidance").
_OPTIONS: Any = {
    "whitespace_flexible": False,
    "whitespace_pattern": None,
    "item_separator": ", ",
    "key_separator": ": ",
    "coerce_one_of": False,
    "lenient": False,
    "json_allowed_escapes": None,
    "json_allow_general_unicode_escapes": False,
}
# At most about 50 ms to build, 15 ms a token, and 20 MB while an answer is made (1 kB a state); what all tokens may
# take together stands in service/grammar_forms.py. Errors tell no texts.
LIMITS = LLParserLimits(
    max_lexer_states=20_000,
    initial_lexer_fuel=1_000_000,
    step_lexer_fuel=50_000,
    step_max_items=5_000,
    max_grammar_size=100_000,
    verbose_errors=False,
)
# Each part beside the others costs with every other, so that these took over 100 ms to build or to follow:
# 26 patterns of names, or 160 alternatives that lead back to themselves.
_MOST_PARTS = {"anyOf": 80, "oneOf": 80, "patternProperties": 8}
# Alternatives that hold at once are multiplied out, which took 350 ms for eight pairs.
_MOST_PRODUCTS = 32
# Numbers are told apart by their remainder: a step of 100,000 took the engine's thread 0.6 s before any token, and
# one of a billion would never end. Steps that may hold at once are one of their least common multiple.
_MOST_MULTIPLE = 10_000
_VALUES = {"enum", "const", "default", "examples"}  # their parts are no schemas, unless a $ref leads there
# Their keys are names and no keywords, likewise.
_BY_NAME = {"properties", "patternProperties", "dependentSchemas", "$defs", "definitions"}
# From 2^63 on, and what a double rounds to it, an integer is taken for another one; llguidance (1.x) then ends the
# process: for a range of the least one alone it calls itself until the stack is full.
_LARGEST = 2**63 - 513
ANY_OBJECT: Mapping[str, Any] = {"type": "object"}


class SchemaError(ValueError):
    """A schema that no answer can be held to; the text says which keyword or bound is why."""


def grammar_of(schema: object) -> str:
    """The grammar of all JSON texts that fit `schema`.

    Raises:
        SchemaError: it is no schema, is too large, or asks for what is not supported.
    """
    try:
        text = json.dumps(schema, ensure_ascii=False, allow_nan=False)
        text.encode()
    except (TypeError, ValueError, RecursionError):
        raise SchemaError("it cannot be written as JSON") from None
    if len(text) > MOST_CHARACTERS:
        raise SchemaError(f"it has {len(text)} characters, and may have {MOST_CHARACTERS}")
    if not isinstance(schema, dict):
        raise SchemaError("it is not an object")
    _refuse_costly(schema, anywhere='"$ref"' in text)
    _refuse_large_numbers(schema)
    return _built(text)


def _refuse_large_numbers(schema: object) -> None:
    """Raises SchemaError for a number that is not told apart from others, wherever it stands."""
    found = [schema]
    while found:
        part = found.pop()
        if isinstance(part, (list, dict)):
            found += part.values() if isinstance(part, dict) else part
        elif isinstance(part, (int, float)) and abs(part) > _LARGEST:
            raise SchemaError(f"it has a number beyond {_LARGEST} or -{_LARGEST}")


def _refuse_costly(schema: object, *, anywhere: bool) -> None:
    """Raises SchemaError for more parts of a kind, or larger steps of numbers, than can be followed in time.

    `anywhere`: a $ref may lead to any part, so that each is looked at as if it were a schema.
    """
    found, steps = [(schema, False)], list[int | float]()
    while found:
        part, by_name = found.pop()
        if isinstance(part, list):
            found += [(inner, False) for inner in part]
        elif isinstance(part, dict) and by_name:
            found += [(inner, False) for inner in part.values()]
        elif isinstance(part, dict):
            for keyword, most in _MOST_PARTS.items():
                parts = part.get(keyword)
                if isinstance(parts, (dict, list)) and len(parts) > most:
                    raise SchemaError(f"{keyword} has {len(parts)} parts, and may have {most}")
            if (products := _products(part.get("allOf"))) > _MOST_PRODUCTS:
                raise SchemaError(f"allOf combines {products} alternatives, and may combine {_MOST_PRODUCTS}")
            step: Any = part.get("multipleOf")
            if type(step) in (int, float) and step > 0:
                steps.append(step)
            found += [
                (inner, keyword in _BY_NAME and not anywhere)
                for keyword, inner in part.items()
                if anywhere or keyword not in _VALUES
            ]
    if (multiple := _common_multiple(steps)) > _MOST_MULTIPLE:
        shown = multiple if multiple < 10**12 else "far more"
        raise SchemaError(f"multipleOf: the least common multiple of all is {shown}, and may be {_MOST_MULTIPLE}")


def _products(parts: object) -> int:
    """How many ways there are to choose an alternative in each of the parts."""
    given = [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    choices = [part.get(keyword) for part in given for keyword in ("anyOf", "oneOf")]
    return math.prod([len(choice) for choice in choices if isinstance(choice, list) and choice])


def _common_multiple(steps: Sequence[int | float]) -> int:
    """Of all steps, in units of their last decimal place."""
    exact = [Decimal(str(step)).normalize() for step in steps]
    places = max((-int(step.as_tuple().exponent) for step in exact), default=0)
    return math.lcm(*[int(step.scaleb(max(places, 0))) for step in exact])


@lru_cache(_KEPT)
def _built(text: str) -> str:
    try:
        grammar = LLMatcher.grammar_from_json_schema(text, overrides=_OPTIONS)
    except ValueError as error:  # nested too deep
        raise SchemaError(str(error)) from None
    broken, problems = LLMatcher.validate_grammar_with_warnings(grammar, limits=LIMITS)
    if broken or problems:
        raise SchemaError(" ".join(problems[0].split()))
    return grammar
