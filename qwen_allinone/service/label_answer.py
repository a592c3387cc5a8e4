"""What the engine found for a label task becomes its answer.

The engine makes probabilities of the labels' logits (engine/label_trie.py); prior, temperature and `unknown` are the
task's, and so are the labels' names.
"""

from __future__ import annotations

from dataclasses import replace

from qwen_allinone.service import calibration
from qwen_allinone.service.answer_types import Answer
from qwen_allinone.tasks import Task


def with_label(answer: Answer, task: Task, prior: calibration.Probabilities | None, temperature: float) -> Answer:
    """`answer` with its label and the labels' probabilities; it has the engine's result, which chose one."""
    found, labels, unknown = answer.result, task.spec.output.labels, task.spec.output.unknown
    assert found.label is not None
    shares = calibration.calibrated(found.probabilities, prior, temperature)
    # Without a prior the order is the engine's, which goes by tokens where labels share some.
    best = labels[found.label if prior is None else shares.index(max(shares))]
    probabilities = dict(zip([label.name for label in labels], shares, strict=True))
    if unknown and max(shares) < unknown.below:
        return replace(answer, probabilities=probabilities, label=unknown.name)
    return replace(answer, probabilities=probabilities, label=best.name, emoji=best.emoji)
