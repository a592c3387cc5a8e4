"""A task is data: a folder with prompt.md (front matter and messages) and cases.yaml (gold cases)."""

from qwen_allinone.tasks.loader import CALIBRATION, load_cases, load_task
from qwen_allinone.tasks.registry import Registry
from qwen_allinone.tasks.render import Chat, Completion, Exchange, Rendered, clean, render, render_turns
from qwen_allinone.tasks.task import Calibration, Case, Decoding, Input, Label, Output, Quality, Task

__all__ = [
    "CALIBRATION",
    "Calibration",
    "Case",
    "Chat",
    "Completion",
    "Decoding",
    "Exchange",
    "Input",
    "Label",
    "Output",
    "Quality",
    "Registry",
    "Rendered",
    "Task",
    "clean",
    "load_cases",
    "load_task",
    "render",
    "render_turns",
]
