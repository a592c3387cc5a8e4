"""A task is data: a folder with prompt.md (front matter and messages) and cases.yaml (gold cases)."""

from qwen_allinone.tasks.items import items_of
from qwen_allinone.tasks.loader import load_cases, load_task
from qwen_allinone.tasks.registry import Registry
from qwen_allinone.tasks.render import Chat, Completion, Rendered, clean, render
from qwen_allinone.tasks.routes import routes_of
from qwen_allinone.tasks.task import ROUTE, Case, Decoding, Input, Kind, Label, Output, Task

__all__ = [
    "ROUTE",
    "Case",
    "Chat",
    "Completion",
    "Decoding",
    "Input",
    "Kind",
    "Label",
    "Output",
    "Registry",
    "Rendered",
    "Task",
    "clean",
    "items_of",
    "load_cases",
    "load_task",
    "render",
    "routes_of",
]
