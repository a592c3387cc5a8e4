"""/chat is made of two tasks: the sentiment of a text, and a reply that knows it. Memory needs one more."""

from __future__ import annotations

from pathlib import Path

from qwen_allinone.errors import TaskFileError
from qwen_allinone.tasks.registry import Registry
from qwen_allinone.tasks.task import CHAT, MEMORIES, REMEMBER, SENTIMENT, Task


def chat_tasks(registry: Registry) -> tuple[Task, Task]:
    """Both; raises TaskFileError if one of them is missing or cannot play its part."""
    for name in (SENTIMENT, CHAT):
        if name not in registry:
            file = Path(name) / "prompt.md"
            raise TaskFileError(file, "(folder)", "is missing, and /chat needs it", f"add the task {name}")
    sentiment, chat = registry.get(SENTIMENT), registry.get(CHAT)
    for task, kind, allowed in ((sentiment, "label", {"text"}), (chat, "text", {"text", "sentiment", MEMORIES})):
        file = Path(task.name) / "prompt.md"
        if task.spec.output.kind != kind:
            raise TaskFileError(file, "output.kind", "does not suit /chat", f"write `kind: {kind}`")
        if "text" not in task.spec.inputs or set(task.spec.inputs) - allowed:
            raise TaskFileError(file, "inputs", "do not suit /chat", f"use only {', '.join(sorted(allowed))}")
    return sentiment, chat


def check_memory_tasks(registry: Registry) -> None:
    """Raises TaskFileError if the tasks cannot play their parts in remembering."""
    if MEMORIES not in registry.get(CHAT).spec.inputs:
        fix = f"declare `{MEMORIES}: {{max_tokens: 200, heading: ...}}`, see docs/memory.md, or set QAIO_MEMORY=0"
        raise TaskFileError(Path(CHAT) / "prompt.md", f"inputs.{MEMORIES}", "is missing, and memory needs it", fix)
    file = Path(REMEMBER) / "prompt.md"
    if REMEMBER not in registry:
        raise TaskFileError(file, "(folder)", "is missing, and memory needs it", f"add the task {REMEMBER}")
    spec = registry.get(REMEMBER).spec
    if spec.output.kind != "list" or set(spec.inputs) != {"text"} or spec.decoding.strategy != "greedy":
        fix = "write `kind: list`, `strategy: greedy` and the one input `text`"
        raise TaskFileError(file, "output.kind", "does not suit memory", fix)
