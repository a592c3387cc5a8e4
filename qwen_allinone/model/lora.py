"""Adapters: low-rank updates of the linear layers (Hu et al. 2021, LoRA), for some of a step's rows, of one or several
adapters. The weights stay as they are and are shared; an adapter is FP32, whatever they are kept as.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

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
    """What is added to some outputs of a linear, those from `begin` on: x `down`^T `up`^T, with down [rank, in] and
    up [outputs, rank]."""

    begin: int
    down: Tensor
    up: Tensor


@dataclass(frozen=True)
class Update:
    """What is added to a linear with `width` outputs, by the projections that it computes side by side."""

    width: int
    parts: tuple[LowRank, ...]

    def fused(self) -> tuple[Tensor, Tensor]:
        """All parts as one, [in, ranks] and [ranks, width]: their A side by side, their B each in its own columns."""
        ups, at = torch.zeros(sum(part.down.shape[0] for part in self.parts), self.width), 0
        for part in self.parts:
            rank = part.down.shape[0]
            ups[at : at + rank, part.begin : part.begin + part.up.shape[0]] = part.up.T
            at += rank
        return torch.cat([part.down for part in self.parts]).T.contiguous(), ups


@dataclass(frozen=True)
class Adapter:
    """Of each layer, by its number and linear, what is added; `rank` is the largest of a projection."""

    updates: Mapping[tuple[int, Site], Update]
    rank: int


Fused = Mapping[tuple[int, Site], tuple[Tensor, Tensor]]


def fused(adapter: Adapter) -> Fused:
    """The adapter as `Rows` takes it."""
    return {place: update.fused() for place, update in adapter.updates.items()}


class Rows:
    """Which rows of a step are whose, for torch's operators: consecutive ones of the same adapter together."""

    def __init__(self, chunks: Sequence[Chunk], adapters: Mapping[str, Fused]) -> None:
        self._groups = [(slice(span.first, span.end), adapters[span.adapter]) for span in spans(chunks)]

    def add(self, layer: int, site: Site, x: Tensor, y: Tensor) -> Tensor:
        """`y`, what a linear made of `x`, with what the adapters of its rows add, in place."""
        for rows, adapter in self._groups:
            update = adapter.get((layer, site))
            if update is not None:
                down, up = update
                y[rows].addmm_(x[rows] @ down, up)
        return y


class Span(NamedTuple):
    """Rows `first` to before `end` of a step, which are computed with `adapter`."""

    first: int
    end: int
    adapter: str


def spans(chunks: Sequence[Chunk]) -> list[Span]:
    """The rows of `chunks` that have an adapter, consecutive ones of the same together."""
    found: list[Span] = []
    start = 0
    for chunk in chunks:
        end = start + len(chunk.tokens)
        if chunk.adapter is not None:
            follows = found and (found[-1].end, found[-1].adapter) == (start, chunk.adapter)
            found.append(Span(found.pop().first if follows else start, end, chunk.adapter))
        start = end
    return found


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
            if update := _update(files, tensors, layer, modules, config):
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
    sizes, rank = projection_sizes(config), files.config.r
    for (layer, module), sides in files.tensors.items():
        outer, width = sizes[module]
        for side, wanted in (("A", (rank, width)), ("B", (outer, rank))):
            name, shape = sides[side]
            if layer >= config.num_hidden_layers:
                problem = said("layer_too_high", layer=layer, num_hidden_layers=config.num_hidden_layers)
                raise TaskFileError(files.weights, name, problem, said("take_fitting_adapter"))
            if shape != wanted:
                problem = said("adapter_shape", shape=str(list(shape)), rank=rank, wanted=str(list(wanted)))
                raise TaskFileError(files.weights, name, problem, said("take_adapter_and_config"))


def _read(files: AdapterFiles) -> dict[str, Tensor]:
    try:
        data, config = files.weights.read_bytes(), (files.folder / ADAPTER_CONFIG).read_bytes()
        tensors = safetensors.torch.load(data)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise TaskFileError(files.weights, "(file)", said("is_unreadable", error=error), said("copy_again")) from None
    if digest_of(config, data) != files.digest:
        raise TaskFileError(files.weights, "(file)", said("changed_since_start"), said("start_or_reload"))
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise TaskFileError(
                files.weights, name, said("holds_kind", dtype=tensor.dtype), said("save_adapter_as_floats")
            )
        if not bool(torch.isfinite(tensor.float()).all()):
            raise TaskFileError(files.weights, name, said("not_finite"), said("train_adapter_anew"))
    return {name: tensor.float() for name, tensor in tensors.items()}


def projection_sizes(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """What each projection gives and takes: (out, in)."""
    hidden, inner, head = config.hidden_size, config.intermediate_size, config.head_dim
    query, key = config.num_attention_heads * head, config.num_key_value_heads * head
    return {
        "self_attn.q_proj": (query, hidden), "self_attn.k_proj": (key, hidden), "self_attn.v_proj": (key, hidden),
        "self_attn.o_proj": (hidden, query), "mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }  # fmt: skip


def _update(
    files: AdapterFiles, tensors: Mapping[str, Tensor], layer: int, modules: Sequence[str], config: ModelConfig
) -> Update | None:
    """What is added to the linear that computes `modules` side by side."""
    sizes, at, parts = projection_sizes(config), 0, list[LowRank]()
    for module in modules:
        if sides := files.tensors.get((layer, module)):
            down, up = (tensors[sides[side][0]] for side in "AB")
            if module in ("self_attn.q_proj", "self_attn.k_proj"):
                up = interleaved(up, config.head_dim)
            parts.append(LowRank(at, down.contiguous(), up * files.config.scale))
        at += sizes[module][0]
    return Update(at, tuple(parts)) if parts else None
