"""Schemas that are made to take time or memory, by what they do it with. Some can be followed, most are to be refused."""

from __future__ import annotations

import string
from collections.abc import Callable
from functools import reduce
from typing import Any

from tests.support.schemas import Schema

_SIZES = (2, 5, 10, 20, 40, 80, 160, 320)
_TENS = tuple(10**power for power in (2, 3, 4, 5, 6, 9, 18, 300))
# The first group is what is known to be catastrophic for backtracking, the second for automata.
_PATTERNS = (
    "^(a+)+$", "^(a|a)*$", "^(a|aa)+$", "^(a*)*b$", "^(.+)+$", "^(.*)*(.*)*$", "^(\\w+\\s?)*$", "^(a?){50}a{50}$", "^(.*a){50}$",
    "^.*a.{12}$", "^.*a.{20}$", "^.*a.{20}y$", "^[a-z]*x.{9}y.{9}z$", "^(0|1)*1(0|1){18}$", "(a|b)*a(a|b){14}", "(.*)(.*)(.*)x",
    "^(x{1,100}){1,100}$", "^((x{1,30}){1,30}){1,30}$", "^(?:a{0,50}){0,50}(?:b{0,50}){0,50}$", "^\\p{L}{1,500}$", "^(\\p{L}|\\p{N}){1,200}$",
    "^.{1000}$", "^.{0,10000}$", "^[^a]{0,100000}$", "a{1000000}", "(a)\\1", "(?=a)b", "(?<!a)b", "[", "\\p{Nonsense}",
)  # fmt: skip


def _nested(wrap: Callable[[Schema], Schema], levels: int) -> Schema:
    return reduce(lambda inner, _: wrap(inner), range(levels), {"type": "string"})


def _chain(size: int, step: Callable[[str], Schema], last: Schema) -> Schema:
    """Definitions of which each is made of the next one."""
    parts = {f"d{number}": step(f"#/$defs/d{number + 1}") for number in range(size)}
    return {"$defs": parts | {f"d{size}": last}, "$ref": "#/$defs/d0"}


def _text(pattern: str) -> Schema:
    return {"type": "string", "pattern": pattern}


def _object(properties: dict[str, Any], *required: str) -> Schema:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def _letters(size: int) -> str:
    return (string.ascii_letters * 8)[:size]


_LETTERS = (2, 4, 8, 16, 26)
HOSTILE_FAMILIES: dict[str, list[Schema]] = {
    "nested lists": [_nested(lambda inner: {"type": "array", "items": inner, "minItems": 1}, n) for n in _SIZES],
    "nested objects": [_nested(lambda inner: _object({"a": inner}, "a"), n) for n in _SIZES],
    "nested choices": [_nested(lambda inner: {"anyOf": [{"type": "null"}, {"type": "array", "items": inner}]}, n) for n in _SIZES],
    "itself in all branches": [
        {"type": "object", "properties": {f"k{k}": {"$ref": "#"} for k in range(n)}} for n in _SIZES
    ],
    "itself among choices": [
        {"anyOf": [{"type": "array", "items": {"$ref": "#"}, "minItems": k} for k in range(n)]} for n in _SIZES
    ],
    "itself and nothing else": [
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}, {"type": "object"}]},
        {"anyOf": [{"$ref": "#"}, {"type": "object"}]},
        {"not": {"$ref": "#"}},
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
        _object({"a": {"$ref": "#"}}, "a"),
    ],
    "twice the next, as a pair": [
        _chain(n, lambda to: _object({"x": {"$ref": to}, "y": {"$ref": to}}, "x", "y"), {"type": "null"}) for n in _SIZES
    ],
    "twice the next, both at once": [
        _chain(n, lambda to: {"allOf": [{"$ref": to}, {"$ref": to}]}, {"type": "string"}) for n in _SIZES
    ],
    "twice the next, either": [
        _chain(n, lambda to: {"anyOf": [{"$ref": to}, {"$ref": to}]}, {"type": "string"}) for n in _SIZES
    ],
    "many values": [{"enum": [f"value {k}" for k in range(n * 10)]} for n in _SIZES],
    "many numbers": [{"enum": list(range(n * 10))} for n in _SIZES],
    "values that begin alike": [{"enum": ["a" * n + str(k) for k in range(n)]} for n in _SIZES],
    "long values": [{"enum": ["x" * n, "x" * (n - 1) + "y"]} for n in _TENS[:4]],
    "many properties": [{"type": "object", "properties": {f"k{k}": {"type": "string"} for k in range(n)}} for n in _SIZES],
    "many kinds of objects": [
        {"anyOf": [{"type": "object", "properties": {f"k{k}": {"type": "integer"}}} for k in range(n)]} for n in _SIZES
    ],
    "patterns": [_text(pattern) for pattern in _PATTERNS],
    "patterns beside each other": [_object({f"k{k}": _text(pattern) for k in range(8)}, "k0") for pattern in _PATTERNS],
    "patterns at once": [{"allOf": [_text(f"^.*{one}.*$") for one in _letters(n)]} for n in _LETTERS],
    "patterns of names": [
        {"type": "object", "patternProperties": {f"^.*{one}.{{8}}$": {"type": "integer"} for one in _letters(n)}}
        for n in _LETTERS
    ],
    "long texts": [{"type": "string", key: n} for n in _TENS for key in ("minLength", "maxLength")],
    "long lists": [{"type": "array", "items": {"type": "integer"}, key: n} for n in _TENS for key in ("minItems", "maxItems")],
    "large objects": [{"type": "object", key: n} for n in _TENS[:4] for key in ("minProperties", "maxProperties")],
    "large steps": [{"type": "integer", "multipleOf": n + 7} for n in _TENS],
    "small steps": [{"type": "number", "multipleOf": 10.0**-power} for power in (1, 3, 9, 20, 300)],
    "large numbers": [{"type": kind, "minimum": -n, "maximum": n + 1} for n in _TENS for kind in ("integer", "number")],
    "steps at once": [
        {"allOf": [{"type": "integer", "multipleOf": prime} for prime in (7, 11, 13, 17, 19, 23, 29, 31)[:n]]}
        for n in (1, 2, 4, 8)
    ],
    "products of choices": [
        {"allOf": [{"anyOf": [_object({one: {"type": "string"}}) for one in "ab"]} for _ in range(n)]}
        for n in (2, 4, 8, 16, 32)
    ],
}  # fmt: skip
