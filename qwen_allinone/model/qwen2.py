"""The forward pass of Qwen2 and Qwen3 over a flat batch (technical reports, arXiv:2407.10671 and 2505.09388).

A step is one list of tokens from all running sequences: linears see one tall matrix, attention runs per
slot on that slot's own keys and values. Query, key and value projections are one linear, gate and up are one.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from qwen_allinone.model.attention import Attention, Chunk, interleaved, rotation_table
from qwen_allinone.model.config import ModelConfig
from qwen_allinone.model.kv import KVCache
from qwen_allinone.model.linear import Kernels, Linear, Linears, Stacked, Weights
from qwen_allinone.model.lora import Adapter, Fused, Rows, fused
from qwen_allinone.model.native.layers import NativeLayers, computes
from qwen_allinone.model.native.library import library
from qwen_allinone.model.native.linears import NativeLinear
from qwen_allinone.model.native.packed_file import PackedFile
from qwen_allinone.model.weights import WeightReader

KeptAs = Literal["auto", "fp32", "fp16"]
EMBEDDING = "model.embed_tokens.weight"
_PART = 1 << 24

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Layer:
    """One decoder block."""

    attention_norm: Tensor
    qkv: Linear
    head_norms: Tensor | None
    out: Linear
    mlp_norm: Tensor
    gate_up: Linear
    down: Linear


class Qwen2:
    """A loaded model, Qwen2 or Qwen3. Not thread-safe: one engine thread owns it and its caches."""

    def __init__(
        self,
        config: ModelConfig,
        reader: WeightReader,
        context: int,
        weights: Weights = "fp32",
        token_ids: Collection[int] | None = None,
        kernels: Kernels = "auto",
        kv: KeptAs = "auto",
        packed_file: Path | None = None,
    ) -> None:
        """Load from `reader` tensor by tensor, so that the peak stays near the final size.

        `context` is the longest sequence in tokens. `token_ids` are those that the tokenizer has, None for all: no
        other is ever likely. `kv`: how keys and values are kept; `auto` is FP16 where the weights are
        approximate anyway. `packed_file`: where packed weights are kept for other workers and the next start.
        """
        reader.check(config)
        self.config = config
        self.context = context
        linears = Linears(weights, kernels)
        head = EMBEDDING if config.tie_word_embeddings else "lm_head.weight"
        rows = min(max(token_ids) + 1, config.vocab_size) if token_ids else config.vocab_size
        self._gaps = sorted(set(range(rows)) - set(token_ids)) if token_ids else []
        # Native kernels pack in blocks: what they need beside the result is little, however tall the matrix.
        parts = [slice(0, rows)] if linears.native else _row_parts(rows, config.hidden_size)
        packed = PackedFile(packed_file, library() if linears.native else None)

        def load() -> tuple[list[Layer], list[Linear]]:
            # The first of each shape alone: its kernels are measured, and nothing else should run meanwhile. The rest
            # side by side, since packing is slow and does not use several cores itself.
            layers = [_load_layer(reader, 0, linears, config, packed)]
            heads = [_load_rows(reader, head, parts[0], linears, packed)]
            with ThreadPoolExecutor(torch.get_num_threads()) as pool:
                more = [pool.submit(_load_rows, reader, head, part, linears, packed) for part in parts[1:]]
                numbers = range(1, config.num_hidden_layers)
                layers += pool.map(lambda i: _load_layer(reader, i, linears, config, packed), numbers)
                return layers, heads + [loaded.result() for loaded in more]

        with packed.open():
            layers, heads = load()
            if packed.keep():
                layers, heads = load()
        self._layers = layers
        self._head = Stacked(heads) if len(heads) > 1 else heads[0]
        self._norm = _norm_weight(reader, "model.norm.weight")
        reader.release()
        self._embedding = reader.rows(EMBEDDING)
        self._head_rows = reader.rows(head)
        self.kernel = linears.names or linears.native or ""
        self._epsilon = torch.tensor(config.rms_norm_eps * config.hidden_size)
        self._rotations = rotation_table(config, context)
        lib = library()
        self._native_layers = None
        if lib and computes(config, layers):
            self._native_layers = NativeLayers(lib, config, layers, self._rotations)
        self._kv_dtypes = self._kept_as(kv, approximate=linears.weights == "int8")
        self._adapters: dict[str, Fused] = {}  # where there are no native layers, which have their own

    def _kept_as(self, kv: KeptAs, approximate: bool) -> tuple[torch.dtype, torch.dtype]:
        """The types of keys and values. Keys are FP16 with native layers only: torch's sums of them are too coarse."""
        half = kv == "fp16" or (kv == "auto" and approximate)
        if kv == "fp16" and not self._native_layers:
            log.warning("keys are kept as FP32: FP16 takes native kernels for all of the model")
        keys = torch.float16 if half and self._native_layers else torch.float32
        return keys, torch.float16 if half else torch.float32

    def adapt(self, name: str, adapter: Adapter) -> None:
        """Compute chunks that name it with `adapter`."""
        if self._native_layers:
            self._native_layers.adapt(name, adapter)
        else:
            self._adapters[name] = fused(adapter)

    def new_cache(self, slots: int) -> KVCache:
        """Keys and values for `slots` sequences of at most `context` tokens."""
        c = self.config
        return KVCache(c.num_hidden_layers, slots, c.num_key_value_heads, self.context, c.head_dim, *self._kv_dtypes)

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of keys and values that one token costs, all layers together."""
        numbers = self.config.num_hidden_layers * self.config.num_key_value_heads * self.config.head_dim
        return sum(numbers * dtype.itemsize for dtype in self._kv_dtypes)

    @property
    def rows_keep_their_bits(self) -> bool:
        """Whether hidden states and logits have the same bits whatever is computed beside them, and in chunks."""
        return self._native_layers is not None and isinstance(self._head, NativeLinear)

    @torch.inference_mode()
    def forward(self, chunks: Sequence[Chunk], cache: KVCache) -> Tensor:
        """Compute `chunks`, write their keys and values into `cache`.

        Returns:
            The normalised hidden states that are wanted of each chunk, in the order of the chunks, [rows, hidden]
            float32.
        """
        # Requests that decode come first: attention takes them together.
        # Those of one adapter lie side by side, so that their rows are one matrix.
        order = sorted(range(len(chunks)), key=lambda i: (not chunks[i].is_decoding, chunks[i].adapter or ""))
        batch = [chunks[i] for i in order]
        x = self._embedding.read([token for chunk in batch for token in chunk.tokens])
        x = (self._native_layers or self._through_layers)(x, batch, cache)
        begins = dict(zip(order, itertools.accumulate((len(chunk.tokens) for chunk in batch), initial=0), strict=False))
        wanted = [begins[i] + row for i, chunk in enumerate(chunks) for row in chunk.wanted]
        return self._rms_norm(x[torch.tensor(wanted, dtype=torch.long)], self._norm)

    def _through_layers(self, x: Tensor, batch: Sequence[Chunk], cache: KVCache) -> Tensor:
        """Embeddings [tokens, hidden] of `batch`, the chunks that decode first -> what the last layer puts out."""
        attention = Attention(self.config, self._rotations, batch, cache)
        rows = Rows(batch, self._adapters)
        for number, layer in enumerate(self._layers):
            normed = self._rms_norm(x, layer.attention_norm)
            qkv = rows.add(number, "qkv", normed, layer.qkv(normed))
            attended = attention(number, qkv, layer.head_norms)
            x = x + rows.add(number, "out", attended, layer.out(attended))
            normed = self._rms_norm(x, layer.mlp_norm)
            gate, up = rows.add(number, "gate_up", normed, layer.gate_up(normed)).chunk(2, dim=-1)
            inner = F.silu(gate).mul_(up)
            x = x + rows.add(number, "down", inner, layer.down(inner))
        return x

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """Logits over the whole vocabulary, [rows, tokens], of hidden states from `forward`.

        Rows of the head behind the tokenizer's last token are left out, and ids it lacks before that are -inf.
        """
        logits = self._head(hidden)
        return logits.index_fill(1, torch.tensor(self._gaps), -torch.inf) if self._gaps else logits

    @torch.inference_mode()
    def logits_of(self, hidden: Tensor, ids: Sequence[int]) -> Tensor:
        """Logits of the tokens `ids` only, [rows, len(ids)]: reads those rows of the head, not all of it."""
        return hidden @ self._head_rows.read(ids).T

    def _rms_norm(self, x: Tensor, weight: Tensor) -> Tensor:
        # Written out: torch's rms_norm takes about twice the time on a CPU. `weight` comes from _norm_weight.
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        scale = torch.addcmul(self._epsilon, norm, norm).rsqrt_()
        return (x * scale).mul_(weight)


def _norm_weight(reader: WeightReader, name: str) -> Tensor:
    """A norm's weight times sqrt(hidden): with it the sum of squares does for their mean."""
    weight = reader.read(name).float()
    return torch.mul(weight, math.sqrt(weight.numel()))


