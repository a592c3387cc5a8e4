"""The name that somebody meant who wrote another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

_ALIKE = 0.7  # of 1, as difflib measures it: a slip or two in a short word


def nearest(written: str, known: Iterable[str]) -> str | None:
    """The one of `known` that `written` is most likely a slip of; None where none is like it.

    Upper and lower case, `-` and `_` are the same here: they are what people mix up most.
    """
    by_form = {_form(name): name for name in known}
    found = get_close_matches(_form(written[:64]), by_form, n=1, cutoff=_ALIKE)
    return by_form[found[0]] if found else None


def hint(written: str, known: Iterable[str]) -> str:
    """ ", did you mean X?" for the end of an English complaint, or nothing."""
    name = nearest(written, known)
    return f", did you mean {name}?" if name else ""


def names_within(schema: Mapping[str, Any]) -> frozenset[str]:
    """The fields in a JSON schema and in all that it defines."""
    parts = [schema, *schema.get("$defs", {}).values()]
    return frozenset(name for part in parts for name in part.get("properties", {}))


def _form(name: str) -> str:
    return name.casefold().replace("-", "_")
