"""What an answer has cost and how it came about, as clients are told: `detail`, and the end of a stream."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from qwen_allinone.service import Answer

# For the field `detail` of request bodies.
WANTED: Any = Field(False, description="true：附带概率、用量、耗时、模型和提示词版本")


class Usage(BaseModel):
    """Tokens. `reused_tokens` of the prompt were not computed: their keys and values, or the answer, were kept."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    reused_tokens: int


class Timings(BaseModel):
    """Milliseconds: waiting for a slot, computing the prompt, generating."""

    queue_ms: float
    prefill_ms: float
    decode_ms: float


class Detail(BaseModel):
    """How an answer came about."""

    probabilities: dict[str, float] | None = Field(None, description="Of each label; absent for free text")
    label_mass: float | None = Field(
        None, description="Share of all that the model might say next that begins a label; absent for free text"
    )
    usage: Usage
    timings: Timings
    model: str = Field(description="Name @ what is in its files : how its weights are kept")
    prompt_version: str = Field(description="Changes with prompt.md, its calibration and its fit to the model")
    finish_reason: str = Field(description="label, stop or length")


def describe(answer: Answer) -> dict[str, Any]:
    """The `detail` of one answer, ready for JSON."""
    detail = Detail(
        probabilities=dict(answer.probabilities) if answer.probabilities is not None else None,
        label_mass=answer.result.label_mass,
        usage=Usage(**usage(answer)),
        timings=Timings(**timings(answer)),
        model=answer.model_id,
        prompt_version=answer.version,
        finish_reason=answer.result.finish_reason.value,
    )
    return detail.model_dump(exclude_none=True)


def usage(*answers: Answer) -> dict[str, int]:
    """Tokens of all `answers`; `reused_tokens` are those of the prompts that did not have to be computed."""
    results = [answer.result for answer in answers]
    prompt, completion = sum(r.prompt_tokens for r in results), sum(len(r.ids) for r in results)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "reused_tokens": sum(r.reused_tokens for r in results),
    }


def timings(*answers: Answer) -> dict[str, float]:
    """Milliseconds in the queue, until the first token, and from there to the last, over all `answers`."""
    results = [answer.result for answer in answers]
    return {
        "queue_ms": _ms(sum(r.queue_s for r in results)),
        "prefill_ms": _ms(sum(r.prefill_s for r in results)),
        "decode_ms": _ms(sum(r.decode_s for r in results)),
    }


def probability(answer: Answer) -> float | None:
    """How sure a label is, from 0 to 1; None for free text and where the answer is `unknown`."""
    found = (answer.probabilities or {}).get(answer.label or "")
    return None if found is None else round(found, 4)


def first_probability(answer: Answer) -> float | None:
    """How likely a label task's first label is, whichever was the answer; None for free text."""
    return round(next(iter(answer.probabilities.values())), 4) if answer.probabilities else None


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)
