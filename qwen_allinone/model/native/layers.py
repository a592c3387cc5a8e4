"""One call for all layers of a step."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import c_int32, c_void_p
from typing import Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from qwen_allinone.model.attention import Chunk
from qwen_allinone.model.config import ModelConfig
from qwen_allinone.model.kv import KVCache
from qwen_allinone.model.lora import Adapter, spans
from qwen_allinone.model.native.adapters import PackedAdapter
from qwen_allinone.model.native.library import PANEL, CBatch, CCache, CLayer, CLinear, CModel, CSpan, Library
from qwen_allinone.model.native.linears import NativeLinear

_LANES = 16  # heads are read in vectors of at most so many numbers
_SPAN = 8  # rows of an adapter that are one piece of work: several threads share a prompt's


class DecoderLayer(Protocol):
    """What a step needs of a layer; its linears may be of any kind."""

    @property
    def attention_norm(self) -> Tensor: ...
    @property
    def qkv(self) -> object: ...
    @property
    def head_norms(self) -> Tensor | None: ...
    @property
    def out(self) -> object: ...
    @property
    def mlp_norm(self) -> Tensor: ...
    @property
    def gate_up(self) -> object: ...
    @property
    def down(self) -> object: ...


class NativeLayers:
    """The layers of a model whose linears are all native. Not thread-safe, as the model is not."""

    def __init__(
        self, library: Library, config: ModelConfig, layers: Sequence[DecoderLayer], rotations: Tensor
    ) -> None:
        """`rotations`: those of `rotation_table`."""
        self._library, self._config = library, config
        self._positions = rotations.shape[0]
        turns = torch.view_as_real(rotations).contiguous()
        c_layers = (CLayer * len(layers))(*map(_c_layer, layers))
        self._kept = (turns, c_layers, layers)  # what C only has the addresses of
        self._model = CModel(
            config.num_hidden_layers,
            config.hidden_size,
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
            config.intermediate_size,
            config.rms_norm_eps,
            0,
            c_layers,
            turns.data_ptr(),
        )
        self._caches: WeakKeyDictionary[KVCache, CCache] = WeakKeyDictionary()
        self._adapters: dict[str, PackedAdapter] = {}

    def adapt(self, name: str, adapter: Adapter) -> None:
        """Compute chunks that name it with `adapter`. Raises ValueError: its shapes are those of another model."""
        self._adapters[name] = PackedAdapter(adapter, [_linears(layer) for layer in self._kept[2]])

    def __call__(self, x: Tensor, chunks: Sequence[Chunk], cache: KVCache) -> Tensor:
        """x [tokens, hidden] float32: embeddings of the tokens of `chunks` -> what the last layer puts out, in place.

        Raises:
            ValueError: a chunk lies outside of the cache, or names an adapter that is not there; or there are not as
                many rows as tokens.
        """
        rows = _Rows(chunks)
        count = len(rows.slots)
        if not 0 < count == x.shape[0]:
            raise ValueError(f"{count} tokens for {x.shape[0]} rows")
        inside = min(rows.slots) >= 0 and max(rows.slots) < cache.slots
        if not inside or min(rows.indexes) < 0 or max(rows.ends) > cache.length:
            raise ValueError("a chunk lies outside of the cache")
        if min(rows.positions) < 0 or max(rows.positions) >= self._positions:
            raise ValueError("a position lies outside of the context")
        c_cache = self._caches.get(cache) or self._caches.setdefault(cache, self._c_cache(cache))
        numbers = c_int32 * count
        arrays = [numbers(*array) for array in (rows.slots, rows.indexes, rows.ends, rows.positions)]
        ranks, adapted = self._spans(chunks)
        span = (CSpan * len(adapted))(*adapted)
        visible = (c_void_p * count)(*rows.visible)
        batch = CBatch(count, ranks, len(span), 0, *arrays, visible, span, x.data_ptr())
        self._library.step(self._model, c_cache, batch)
        return x

    def _spans(self, chunks: Sequence[Chunk]) -> tuple[int, list[CSpan]]:
        """The most ranks of a linear of their adapters, and which rows are whose."""
        ranks, found = 0, list[CSpan]()
        for first, end, name in spans(chunks):
            adapter = self._adapters.get(name)
            if adapter is None:
                raise ValueError(f"there is no adapter {name!r}")
            ranks = max(ranks, adapter.ranks)
            found += (CSpan(row, min(row + _SPAN, end), adapter.c) for row in range(first, end, _SPAN))
        return ranks, found

    def _c_cache(self, cache: KVCache) -> CCache:
        config = self._config
        shape = (config.num_hidden_layers, config.num_key_value_heads, config.head_dim)
        if shape != (len(cache.key_rows), cache.kv_heads, cache.head_dim):
            raise ValueError("the cache of another model")
        pointers = c_void_p * len(cache.key_rows)
        keys = pointers(*(rows.data_ptr() for rows in cache.key_rows))
        values = pointers(*(rows.data_ptr() for rows in cache.value_rows))
        half = [rows[0].dtype == torch.float16 for rows in (cache.key_rows, cache.value_rows)]
        return CCache(cache.blocks, *half, 0, keys, values)


class _Rows:
    """What C is told of each token of some chunks."""

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        self.slots: list[int] = []
        self.indexes: list[int] = []  # where it is kept
        self.ends: list[int] = []  # how many tokens of its slot it may see
        self.positions: list[int] = []
        self.visible: list[int | None] = []  # the address of its row of a tree's mask
        for chunk in chunks:
            count = len(chunk.tokens)
            self.slots += [chunk.slot] * count
            self.indexes += range(chunk.start, chunk.end)
            self.positions += chunk.positions
            if chunk.tree:
                self.ends += [chunk.end] * count
                self.visible += _mask_rows(chunk.tree.visible, (count, chunk.end))
            else:
                self.ends += range(chunk.start + 1, chunk.end + 1)
                self.visible += [None] * count


def _mask_rows(mask: Tensor, shape: tuple[int, int]) -> Sequence[int]:
    if mask.shape != shape or mask.dtype != torch.bool or not mask.is_contiguous():
        raise ValueError(f"a mask {list(mask.shape)} for {shape[0]} tokens of {shape[1]}")
    return range(mask.data_ptr(), mask.data_ptr() + shape[0] * shape[1], shape[1])


def computes(config: ModelConfig, layers: Sequence[DecoderLayer]) -> bool:
    """Whether a step can be computed so: all linears are native, and heads and panels come out even."""
    linears = (linear for layer in layers for linear in (layer.qkv, layer.out, layer.gate_up, layer.down))
    even = config.head_dim % (4 * _LANES) == 0 and config.intermediate_size % PANEL == 0
    return even and all(isinstance(linear, NativeLinear) for linear in linears)


def _linears(layer: DecoderLayer) -> list[CLinear]:
    """In the order of `SITES`."""
    linears = (layer.qkv, layer.out, layer.gate_up, layer.down)
    return [linear.c for linear in linears if isinstance(linear, NativeLinear)]


def _c_layer(layer: DecoderLayer) -> CLayer:
    linears = _linears(layer)
    norms = layer.head_norms
    return CLayer(
        *linears,
        layer.attention_norm.data_ptr(),
        layer.mlp_norm.data_ptr(),
        None if norms is None else norms.data_ptr(),
    )
