"""What the keys of prompt.md and cases.yaml look like: examples for those who wrote something else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_INPUT = "{max_tokens: 1024}"
_EXAMPLES: Mapping[str, str] = {
    "description": "description: what the task does",
    "inputs": f"inputs: {{text: {_INPUT}}}",
    "max_tokens": "max_tokens: 1024",
    "mask": "mask: [phone]",
    "output": "output: {kind: text}",
    "kind": "kind: text",
    "labels": "labels: [{name: urgent}, {name: normal}]",
    "name": "name: urgent",
    "unknown": "unknown: {name: unclear, below: 0.6}",
    "unsure": "unsure: {name: calm, below: 0.6}",
    "below": "below: 0.6",
    "decoding": "decoding: {strategy: greedy, max_new_tokens: 64}",
    "strategy": "strategy: greedy",
    "max_new_tokens": "max_new_tokens: 64",
    "plain": "plain: {text: Review, label: Sentiment}",
    "any": "any: [thanks, sorry]",
    "all": "all: [thanks, sorry]",
    "none": "none: [thanks, sorry]",
    "fields": "fields: {urgent: true}",
}


def example_of(path: Sequence[str | int], written: Any, *, of_case: bool) -> str:
    """How the key at the end of `path` may be written, in YAML and with what was `written` where that can be; empty
    where there is no example. `of_case`: the path is one in cases.yaml."""
    match path:
        case [] | ["inputs"] if of_case:
            return "inputs: {text: the text}" if path else "- inputs: {text: the text}"
        case [*_, "labels", int()]:
            return f"{{name: {written if isinstance(written, str) and written else 'urgent'}}}"
        case ["inputs"] if isinstance(written, list) and written and all(isinstance(one, str) for one in written):
            return f"inputs: {{{', '.join(f'{name}: {_INPUT}' for name in written)}}}"
        case ["inputs", str(name)] if not of_case:
            return f"{name}: {_INPUT}"
        case [*_, "plain", str(name)]:
            return f"{name}: Review"
        case [*_, str(name)]:
            return _EXAMPLES.get(name, "")
    return ""