def _row_parts(rows: int, width: int) -> list[slice]:
    """A tall matrix in parts of at most _PART elements: converting one at a time keeps the peak of memory low."""
    step = max(1, _PART // width)
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


def _load_rows(reader: WeightReader, name: str, rows: slice, linears: Linears, packed: PackedFile) -> Linear:
    part = packed.linear(f"{name} {rows.start}", lambda: linears.make(reader.read(name)[rows]))
    reader.release()
    return part


def _load_layer(reader: WeightReader, number: int, linears: Linears, config: ModelConfig, packed: PackedFile) -> Layer:
    """Decoder block `number`."""
    prefix, dim = f"model.layers.{number}.", config.head_dim

    def rotated(name: str) -> Tensor:
        return interleaved(reader.read(f"{prefix}self_attn.{name}"), dim)

    def fused(*names: str) -> Linear:
        def make() -> Linear:
            return linears.make(torch.cat([reader.read(f"{prefix}{name}.weight") for name in names]))

        return packed.linear(prefix + names[0], make)

    def projections(kind: str) -> Tensor:
        parts = [rotated(f"q_proj.{kind}"), rotated(f"k_proj.{kind}"), reader.read(f"{prefix}self_attn.v_proj.{kind}")]
        return torch.cat(parts)

    def qkv() -> Linear:
        return linears.make(projections("weight"), projections("bias").float() if reader.has_biases else None)

    def head_norms() -> Tensor:
        heads = (config.num_attention_heads, config.num_key_value_heads)
        return torch.cat([rotated(f"{n}_norm.weight").float().expand(h, dim) for n, h in zip("qk", heads, strict=True)])

    layer = Layer(
        attention_norm=_norm_weight(reader, prefix + "input_layernorm.weight"),
        qkv=packed.linear(prefix + "qkv", qkv),
        head_norms=head_norms() if config.head_norms else None,
        out=fused("self_attn.o_proj"),
        mlp_norm=_norm_weight(reader, prefix + "post_attention_layernorm.weight"),
        gate_up=fused("mlp.gate_proj", "mlp.up_proj"),
        down=fused("mlp.down_proj"),
    )
    reader.release()
    return layer
