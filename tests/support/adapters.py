"""Adapters with random weights in PEFT's format, and checkpoints that have one merged into their weights."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.support.checkpoints import write_json

ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def write_adapter(
    folder: Path,
    checkpoint: Path,
    *,
    rank: int = 3,
    targets: Sequence[str] = ALL,
    layers: Sequence[int] | None = None,
    seed: int = 0,
    metadata: dict[str, str] | None = None,
    **config: Any,
) -> Path:
    """An adapter for `checkpoint`, strong enough to change every answer; `config` overrides keys. Returns `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, weight in load_file(checkpoint / "model.safetensors").items():
        parts = name.split(".")
        if parts[-1] == "weight" and parts[-2] in targets and (layers is None or int(parts[2]) in layers):
            outer, inner = weight.shape
            stem = f"base_model.model.{name.removesuffix('.weight')}"
            tensors[f"{stem}.lora_A.weight"] = torch.randn(rank, inner, generator=generator) * inner**-0.5
            tensors[f"{stem}.lora_B.weight"] = torch.randn(outer, rank, generator=generator) * 0.3
    written = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": checkpoint.name, "r": rank,
        "lora_alpha": 2 * rank, "lora_dropout": 0.0, "bias": "none", "target_modules": list(targets),
        "modules_to_save": None, "rank_pattern": {}, "init_lora_weights": True, "inference_mode": True,
    }  # fmt: skip
    write_json(folder / "adapter_config.json", written | config)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"} | (metadata or {}))
    return folder


def write_merged(folder: Path, checkpoint: Path, adapter: Path) -> Path:
    """The checkpoint with the adapter in its weights. Returns `folder`."""
    folder.mkdir(parents=True)
    for file in checkpoint.iterdir():
        if file.suffix == ".json":
            (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((adapter / "adapter_config.json").read_text("utf-8"))
    rank = config["r"]
    scale = config["lora_alpha"] / (math.sqrt(rank) if config.get("use_rslora") else rank)
    weights, changes = load_file(checkpoint / "model.safetensors"), load_file(adapter / "adapter_model.safetensors")

    def merged(name: str, weight: Tensor) -> Tensor:
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{stem}.lora_A.weight" not in changes:
            return weight
        return weight.float() + scale * changes[f"{stem}.lora_B.weight"] @ changes[f"{stem}.lora_A.weight"]

    save_file({name: merged(name, weight) for name, weight in weights.items()}, folder / "model.safetensors")
    return folder
