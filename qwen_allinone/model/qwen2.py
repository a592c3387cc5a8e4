"""The Qwen2 forward pass over a flat batch (Qwen2 technical report, arXiv:2407.10671).

A step is one list of tokens from all running sequences: linears see one tall matrix, attention runs per
slot on that slot's own keys and values. Query, key and value projections are one linear, gate and up are one.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from qwen_allinone.model.config import ModelConfig
from qwen_allinone.model.kv import KVCache
from qwen_allinone.model.linear import Linear, Linears, Stacked, Weights
from qwen_allinone.model.weights import WeightReader

EMBEDDING = "model.embed_tokens.weight"
_PART = 1 << 24


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
        self.config = config
        self.context = context
        linears = Linears(weights)
        head = EMBEDDING if config.tie_word_embeddings else "lm_head.weight"
        parts = _row_parts(config.vocab_size, config.hidden_size)
        # The first of each shape alone: its kernels are measured, and nothing else should run meanwhile. The rest side
        # by side, since packing is slow and does not use several cores itself.
        layers, heads = [_load_layer(reader, 0, linears)], [_load_rows(reader, head, parts[0], linears)]
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            more = [pool.submit(_load_rows, reader, head, rows, linears) for rows in parts[1:]]
            layers += pool.map(lambda i: _load_layer(reader, i, linears), range(1, config.num_hidden_layers))
            heads += [part.result() for part in more]
        self._layers, self._head = layers, Stacked(heads)
        self._norm = reader.read("model.norm.weight").float()
        reader.release()
        # Mapped from the file in its own type; rows are converted when looked up, and only their pages are in memory.
        self._embedding = reader.read(EMBEDDING)
        self._head_rows = self._embedding if config.tie_word_embeddings else reader.read(head)
        self.kernel = linears.names
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
        # Requests that decode come first and in the order of their slots, so that attention need not gather them.
        order = sorted(range(len(chunks)), key=lambda i: (len(chunks[i].tokens) > 1, chunks[i].slot))
        batch = [chunks[i] for i in order]
        ids = torch.tensor([token for chunk in batch for token in chunk.tokens])
        positions = torch.tensor([place for chunk in batch for place in range(chunk.start, chunk.end)])
        cos, sin = self._cos[positions].unsqueeze(1), self._sin[positions].unsqueeze(1)
        attention = _Attention(self.config, batch, cache)
        x = F.embedding(ids, self._embedding).float()
        for number, layer in enumerate(self._layers):
            qkv = layer.qkv(self._rms_norm(x, layer.attention_norm))
            x = x + layer.out(attention(number, qkv, cos, sin))
            gate, up = layer.gate_up(self._rms_norm(x, layer.mlp_norm)).chunk(2, dim=-1)
            x = x + layer.down(F.silu(gate).mul_(up))
        ends = torch.tensor([len(chunk.tokens) for chunk in batch]).cumsum(0) - 1
        last = torch.empty_like(ends).index_put_((torch.tensor(order),), ends)
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
        # Written out: torch's rms_norm takes about twice the time on a CPU.
        scale = x.square().mean(-1, keepdim=True).add_(self.config.rms_norm_eps).rsqrt_()
        return (x * scale).mul_(weight)


class _Attention:
    """Attention of one step; what all layers share (masks, positions) is computed once.

    Requests that decode have one token each: their slots are attended to together. Prompts have many: one call each.
    """

    def __init__(self, config: ModelConfig, batch: Sequence[Chunk], cache: KVCache) -> None:
        """`batch` has the chunks of one token first, in the order of their slots."""
        self._config = config
        self._cache = cache
        self._grouped = config.num_attention_heads != config.num_key_value_heads
        decoding = [chunk for chunk in batch if len(chunk.tokens) == 1]
        self._decoding = _Decoding(decoding) if decoding else None
        self._prompts: list[tuple[Chunk, slice, Tensor | None]] = []
        row = len(decoding)
        for chunk in batch[row:]:
            rows = slice(row, row + len(chunk.tokens))
            self._prompts.append((chunk, rows, _causal_mask(chunk)))
            row = rows.stop

    def __call__(self, layer: int, qkv: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """qkv [tokens, (heads + 2 kv_heads) * dim] -> attention output [tokens, heads * dim]."""
        heads, kv_heads = self._config.num_attention_heads, self._config.num_key_value_heads
        qkv = qkv.view(qkv.shape[0], self._config.qkv_heads, self._config.head_dim)
        rotated = _rotate(qkv[:, : heads + kv_heads], cos, sin)
        query, key, value = rotated[:, :heads], rotated[:, heads:], qkv[:, heads + kv_heads :]
        parts = [self._decode(self._decoding, layer, query, key, value)] if self._decoding else []
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
            parts.append(attended[0].transpose(0, 1).flatten(1))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _decode(self, d: _Decoding, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """The first `d.count` rows, one query a slot -> [count, heads * dim].

        Two batched products over all slots and heads read keys and values faster than SDPA does for single queries.
        """
        self._cache.write_each(layer, d.slots, d.positions, key[: d.count], value[: d.count])
        keys, values = self._cache.read_range(layer, d.span, d.end)
        slots, kv_heads, _, dim = keys.shape
        queries = query[: d.count] * dim**-0.5
        if d.gaps:
            # Slots of the span that do not decode in this step get a query too; their answers are not used.
            queries = queries.new_zeros(slots, *queries.shape[1:]).index_put_((d.places,), queries)
        # Query heads that share a key head are rows of one product.
        scores = torch.bmm(queries.view(slots * kv_heads, -1, dim), keys.flatten(0, 1).transpose(1, 2))
        if d.mask is not None:
            scores.view(slots, -1, d.end).add_(d.mask)
        attended = torch.bmm(scores.softmax(-1), values.flatten(0, 1)).view(slots, -1)
        return attended[d.places] if d.gaps else attended


class _Decoding:
    """The one-token chunks of a step, seen as neighbouring slots; `gaps` if some slots between do not decode."""

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        """`chunks` in the order of their slots."""
        self.count = len(chunks)
        self.slots = torch.tensor([chunk.slot for chunk in chunks])
        self.positions = torch.tensor([chunk.start for chunk in chunks])
        self.span = slice(chunks[0].slot, chunks[-1].slot + 1)
        self.places = self.slots - self.span.start
        self.gaps = self.span.stop - self.span.start > self.count
        self.end = int(self.positions.max()) + 1
        self.mask = self._mask()

    def _mask(self) -> Tensor | None:
        """What to add to scores so that every slot sees its own tokens only, [slots, 1, end]; None if all see all."""
        lengths = torch.ones(self.span.stop - self.span.start, dtype=torch.long)
        lengths[self.places] = self.positions + 1
        if bool((lengths == self.end).all()):
            return None
        hidden = torch.arange(self.end) >= lengths.unsqueeze(1)
        return torch.zeros(hidden.shape).masked_fill_(hidden, float("-inf")).unsqueeze(1)


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


def _row_parts(rows: int, width: int) -> list[slice]:
    """A tall matrix in parts of at most _PART elements: converting one at a time keeps the peak of memory low."""
    step = max(1, _PART // width)
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


def _load_rows(reader: WeightReader, name: str, rows: slice, linears: Linears) -> Linear:
    part = linears.make(reader.read(name)[rows])
    reader.release()
    return part


def _load_layer(reader: WeightReader, number: int, linears: Linears) -> Layer:
    prefix = f"model.layers.{number}."

    def fused(*names: str, bias: bool = False) -> Linear:
        weight = torch.cat([reader.read(f"{prefix}{name}.weight") for name in names])
        biases = torch.cat([reader.read(f"{prefix}{name}.bias").float() for name in names]) if bias else None
        return linears.make(weight, biases)

    layer = Layer(
        attention_norm=reader.read(prefix + "input_layernorm.weight").float(),
        qkv=fused("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", bias=True),
        out=fused("self_attn.o_proj"),
        mlp_norm=reader.read(prefix + "post_attention_layernorm.weight").float(),
        gate_up=fused("mlp.gate_proj", "mlp.up_proj"),
        down=fused("mlp.down_proj"),
    )
    reader.release()
    return layer
