"""What an answer has cost, as clients are told."""

from __future__ import annotations

from qwen_allinone.allinone import Answer


def usage(*answers: Answer) -> dict[str, int]:
    """Tokens of all `answers`; `cached_tokens` are those of the prompts that did not have to be computed."""
    results = [answer.result for answer in answers]
    prompt, completion = sum(r.prompt_tokens for r in results), sum(len(r.ids) for r in results)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "cached_tokens": sum(r.reused_tokens for r in results),
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


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)
