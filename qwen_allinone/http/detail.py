"""The `detail` of an answer: probabilities, usage, timings, and what it was made with."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from qwen_allinone.allinone import AllInOne, Answer

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
    usage: Usage
    timings: Timings
    model: str = Field(description="Name @ what is in its files : how its weights are kept")
    prompt_version: str = Field(description="Changes with prompt.md and with its calibration")
    finish_reason: str = Field(description="label, stop or length")


def describe(service: AllInOne, answer: Answer) -> dict[str, Any]:
    """The `detail` of one answer, ready for JSON."""
    result = answer.result
    detail = Detail(
        probabilities=dict(answer.probabilities) if answer.probabilities is not None else None,
        usage=Usage(
            prompt_tokens=result.prompt_tokens,
            completion_tokens=len(result.ids),
            total_tokens=result.prompt_tokens + len(result.ids),
            reused_tokens=result.reused_tokens,
        ),
        timings=Timings(queue_ms=_ms(result.queue_s), prefill_ms=_ms(result.prefill_s), decode_ms=_ms(result.decode_s)),
        model=service.model_id,
        prompt_version=service.registry.get(answer.task).version,
        finish_reason=result.finish_reason.value,
    )
    return detail.model_dump(exclude_none=True)


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)
