"""One call for all layers of a step."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import c_int32, c_void_p
from typing import Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from qwen_allinone.model.config import ModelConfig
from qwen_allinone.model.kv import KVCache
from qwen_allinone.model.native.library import PANEL, CBatch, CCache, CLayer, CModel, Library
from qwen_allinone.model.native.linears import NativeLinear

_LANES = 16  # heads are read in vectors of at most so many numbers


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
        self,
        library: Library,
        config: ModelConfig,
        layers: Sequence[DecoderLayer],
        rotations: Tensor,
        value_dtype: torch.dtype,
    ) -> None:
        """`rotations`: those of `rotation_table`."""
        self._library, self._config, self._value_dtype = library, config, value_dtype
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
            value_dtype == torch.float16,
            c_layers,
            turns.data_ptr(),
        )
        self._caches: WeakKeyDictionary[KVCache, CCache] = WeakKeyDictionary()

    def __call__(self, x: Tensor, slots: Sequence[int], positions: Sequence[int], cache: KVCache) -> Tensor:
        """x [rows, hidden] float32: embeddings of the tokens at `positions` of `slots`, which see their slot's tokens up
        to themselves -> what the last layer puts out, in place. No position of a slot occurs twice.

        Raises:
            ValueError: a slot or position lies outside of the cache.
        """
        rows = len(slots)
        if not 0 < rows == len(positions) == x.shape[0]:
            raise ValueError(f"{len(slots)} slots and {len(positions)} positions for {x.shape[0]} rows")
        if min(slots) < 0 or max(slots) >= cache.slots or min(positions) < 0:
            raise ValueError("a slot or position that no cache has")
        if max(positions) >= min(cache.length, self._positions):
            raise ValueError("a position behind the end of the context")
        numbers = c_int32 * rows
        c_cache = self._caches.get(cache) or self._caches.setdefault(cache, self._c_cache(cache))
        batch = CBatch(rows, 0, numbers(*slots), numbers(*positions), x.data_ptr())
        self._library.step(self._model, c_cache, batch)
        return x

    def _c_cache(self, cache: KVCache) -> CCache:
        config = self._config
        shape = (config.num_hidden_layers, config.num_key_value_heads, config.head_dim, self._value_dtype)
        if shape != (len(cache.key_rows), cache.kv_heads, cache.head_dim, cache.value_rows[0].dtype):
            raise ValueError("the cache of another model")
        pointers = c_void_p * len(cache.key_rows)
        keys = pointers(*(rows.data_ptr() for rows in cache.key_rows))
        values = pointers(*(rows.data_ptr() for rows in cache.value_rows))
        return CCache(
            cache.blocks, 0, ctypes.cast(keys, ctypes.POINTER(c_void_p)), ctypes.cast(values, ctypes.POINTER(c_void_p))
        )


def computes(config: ModelConfig, layers: Sequence[DecoderLayer]) -> bool:
    """Whether a step can be computed so: all linears are native, and heads and panels come out even."""
    linears = (linear for layer in layers for linear in (layer.qkv, layer.out, layer.gate_up, layer.down))
    even = config.head_dim % (4 * _LANES) == 0 and config.intermediate_size % PANEL == 0
    return even and all(isinstance(linear, NativeLinear) for linear in linears)


def _c_layer(layer: DecoderLayer) -> CLayer:
    linears = [
        linear.c for linear in (layer.qkv, layer.out, layer.gate_up, layer.down) if isinstance(linear, NativeLinear)
    ]
    norms = layer.head_norms
    return CLayer(
        *linears,
        layer.attention_norm.data_ptr(),
        layer.mlp_norm.data_ptr(),
        None if norms is None else norms.data_ptr(),
    )
