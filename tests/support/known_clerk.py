"""A clerk for the feedback desk without a model: it goes by words in the text, so every answer is known beforehand."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

from qwen_allinone.desk import Clerk
from qwen_allinone.desk.asking import Gold, Refused, Said, TaskInfo
from qwen_allinone.errors import DataFileError

LABELS = {
    "sentiment": ("正面", "负面"), "intent": ("咨询", "投诉", "建议", "闲聊"), "keywords": (), "suggest": (),
    "care": ("需要帮助", "没有"),
}  # fmt: skip


def say(task: str, inputs: Mapping[str, str]) -> Said:
    text = inputs["text"]
    if "拒绝" in text:
        raise Refused("太长了")
    bad = "坏" in text
    return {
        "sentiment": Said("负面" if bad else "正面", 0.98 if bad else 0.6),
        "intent": Said("投诉" if bad else "闲聊", 0.9),
        "care": Said("需要帮助" if "不想活" in text else "没有", 0.9),
        "keywords": Said(items=tuple(text[:2].split())),
        "suggest": Said(text="很抱歉"),
    }[task]


def known(ask: object = say) -> Clerk:
    return Clerk("a-model", {name: TaskInfo(labels, Gold(10, 0.9)) for name, labels in LABELS.items()}, ask)  # type: ignore[arg-type]


def hire(notes: Path, pause_s: float = 0.0, identity: str = "one") -> object:
    """For a cluster: leaves its process id in `notes` when it begins, so that a test can kill it."""
    from qwen_allinone.desk.cluster import Hired

    (notes / str(os.getpid())).touch()

    def ask(task: str, inputs: Mapping[str, str]) -> Said:
        time.sleep(pause_s)
        if "没有模型" in inputs["text"]:
            raise DataFileError("the model is gone")
        if "杀死" in inputs["text"]:
            os._exit(1)
        return say(task, inputs)

    return Hired(known(ask), 4, identity)
