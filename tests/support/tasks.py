"""Prompt folders for services on tiny checkpoints."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]

# $-places are filled by `write_prompts`.
SENTIMENT = """\
---
description: 判断情感
inputs: {text: {max_tokens: 40}}
clean: true
output:
  kind: label
  labels: [{name: 正面, emoji: 😄}, {name: 负面, emoji: 😢}]
decoding: {strategy: greedy, max_new_tokens: 8}
---
判断情感。
输入：$text
情感：
"""
CHAT = """\
---
description: 回应
inputs:
  text: {max_tokens: 40}
  sentiment: {max_tokens: 16}
output: {kind: text}
decoding: {strategy: sample, temperature: 0.7, top_p: 0.9, max_new_tokens: 12}
---
system: 情绪：$sentiment
user: $text
"""
ABSTAIN = "  unknown: {name: 说不准, below: 0.99999}\n"


def write_prompts(root: Path, *, sentiment: str | None = SENTIMENT, chat: str | None = CHAT, **others: str) -> Path:
    """Write one folder for each task; None leaves it out. Returns `root`."""
    for name, text in {"sentiment": sentiment, "chat": chat, **others}.items():
        if text is not None:
            (root / name).mkdir(parents=True)
            (root / name / "prompt.md").write_text(text, encoding="utf-8")
    return root


def abstaining(prompt: str = SENTIMENT) -> str:
    """The prompt with an abstain label that is nearly always the answer."""
    return prompt.replace("decoding:", ABSTAIN + "decoding:")


def greedy_prompts(home: Path) -> Path:
    """The project's prompts in a new folder of `home`, but that a chat's reply to a text is always the same."""
    folder = Path(shutil.copytree(PROJECT / "prompts", home / "greedy"))
    file = folder / "chat" / "prompt.md"
    greedy = r"decoding: {strategy: greedy, max_new_tokens: \1}"
    text, changed = re.subn(r"(?m)^decoding: .*max_new_tokens: (\d+).*$", greedy, file.read_text("utf-8"))
    assert changed == 1, file
    file.write_text(text, encoding="utf-8")
    return folder
