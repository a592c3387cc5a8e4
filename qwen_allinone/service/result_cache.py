"""Results of greedy tasks, remembered: under which key, how they are written down, and what is believed when read."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from qwen_allinone.engine import FinishReason, Result
from qwen_allinone.service.fitted_task import FittedTask
from qwen_allinone.service.request import Request
from qwen_allinone.state.cache import SingleFlightCache, key_of
from qwen_allinone.tasks import Task

_MOST_ID = 2**31
_SUM_TOLERANCE = 1e-3


class ResultCache:
    """Runs what has to be computed, and remembers it."""

    def __init__(self, answers: SingleFlightCache) -> None:
        self._answers = answers

    def run(
        self, fitted: FittedTask, inputs: Mapping[str, str], request: Request, compute: Callable[[], Result]
    ) -> tuple[Result, bool]:
        """The result of a greedy task on `inputs`, and whether it was there; then it cost nothing."""
        use, task = request.terms.cache, fitted.task
        if use is None or not use.store:
            return compute(), False
        named = [part for name in sorted(task.spec.given) for part in (name, inputs[name])]
        weighed = bool(task.labels) and request.terms.weighs_labels
        # What was not weighed does not do for whoever asks for that.
        named += ["label_mass"] if weighed else []
        key = key_of(request.terms.caller or "", fitted.model_id, task.name, fitted.version, *named)
        if not use.read:
            result = compute()
            self._answers.put(key, dump(result))
            return result, False
        computed: list[Result] = []

        def compute_and_dump() -> bytes:
            computed.append(compute())
            return dump(computed[0])

        good = partial(_is_good, task, weighed)
        raw, found = self._answers.fetch(key, good, compute_and_dump, request.permit)
        if computed:
            return computed[0], found
        kept = load(raw, task)
        assert kept is not None, "it was found good"
        return kept, found


def without_cost(result: Result) -> Result:
    """A remembered result: nothing was generated for it, and none of its prompt computed."""
    return replace(
        result,
        ids=(),
        reused_tokens=result.prompt_tokens,
        drafted_tokens=0,
        accepted_tokens=0,
        queue_s=0.0,
        prefill_s=0.0,
        decode_s=0.0,
        submitted=0.0,
    )


def dump(result: Result) -> bytes:
    """All of a result that is not about its making, as JSON."""
    fields: dict[str, Any] = {
        "reason": result.finish_reason.value,
        "ids": result.ids,
        "prompt_tokens": result.prompt_tokens,
        "label": result.label,
        "probabilities": result.probabilities,
    }
    if result.label_mass is not None:
        fields["label_mass"] = result.label_mass
    return json.dumps(fields, separators=(",", ":")).encode()


def load(raw: bytes, task: Task) -> Result | None:
    """The result, or None if this is none of `task`: whatever others may have written there."""
    try:
        fields = json.loads(raw)
        result = Result(
            finish_reason=FinishReason(fields["reason"]),
            ids=tuple(map(_natural, fields["ids"])),
            prompt_tokens=_natural(fields["prompt_tokens"]),
            reused_tokens=0,
            label=None if fields["label"] is None else _natural(fields["label"]),
            probabilities=tuple(map(_share, fields["probabilities"])),
            label_mass=_share(fields["label_mass"]) if "label_mass" in fields else None,
        )
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return result if _suits(result, task) else None


def _is_good(task: Task, weighed: bool, raw: bytes) -> bool:
    result = load(raw, task)
    return result is not None and (result.label_mass is not None) == weighed


def _suits(result: Result, task: Task) -> bool:
    if not task.labels:
        return result.label is None and not result.probabilities and bool(result.ids)
    if result.label is None or result.label >= len(task.labels) or len(result.probabilities) != len(task.labels):
        return False
    return math.isclose(sum(result.probabilities), 1.0, abs_tol=_SUM_TOLERANCE)


def _natural(value: Any) -> int:
    if type(value) is not int or not 0 <= value < _MOST_ID:
        raise ValueError("no natural number")
    return value


def _share(value: Any) -> float:
    if type(value) not in (int, float) or not 0.0 <= value <= 1.0:
        raise ValueError("no probability")
    return float(value)
