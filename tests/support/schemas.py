"""JSON schemas made up by hypothesis: of the kinds that people write, nested, with bounds and references."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

Schema = dict[str, Any]

_NAMES = st.text("abcxyz_名类数", min_size=1, max_size=6)


def _ranges(most: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(0, most), st.integers(0, most)).map(lambda pair: (min(pair), max(pair)))


_STRINGS = st.one_of(
    _ranges(12).map(lambda r: {"type": "string", "minLength": r[0], "maxLength": r[1]}),
    st.sampled_from(["^[a-z]{2,5}$", "^\\d{3}-\\d{4}$", "^(是|否)$", "^[A-C]+x?$"]).map(
        lambda pattern: {"type": "string", "pattern": pattern, "maxLength": 12}
    ),
    st.sampled_from(["date", "time", "date-time", "email", "ipv4", "ipv6", "uuid"]).map(
        lambda name: {"type": "string", "format": name}
    ),
)
_NUMBERS = st.one_of(
    _ranges(1000).map(lambda r: {"type": "integer", "minimum": r[0] - 500, "maximum": r[1]}),
    st.integers(1, 9).map(lambda step: {"type": "integer", "minimum": 0, "maximum": 99, "multipleOf": step}),
    _ranges(50).map(lambda r: {"type": "number", "minimum": r[0], "exclusiveMaximum": r[1] + 1}),
    _ranges(9).map(lambda r: {"type": "number", "exclusiveMinimum": r[0], "maximum": r[1] + 1, "multipleOf": 0.25}),
    _ranges(90).map(lambda r: {"allOf": [{"type": "integer", "minimum": r[0]}, {"maximum": r[1] + 1}]}),
)
_VALUES = st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.text('ab好坏"\\\n', max_size=4))
_LEAVES = st.one_of(
    _STRINGS,
    _NUMBERS,
    st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"type": ["integer", "null"], "minimum": 0, "maximum": 9}]),
    st.lists(_VALUES, min_size=1, max_size=4).map(lambda values: {"enum": values}),
    _VALUES.map(lambda value: {"const": value}),
)


def _objects(inner: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    def made(properties: dict[str, Schema], data: st.DataObject) -> Schema:
        names = list(properties)
        required = data.draw(st.lists(st.sampled_from(names), unique=True)) if names else []
        return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}

    return st.builds(made, st.dictionaries(_NAMES, inner, max_size=4), st.data())


def _arrays(inner: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    return st.builds(
        lambda items, r: {"type": "array", "items": items, "minItems": r[0], "maxItems": r[1]}, inner, _ranges(3)
    )


def _maps(inner: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    """Objects whose names nobody lists."""
    return st.one_of(
        inner.map(lambda value: {"type": "object", "additionalProperties": value}),
        inner.map(
            lambda value: {"type": "object", "patternProperties": {"^[ab]{1,3}$": value}, "additionalProperties": False}
        ),
    )


def _tuples(inner: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    def made(places: list[Schema], least: int) -> Schema:
        return {"type": "array", "prefixItems": places, "items": False, "minItems": min(least, len(places))}

    return st.builds(made, st.lists(inner, min_size=1, max_size=3), st.integers(0, 3))


def _tagged(inner: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    """One of several objects, told apart by a constant."""

    def made(parts: list[Schema]) -> Schema:
        kinds = [{"kind": {"const": f"k{number}"}, "value": part} for number, part in enumerate(parts)]
        shared = {"type": "object", "required": ["kind", "value"], "additionalProperties": False}
        return {"oneOf": [shared | {"properties": properties} for properties in kinds]}

    return st.lists(inner, min_size=1, max_size=3).map(made)


def _either(inner: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    return st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"anyOf": parts})


_NESTED = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        _objects(inner), _arrays(inner), _either(inner), _maps(inner), _tuples(inner), _tagged(inner)
    ),
    max_leaves=8,
)


def _referred(part: Schema) -> Schema:
    """The part twice, by reference."""
    refer = {"$ref": "#/$defs/part"}
    properties = {"one": refer, "other": refer}
    return {
        "$defs": {"part": part},
        "type": "object",
        "properties": properties,
        "required": ["one"],
        "additionalProperties": False,
    }


def _tree(part: Schema) -> Schema:
    """A tree of the part: it refers to itself."""
    properties = {"value": part, "below": {"type": "array", "items": {"$ref": "#"}, "maxItems": 2}}
    return {"type": "object", "properties": properties, "required": ["value"], "additionalProperties": False}


SCHEMAS: st.SearchStrategy[Schema] = st.one_of(_objects(_NESTED), _NESTED, _NESTED.map(_referred), _LEAVES.map(_tree))


def _deep(levels: int) -> Schema:
    schema: Schema = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


def _either_of_pairs(count: int) -> Schema:
    pair = [{"type": "object", "properties": {name: {"type": "string"}}} for name in "ab"]
    return {"allOf": [{"anyOf": pair} for _ in range(count)]}


# Schemas that no server should follow, by what is wrong with them.
HOSTILE: dict[str, Schema] = {
    "an unknown type": {"type": "text"},
    "a reference elsewhere": {"$ref": "http://127.0.0.1:9/schema.json"},
    "a reference to a file": {"$ref": "file:///schema.json"},
    "a reference to nothing": {"$ref": "#/$defs/none"},
    "not": {"not": {"type": "string"}},
    "unique items": {"type": "array", "uniqueItems": True},
    "if": {"if": {"type": "string"}, "then": {"maxLength": 3}},
    "a name of properties": {"type": "object", "propertyNames": {"pattern": "a"}},
    "unevaluated properties": {"type": "object", "unevaluatedProperties": False},
    "one of two that overlap": {"oneOf": [{"type": "integer"}, {"type": "number"}]},
    "what nothing fits": {"type": "integer", "minimum": 5, "maximum": 4},
    "looking ahead": {"type": "string", "pattern": "(a+)+(?=b)"},
    "a broken pattern": {"type": "string", "pattern": "(a"},
    "an unknown format": {"type": "string", "format": "colour"},
    "leniency": {"type": "object", "not": {}, "x-guidance": {"lenient": True}},
    "very deep": _deep(400),
    "very wide": {"type": "object", "properties": {f"key{n}": {"type": "string"} for n in range(5000)}},
    "a huge list of values": {"enum": [f"value {n}" for n in range(5000)]},
    "products of alternatives": _either_of_pairs(24),
    "huge": {"description": "x" * 100_000},
}
