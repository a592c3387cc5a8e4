"""The Qwen2 forward pass over a flat batch (Qwen2 technical report, arXiv:2407.10671).

A step is one list of tokens from all running sequences: linears see one tall matrix, attention runs per
slot on that slot's own keys and values. Query, key and value projections are one linear, gate and up are one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from qwen_allinone.model.config import ModelConfig
from qwen_allinone.model.kv import KVCache
from qwen_allinone.model.linear import Linear, Weights, choose_kernel
from qwen_allinone.model.weights import WeightReader


@dataclass(frozen=True)
class Chunk:
    """Consecutive tokens of one sequence: `tokens` go to positions `start`, `start`+1, ... of slot `slot`."""

    slot: int
    start: int
    tokens: Sequence[int]

    @property
    def end(self) -> int:
        return self.start + len(self.tokens)


@dataclass(frozen=True)
class Layer:
    """One decoder block."""

    attention_norm: Tensor
    qkv: Linear
    out: Linear
    mlp_norm: Tensor
    gate_up: Linear
    down: Linear


class Qwen2:
    """A loaded model. Not thread-safe: one engine thread owns it and its caches."""

    def __init__(self, config: ModelConfig, reader: WeightReader, context: int, weights: Weights = "fp32") -> None:
        """Load from `reader` tensor by tensor, so that the peak stays near the final size.

        `context` is the longest sequence in tokens.
        """
        reader.check(config)
        kernel = choose_kernel(weights)
        self.config = config
        self.kernel = kernel.name
        # The embedding stays mapped from the file in its own type; rows are converted when looked up.
        self._embedding = reader.read("model.embed_tokens.weight")
        head = self._embedding if config.tie_word_embeddings else reader.read("lm_head.weight")
        self._head_rows = head
        self._head = kernel(head, None)
        self._norm = reader.read("model.norm.weight").float()
        self._layers = [_load_layer(reader, f"model.layers.{i}.", kernel) for i in range(config.num_hidden_layers)]
        self.context = context
        self._cos, self._sin = _rope_tables(config, context)

    def new_cache(self, slots: int) -> KVCache:
        """Keys and values for `slots` sequences of at most `context` tokens."""
        c = self.config
        return KVCache(c.num_hidden_layers, slots, c.num_key_value_heads, self.context, c.head_dim)

    @torch.inference_mode()
    def forward(self, chunks: Sequence[Chunk], cache: KVCache) -> Tensor:
        """Compute `chunks`, write their keys and values into `cache`.

        Returns:
            The normalised hidden state after the last token of each chunk, [len(chunks), hidden] float32.
        """
        ids = torch.tensor([token for chunk in chunks for token in chunk.tokens])
        positions = torch.cat([torch.arange(chunk.start, chunk.end) for chunk in chunks])
        cos, sin = self._cos[positions].unsqueeze(1), self._sin[positions].unsqueeze(1)
        attention = _Attention(self.config, chunks, cache)
        x = F.embedding(ids, self._embedding).float()
        for number, layer in enumerate(self._layers):
            qkv = layer.qkv(self._rms_norm(x, layer.attention_norm))
            x = x + layer.out(attention(number, qkv, cos, sin))
            gate, up = layer.gate_up(self._rms_norm(x, layer.mlp_norm)).chunk(2, dim=-1)
            x = x + layer.down(F.silu(gate) * up)
        last = torch.tensor([len(chunk.tokens) for chunk in chunks]).cumsum(0) - 1
        return self._rms_norm(x[last], self._norm)

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """Logits over the whole vocabulary, [rows, vocab], of hidden states from `forward`."""
        return self._head(hidden)

    @torch.inference_mode()
    def logits_of(self, hidden: Tensor, ids: Sequence[int]) -> Tensor:
        """Logits of the tokens `ids` only, [rows, len(ids)]: reads those rows of the head, not all of it."""
        rows = self._head_rows[torch.tensor(list(ids))].float()
        return hidden @ rows.T

    def _rms_norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), weight, self.config.rms_norm_eps)


class _Attention:
    """Attention of one step; what all layers share (masks, positions) is computed once.

    Requests that decode have one token each: their slots are attended to in one call. Prompts have many:
    one call each.
    """

    def __init__(self, config: ModelConfig, chunks: Sequence[Chunk], cache: KVCache) -> None:
        self._config = config
        self._cache = cache
        self._grouped = config.num_attention_heads != config.num_key_value_heads
        self._prompts: list[tuple[Chunk, slice, Tensor | None]] = []
        decoding: list[tuple[Chunk, int]] = []
        row = 0
        for chunk in chunks:
            rows = slice(row, row + len(chunk.tokens))
            if len(chunk.tokens) == 1:
                decoding.append((chunk, row))
            else:
                self._prompts.append((chunk, rows, _causal_mask(chunk)))
            row = rows.stop
        self._decoding = _Decoding(decoding) if decoding else None

    def __call__(self, layer: int, qkv: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """qkv [tokens, (heads + 2 kv_heads) * dim] -> attention output [tokens, heads * dim]."""
        heads, kv_heads = self._config.num_attention_heads, self._config.num_key_value_heads
        qkv = qkv.view(qkv.shape[0], self._config.qkv_heads, self._config.head_dim)
        rotated = _rotate(qkv[:, : heads + kv_heads], cos, sin)
        query, key, value = rotated[:, :heads], rotated[:, heads:], qkv[:, heads + kv_heads :]
        out = torch.empty_like(query)
        for chunk, rows, mask in self._prompts:
            keys, values = self._cache.write(layer, chunk.slot, chunk.start, key[rows], value[rows])
            attended = F.scaled_dot_product_attention(
                query[rows].transpose(0, 1).unsqueeze(0),
                keys.unsqueeze(0),
                values.unsqueeze(0),
                attn_mask=mask,
                is_causal=mask is None,
                enable_gqa=self._grouped,
            )
            out[rows] = attended[0].transpose(0, 1)
        if self._decoding:
            self._decode(self._decoding, layer, query, key, value, out)
        return out.flatten(1)

    def _decode(self, d: _Decoding, layer: int, query: Tensor, key: Tensor, value: Tensor, out: Tensor) -> None:
        self._cache.write_each(layer, d.slots, d.positions, key[d.rows], value[d.rows])
        keys, values = self._cache.read_range(layer, d.span, d.end)
        # Slots of the span that do not decode in this step get a query too; their answers are not used.
        queries = query.new_zeros(keys.shape[0], *query.shape[1:])
        queries[d.places] = query[d.rows]
        attended = F.scaled_dot_product_attention(
            queries.unsqueeze(2), keys, values, attn_mask=d.mask, enable_gqa=self._grouped
        )
        out[d.rows] = attended[d.places].squeeze(2)


class _Decoding:
    """The one-token chunks of a step, seen as neighbouring slots."""

    def __init__(self, chunks: Sequence[tuple[Chunk, int]]) -> None:
        self.rows = torch.tensor([row for _, row in chunks])
        self.slots = torch.tensor([chunk.slot for chunk, _ in chunks])
        self.positions = torch.tensor([chunk.start for chunk, _ in chunks])
        self.span = slice(int(self.slots.min()), int(self.slots.max()) + 1)
        self.places = self.slots - self.span.start
        self.end = int(self.positions.max()) + 1
        lengths = torch.ones(self.span.stop - self.span.start, dtype=torch.long)
        lengths[self.places] = self.positions + 1
        # [slots, 1, 1, end]: every slot sees its own tokens only.
        self.mask = (torch.arange(self.end) < lengths.unsqueeze(1))[:, None, None]


def _causal_mask(chunk: Chunk) -> Tensor | None:
    """None where SDPA's own `is_causal` says it; else [tokens, end] booleans."""
    if chunk.start == 0:
        return None
    return torch.ones(len(chunk.tokens), chunk.end, dtype=torch.bool).tril(chunk.start)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding in the half-split form (RoFormer, arXiv:2104.09864)."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


def _rope_tables(config: ModelConfig, positions: int) -> tuple[Tensor, Tensor]:
    """cos and sin, [positions, head_dim] each."""
    exponents = torch.arange(0, config.head_dim, 2).float() / config.head_dim
    angles = torch.outer(torch.arange(positions).float(), config.rope_theta**-exponents)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def _load_layer(reader: WeightReader, prefix: str, kernel: type) -> Layer:
    def fused(*names: str, bias: bool = False) -> Linear:
        weight = torch.cat([reader.read(f"{prefix}{name}.weight") for name in names])
        biases = torch.cat([reader.read(f"{prefix}{name}.bias").float() for name in names]) if bias else None
        linear: Linear = kernel(weight, biases)
        return linear

    return Layer(
        attention_norm=reader.read(prefix + "input_layernorm.weight").float(),
        qkv=fused("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", bias=True),
        out=fused("self_attn.o_proj"),
        mlp_norm=reader.read(prefix + "post_attention_layernorm.weight").float(),
        gate_up=fused("mlp.gate_proj", "mlp.up_proj"),
        down=fused("mlp.down_proj"),
    )
