"""Adapters: low-rank updates of the linear layers (Hu et al. 2021, LoRA), for some of a step's rows, of one or several
adapters. The weights stay as they are and are shared; an adapter is FP32, whatever they are kept as.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from qwen_allinone.errors import TaskFileError
from qwen_allinone.model.attention import Chunk, interleaved
from qwen_allinone.model.config import ModelConfig
from qwen_allinone.tasks.adapter_files import ADAPTER_CONFIG, AdapterFiles, digest_of
from qwen_allinone.wording import said

Site = Literal["qkv", "out", "gate_up", "down"]
# The linears of a layer and the projections that they compute side by side.
_SITES: Mapping[Site, tuple[str, ...]] = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "out": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}


@dataclass(frozen=True)
class LowRank:
    """What is added to a linear's result: x `down` `up`, with down [in, rank] and up [rank, out]."""

    down: Tensor
    up: Tensor


@dataclass(frozen=True)
class Adapter:
    """Of each layer, by its number and linear, what is added; `rank` is the largest of a projection."""

    updates: Mapping[tuple[int, Site], LowRank]
    rank: int


class Rows:
    """Which rows of a step are whose: consecutive ones of the same adapter together."""

    def __init__(self, chunks: Sequence[Chunk], adapters: Mapping[str, Adapter]) -> None:
        self._groups: list[tuple[slice, Adapter]] = []
        start, last = 0, None
        for chunk in chunks:
            end = start + len(chunk.tokens)
            if chunk.adapter is not None and chunk.adapter == last:
                self._groups[-1] = (slice(self._groups[-1][0].start, end), adapters[chunk.adapter])
            elif chunk.adapter is not None:
                self._groups.append((slice(start, end), adapters[chunk.adapter]))
            start, last = end, chunk.adapter

    def add(self, layer: int, site: Site, x: Tensor, y: Tensor) -> Tensor:
        """`y`, what a linear made of `x`, with what the adapters of its rows add, in place."""
        for rows, adapter in self._groups:
            update = adapter.updates.get((layer, site))
            if update is not None:
                y[rows].addmm_(x[rows] @ update.down, update.up)
        return y


def load_adapter(files: AdapterFiles, config: ModelConfig, fingerprint: str, names: Sequence[str]) -> Adapter:
    """Read an adapter for the checkpoint with that `config` and `fingerprint`, which is called one of `names`.

    Raises:
        TaskFileError: it was made for another checkpoint, its shapes do not go with this one, it holds numbers that
            are none, or the files have changed since the task was loaded.
    """
    _check_base(files, fingerprint, names)
    _check_shapes(files, config)
    tensors = _read(files)
    updates = {}
    for layer in sorted({layer for layer, _ in files.tensors}):
        for site, modules in _SITES.items():
            if update := _fused(files, tensors, layer, modules, config):
                updates[layer, site] = update
    return Adapter(updates, files.config.r)


def _check_base(files: AdapterFiles, fingerprint: str, names: Sequence[str]) -> None:
    named = files.config.base_model_name_or_path
    if files.base is not None:
        if files.base != fingerprint:
            problem = said("tuned_elsewhere", base=files.base, fingerprint=fingerprint)
            raise TaskFileError(files.weights, "(metadata)", problem, said("tune_on_this_one"))
    elif named and _last(named) not in map(_last, names):
        problem = said("trained_elsewhere", named=named, names=names[0])
        fix = said("remove_or_correct_base")
        raise TaskFileError(files.folder / ADAPTER_CONFIG, "base_model_name_or_path", problem, fix)


def _last(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2].lower()


def _check_shapes(files: AdapterFiles, config: ModelConfig) -> None:
    sizes, rank = _sizes(config), files.config.r
    for (layer, module), sides in files.tensors.items():
        outer, width = sizes[module]
        for side, wanted in (("A", (rank, width)), ("B", (outer, rank))):
            name, shape = sides[side]
            if layer >= config.num_hidden_layers:
                problem = said("layer_too_high", layer=layer, num_hidden_layers=config.num_hidden_layers)
                raise TaskFileError(files.weights, name, problem, said("take_adapter_this_model"))
            if shape != wanted:
                problem = said("adapter_shape", shape=str(list(shape)), rank=rank, wanted=str(list(wanted)))
                raise TaskFileError(files.weights, name, problem, said("take_adapter_this_model_again"))


def _read(files: AdapterFiles) -> dict[str, Tensor]:
    try:
        data, config = files.weights.read_bytes(), (files.folder / ADAPTER_CONFIG).read_bytes()
        tensors = safetensors.torch.load(data)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise TaskFileError(
            files.weights, "(file)", said("cannot_be_read_of_error", error=error), said("copy_again")
        ) from None
    if digest_of(config, data) != files.digest:
        raise TaskFileError(files.weights, "(file)", said("has_changed_since_start"), said("start_or_reload_service"))
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise TaskFileError(
                files.weights, name, said("holds_kind", dtype=tensor.dtype), said("save_adapter_as_floats")
            )
        if not bool(torch.isfinite(tensor.float()).all()):
            raise TaskFileError(files.weights, name, said("holds_numbers_that_are"), said("train_adapter_anew"))
    return {name: tensor.float() for name, tensor in tensors.items()}


def _sizes(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """What each projection gives and takes: (out, in)."""
    hidden, inner, head = config.hidden_size, config.intermediate_size, config.head_dim
    query, key = config.num_attention_heads * head, config.num_key_value_heads * head
    return {
        "self_attn.q_proj": (query, hidden), "self_attn.k_proj": (key, hidden), "self_attn.v_proj": (key, hidden),
        "self_attn.o_proj": (hidden, query), "mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }  # fmt: skip


def _fused(
    files: AdapterFiles, tensors: Mapping[str, Tensor], layer: int, modules: Sequence[str], config: ModelConfig
) -> LowRank | None:
    """The updates of a linear's projections as one: their A side by side, their B each in its own columns."""
    sizes, at, parts = _sizes(config), 0, list[tuple[int, Tensor, Tensor]]()
    for module in modules:
        if sides := files.tensors.get((layer, module)):
            down, up = (tensors[sides[side][0]] for side in "AB")
            if module in ("self_attn.q_proj", "self_attn.k_proj"):
                up = interleaved(up, config.head_dim)
            parts.append((at, down, up))
        at += sizes[module][0]
    if not parts:
        return None
    rank = files.config.r
    ups = torch.zeros(len(parts) * rank, at)
    for number, (begin, _, up) in enumerate(parts):
        ups[number * rank : (number + 1) * rank, begin : begin + up.shape[0]] = up.T * files.config.scale
    return LowRank(torch.cat([down for _, down, _ in parts]).T.contiguous(), ups)
