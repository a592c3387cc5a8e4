"""A task is data: a folder with prompt.md (front matter and messages) and cases.yaml (gold cases)."""

from qwen_allinone.tasks.adapter_files import ADAPTER_CONFIG
from qwen_allinone.tasks.chat_tasks import chat_tasks, check_memory_tasks
from qwen_allinone.tasks.items import items_of
from qwen_allinone.tasks.loader import CALIBRATION, load_cases, load_task
from qwen_allinone.tasks.masking import Masking, MaskKind, RestoredPieces
from qwen_allinone.tasks.new_folder import PROMPT, read_changed, save_as
from qwen_allinone.tasks.registry import Registry
from qwen_allinone.tasks.render import Chat, Completion, Exchange, Rendered, clean, is_blank, render, render_turns
from qwen_allinone.tasks.role_slips import role_slip
from qwen_allinone.tasks.routes import routes_of
from qwen_allinone.tasks.task import (
    CARE,
    CHAT,
    MEMORIES,
    MOST_CHARS_PER_TOKEN,
    REMEMBER,
    ROUTE,
    SENTIMENT,
    Calibration,
    Case,
    Decoding,
    Input,
    Kind,
    Label,
    Output,
    Quality,
    Task,
    Unknown,
    Variable,
    Vetted,
    short_hash,
)
from qwen_allinone.tasks.variants import Variant, body_of, has_examples, variants
from qwen_allinone.tasks.versions import Entry, Versions

__all__ = [
    "ADAPTER_CONFIG",
    "CALIBRATION",
    "CARE",
    "CHAT",
    "MEMORIES",
    "REMEMBER",
    "MOST_CHARS_PER_TOKEN",
    "ROUTE",
    "SENTIMENT",
    "Calibration",
    "Case",
    "Chat",
    "Completion",
    "Decoding",
    "Entry",
    "Exchange",
    "Input",
    "Kind",
    "Label",
    "MaskKind",
    "Masking",
    "Output",
    "PROMPT",
    "Quality",
    "Registry",
    "Rendered",
    "RestoredPieces",
    "Task",
    "Unknown",
    "Variable",
    "Variant",
    "Versions",
    "Vetted",
    "body_of",
    "chat_tasks",
    "check_memory_tasks",
    "clean",
    "has_examples",
    "is_blank",
    "items_of",
    "load_cases",
    "load_task",
    "read_changed",
    "render",
    "render_turns",
    "role_slip",
    "routes_of",
    "save_as",
    "short_hash",
    "variants",
]
