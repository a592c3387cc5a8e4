"""/chat is made of two tasks: the sentiment of a text, and a reply that knows it. Memory needs one more."""

from __future__ import annotations

from pathlib import Path

from qwen_allinone.errors import TaskFileError
from qwen_allinone.tasks.registry import Registry
from qwen_allinone.tasks.task import CHAT, MEMORIES, REMEMBER, SENTIMENT, Task
from qwen_allinone.wording import said


def chat_tasks(registry: Registry) -> tuple[Task, Task]:
    """Both; raises TaskFileError if one of them is missing or cannot play its part."""
    for name in (SENTIMENT, CHAT):
        if name not in registry:
            file = Path(name) / "prompt.md"
            raise TaskFileError(file, "(folder)", said("chat_needs_it"), said("add_task_named", name=name))
    sentiment, chat = registry.get(SENTIMENT), registry.get(CHAT)
    for task, kind, allowed in ((sentiment, "label", {"text"}), (chat, "text", {"text", "sentiment", MEMORIES})):
        file = Path(task.name) / "prompt.md"
        if task.spec.output.kind != kind:
            raise TaskFileError(file, "output.kind", said("does_not_suit_chat"), said("write_kind", kind=kind))
        if "text" not in task.spec.inputs or set(task.spec.inputs) - allowed:
            raise TaskFileError(
                file, "inputs", said("do_not_suit_chat"), said("use_only_these", allowed=sorted(allowed))
            )
    return sentiment, chat


def check_memory_tasks(registry: Registry) -> None:
    """Raises TaskFileError if the tasks cannot play their parts in remembering."""
    if MEMORIES not in registry.get(CHAT).spec.inputs:
        fix = said("declare_memories", memories=MEMORIES)
        raise TaskFileError(Path(CHAT) / "prompt.md", f"inputs.{MEMORIES}", said("memory_needs_it"), fix)
    file = Path(REMEMBER) / "prompt.md"
    if REMEMBER not in registry:
        raise TaskFileError(file, "(folder)", said("memory_needs_it"), said("add_task", remember=REMEMBER))
    spec = registry.get(REMEMBER).spec
    if spec.output.kind != "list" or set(spec.inputs) != {"text"} or spec.decoding.strategy != "greedy":
        fix = said("write_remember")
        raise TaskFileError(file, "output.kind", said("does_not_suit_memory"), fix)
