"""/chat is made of two tasks: the sentiment of a text, and a reply that knows it."""

from __future__ import annotations

from pathlib import Path

from qwen_allinone.errors import TaskFileError
from qwen_allinone.tasks.registry import Registry
from qwen_allinone.tasks.task import CHAT, SENTIMENT, Task


def chat_tasks(registry: Registry) -> tuple[Task, Task]:
    """Both; raises TaskFileError if one of them is missing or cannot play its part."""
    for name in (SENTIMENT, CHAT):
        if name not in registry:
            file = Path(name) / "prompt.md"
            raise TaskFileError(file, "(folder)", "is missing, and /chat needs it", f"add the task {name}")
    sentiment, chat = registry.get(SENTIMENT), registry.get(CHAT)
    for task, kind, allowed in ((sentiment, "label", {"text"}), (chat, "text", {"text", "sentiment"})):
        file = Path(task.name) / "prompt.md"
        if task.spec.output.kind != kind:
            raise TaskFileError(file, "output.kind", "does not suit /chat", f"write `kind: {kind}`")
        if "text" not in task.spec.inputs or set(task.spec.inputs) - allowed:
            raise TaskFileError(file, "inputs", "do not suit /chat", f"use only {', '.join(sorted(allowed))}")
    return sentiment, chat
