"""What is told of an answer, to the log and the metrics."""

from __future__ import annotations

import pytest

from qwen_allinone.engine import Result
from qwen_allinone.engine.work import FinishReason
from qwen_allinone.http.observe import answer_record
from qwen_allinone.service import Answer


@pytest.mark.parametrize(
    ("reason", "count", "expected"),
    [
        (FinishReason.LENGTH, 11, 0.1),  # ten steps after the first token
        (FinishReason.STOP, 10, 0.1),  # nine, and one for the stop token
        (FinishReason.STOP, 1, 1.0),
        (FinishReason.LENGTH, 1, None),
        (FinishReason.STOP, 0, None),
    ],
)
def test_the_time_between_tokens_is_the_mean_over_the_steps_of_decoding(
    reason: FinishReason, count: int, expected: float | None
) -> None:
    result = Result(reason, tuple(range(count)), prompt_tokens=5, reused_tokens=0, decode_s=1.0)
    record = answer_record(Answer("chat", result))
    assert record.inter_token_s == (None if expected is None else pytest.approx(expected))


def test_a_label_has_no_time_between_tokens() -> None:
    result = Result(FinishReason.LABEL, (1, 2, 3), prompt_tokens=5, reused_tokens=0, label=0, decode_s=1.0)
    assert answer_record(Answer("sentiment", result)).inter_token_s is None


def test_what_was_drafted_is_told() -> None:
    result = Result(FinishReason.STOP, (1,), prompt_tokens=5, reused_tokens=0, drafted_tokens=8, accepted_tokens=5)
    record = answer_record(Answer("chat", result))
    assert (record.drafted_tokens, record.accepted_tokens) == (8, 5)
