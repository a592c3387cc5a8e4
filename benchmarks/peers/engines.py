"""Which engines there are, in which modes, and with which of ours each is compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Choice:
    """One engine in one mode, written `engine:mode`."""

    engine: str
    mode: str

    def __str__(self) -> str:
        return f"{self.engine}:{self.mode}"


@dataclass(frozen=True)
class Kind:
    """An engine: its program in `runners`, its environment (None: this one), and for each mode what the model is
    converted to first (None: taken as it is)."""

    runner: str
    environment: str | None
    modes: Mapping[str, str | None]


KINDS = {
    "ours": Kind("ours", None, {"fp32": None, "fp16": None, "int8": None, "torch-fp32": None, "torch-int8": None}),
    "transformers": Kind("hf", "hf", {"fp32": None}),
    "llama.cpp": Kind("llama", "llama", {"f32": "gguf-f32", "bf16": "gguf-bf16", "q8_0": "gguf-q8_0"}),
    "openvino": Kind(
        "ov",
        "ov",
        {
            "fp32": "openvino-fp32",
            "fp32-kv32": "openvino-fp32",
            "fp16": "openvino-fp16",
            "int8": "openvino-int8",
        },
    ),
}

ALL = [Choice(engine, mode) for engine, kind in KINDS.items() for mode in kind.modes]
# The default has each weight once: a second openvino:fp32 would take the memory past 24 GB.
_MORE = {"openvino:fp32-kv32", "ours:torch-fp32", "ours:torch-int8"}
DEFAULT = [choice for choice in ALL if str(choice) not in _MORE]

# Whose weights are stored in as many bits.
RIVALS = {
    "ours:torch-fp32": "ours:fp32",
    "ours:torch-int8": "ours:int8",
    "transformers:fp32": "ours:fp32",
    "llama.cpp:f32": "ours:fp32",
    "llama.cpp:bf16": "ours:fp16",
    "llama.cpp:q8_0": "ours:int8",
    "openvino:fp32": "ours:fp32",
    "openvino:fp32-kv32": "ours:fp32",
    "openvino:fp16": "ours:fp16",
    "openvino:int8": "ours:int8",
}


def parse_engines(text: str) -> list[Choice]:
    """`ours:fp32,openvino:fp32` -> choices, each once, in the order given; empty: DEFAULT. Raises ValueError."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    known = {str(choice): choice for choice in ALL}
    for name in names:
        if name not in known:
            raise ValueError(f"unknown engine {name!r}: use {', '.join(known)}")
    return [known[name] for name in dict.fromkeys(names)] or DEFAULT


def parse_batches(text: str, most: int) -> list[int]:
    """`1,4,8` -> sizes, each once, in the order given. Raises ValueError."""
    sizes = [part.strip() for part in text.split(",") if part.strip()]
    if not sizes or not all(size.isdecimal() and 1 <= int(size) <= most for size in sizes):
        raise ValueError(f"batch sizes {text!r}: use whole numbers from 1 to {most}, separated by commas")
    return list(dict.fromkeys(int(size) for size in sizes))
