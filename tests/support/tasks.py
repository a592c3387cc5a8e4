"""Prompt folders for services on tiny checkpoints."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
# For shutil.copytree: tests of replies that the task `care` must not come between.
WITHOUT_CARE = shutil.ignore_patterns("care")

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
KEYWORDS = """\
---
description: 提取关键词
inputs: {text: {max_tokens: 40}}
clean: true
output: {kind: list, max_items: 3}
decoding: {strategy: greedy, max_new_tokens: 12}
---
system: 提取关键词
user: $text
"""
ROUTE = """\
---
description: 挑选任务
inputs: {text: {max_tokens: 40}}
output:
  kind: label
  labels: [{name: 情感, task: sentiment}, {name: keywords}]
decoding: {strategy: greedy, max_new_tokens: 8}
---
文字：$text
任务：
"""
CARE = """\
---
description: 需要帮助吗
inputs: {text: {max_tokens: 40}}
output:
  kind: label
  labels: [{name: 负面}, {name: 中性}]
decoding: {strategy: greedy, max_new_tokens: 8}
---
话：$text
危险：
"""
VETTED, VETTED_EN = "请先别一个人待着。", "Please do not stay alone."
ABSTAIN = "  unknown: {name: 说不准, below: 0.99999}\n"


def make_greedy(folder: Path, max_new_tokens: int | None = None) -> None:
    """Have the task in `folder` give a text the same answer every time, of as many tokens as before or as said."""
    file = folder / "prompt.md"
    most = str(max_new_tokens or r"\1")
    greedy = f"decoding: {{strategy: greedy, max_new_tokens: {most}}}"
    text, changed = re.subn(r"(?m)^decoding: .*max_new_tokens: (\d+).*$", greedy, file.read_text("utf-8"))
    assert changed == 1, file
    file.write_text(text, encoding="utf-8")


def write_prompts(root: Path, *, sentiment: str | None = SENTIMENT, chat: str | None = CHAT, **others: str) -> Path:
    """Write one folder for each task; None leaves it out. Returns `root`."""
    for name, text in {"sentiment": sentiment, "chat": chat, **others}.items():
        if text is not None:
            (root / name).mkdir(parents=True)
            (root / name / "prompt.md").write_text(text, encoding="utf-8")
    return root


def write_care(root: Path, first: str = "负面", prompt: str = CARE) -> Path:
    """Add the task `care`, which fires at the label `first` (负面 or 中性). Returns `root`."""
    other = {"负面": "中性", "中性": "负面"}[first]
    prompt = prompt.replace("[{name: 负面}, {name: 中性}]", f"[{{name: {first}}}, {{name: {other}}}]")
    write_prompts(root, sentiment=None, chat=None, care=prompt)
    (root / "care" / "reply.md").write_text(VETTED + "\n", encoding="utf-8")
    (root / "care" / "reply.en.md").write_text(VETTED_EN + "\n", encoding="utf-8")
    return root


def unsure(below: float, prompt: str = CHAT) -> str:
    """The chat prompt, which hears 平静 in place of a sentiment under that probability."""
    return prompt.replace("{max_tokens: 16}", f"{{max_tokens: 16, unsure: {{name: 平静, below: {below}}}}}")


def abstaining(prompt: str = SENTIMENT) -> str:
    """The prompt with an abstain label that is nearly always the answer."""
    return prompt.replace("decoding:", ABSTAIN + "decoding:")


def greedy_prompts(home: Path) -> Path:
    """The project's prompts but `care` in a new folder of `home`, where a chat's reply to a text is always the same."""
    folder = Path(shutil.copytree(PROJECT / "prompts", home / "greedy", ignore=WITHOUT_CARE))
    make_greedy(folder / "chat")
    return folder
