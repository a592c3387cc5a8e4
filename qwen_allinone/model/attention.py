"""Attention of one step over the slots' keys and values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from qwen_allinone.model.config import ModelConfig
from qwen_allinone.model.kv import KEY_BLOCK, KVCache


@dataclass(frozen=True)
class Tree:
    """A tree-attention mask, for a chunk that holds several continuations of one prefix.

    `positions` [tokens]: the rotary position of each token. `visible` [tokens, end of the chunk]: which of the slot's
    tokens each sees. `wanted`: rows of the chunk whose hidden states are asked for.
    """

    positions: Sequence[int]
    visible: Tensor
    wanted: Sequence[int]


class Chunk:
    """Consecutive tokens of one sequence: `tokens` go to positions `start`, `start`+1, ... of slot `slot`.

    With a `tree` they go to the same indexes of the slot, but have positions and see each other as it says. `wanted`:
    rows of the chunk whose hidden states are asked for: the last one, or the last `wants_last`. `adapter` is the name
    of the one to compute with.
    """

    __slots__ = ("adapter", "end", "is_decoding", "positions", "slot", "start", "tokens", "tree", "wanted")

    def __init__(
        self,
        slot: int,
        start: int,
        tokens: Sequence[int],
        tree: Tree | None = None,
        *,
        wants_last: int = 1,
        adapter: str | None = None,
    ) -> None:
        self.adapter = adapter
        self.slot, self.start, self.tokens, self.tree = slot, start, tokens, tree
        self.end = start + len(tokens)
        self.positions = tree.positions if tree else range(start, self.end)
        self.wanted = tree.wanted if tree else range(len(tokens) - wants_last, len(tokens))
        self.is_decoding = len(tokens) == 1 and tree is None  # one more token of a sequence


class Attention:
    """What all layers share in one step (rotations, masks, rows to read) is computed once.

    Requests that decode have one token each and are attended to together. Prompts have many: one call each.
    """

    def __init__(self, config: ModelConfig, rotations: Tensor, batch: Sequence[Chunk], cache: KVCache) -> None:
        """`batch` has the chunks that decode first; `rotations` come from `rotation_table`."""
        self._config = config
        self._cache = cache
        self._query_and_key = [config.num_attention_heads, config.num_key_value_heads]
        self._rotated_and_value = [sum(self._query_and_key), config.num_key_value_heads]
        self._grouped = config.num_attention_heads != config.num_key_value_heads
        positions = torch.tensor([position for chunk in batch for position in chunk.positions])
        # For each head, [tokens, heads + kv_heads, dim / 2]; the queries' hold their scale.
        scales = torch.ones(sum(self._query_and_key), 1)
        scales[: config.num_attention_heads] = config.head_dim**-0.5
        self._rotations = rotations[positions].unsqueeze(1) * scales
        decoding = [chunk for chunk in batch if chunk.is_decoding]
        self._decoding = _Decoding(decoding, config.num_attention_heads, cache) if decoding else None
        self._prompts: list[tuple[Chunk, slice, Tensor | None]] = []
        row = len(decoding)
        for chunk in batch[row:]:
            rows = slice(row, row + len(chunk.tokens))
            self._prompts.append((chunk, rows, _causal_mask(chunk)))
            row = rows.stop

    def __call__(self, layer: int, qkv: Tensor, head_norms: Tensor | None) -> Tensor:
        """qkv [tokens, (heads + 2 kv_heads) * dim] -> attention output [tokens, heads * dim].

        `head_norms` [heads + kv_heads, dim]: the weights of the RMS norms of queries and keys, None without.
        """
        qkv = qkv.view(qkv.shape[0], -1, self._config.head_dim)
        turned, value = torch.split(qkv, self._rotated_and_value, dim=1)
        if head_norms is not None:
            turned = F.rms_norm(turned, (self._config.head_dim,), eps=self._config.rms_norm_eps) * head_norms
        # Neighbouring components are rotated together, as complex numbers.
        pairs = torch.view_as_complex(turned.view(*turned.shape[:-1], -1, 2)) * self._rotations
        query, key = torch.split(torch.view_as_real(pairs).flatten(2), self._query_and_key, dim=1)
        decoding = self._decoding
        if decoding and not self._prompts:
            return decoding.attend(layer, query, key, value)
        parts = []
        if decoding:
            own = slice(decoding.count)
            parts.append(decoding.attend(layer, query[own], key[own], value[own]))
        for chunk, rows, mask in self._prompts:
            parts.append(self._attend_prompt(layer, chunk, query[rows], key[rows], value[rows], mask))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _attend_prompt(
        self, layer: int, chunk: Chunk, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None
    ) -> Tensor:
        """One chunk of a prompt, [tokens, heads, dim] each -> [tokens, heads * dim]."""
        self._cache.write(layer, chunk.slot, chunk.start, key, value)
        keys, values = key.transpose(0, 1), value.transpose(0, 1)
        if chunk.start:
            keys, values = self._cache.read(layer, chunk.slot, chunk.end)
        attended = F.scaled_dot_product_attention(
            query.transpose(0, 1).unsqueeze(0),
            keys.unsqueeze(0),
            values.unsqueeze(0),
            attn_mask=mask,
            is_causal=mask is None,
            scale=1.0,  # it is in the queries' rotations
            enable_gqa=self._grouped,
        )
        return attended[0].transpose(0, 1).flatten(1)


class _Decoding:
    """The one-token chunks of a step.

    For a single query, attention is two weighted sums of rows: those of a key block weighted by the query's elements,
    and values weighted by probabilities. The embedding bag does that at nearly the speed of memory, which
    matrix products with one row do not reach; its bags are of one head of one request each.
    """

    def __init__(self, chunks: Sequence[Chunk], heads: int, cache: KVCache) -> None:
        self._cache = cache
        self.count = len(chunks)
        slots = torch.tensor([chunk.slot for chunk in chunks])
        positions = torch.tensor([chunk.start for chunk in chunks])
        self._to = cache.destinations(slots, positions)
        self._end = int(positions.max()) + 1
        self._blocks = -(-self._end // KEY_BLOCK)
        self._mask = _length_mask(positions, self._end)
        groups = heads // cache.kv_heads  # query heads that share a key head
        head = (slots.unsqueeze(1) * cache.kv_heads + torch.arange(cache.kv_heads)).repeat_interleave(groups, dim=1)
        # Behind the end of a shorter sequence its last row or block is read again: it is in the cache by then.
        last = positions.view(-1, 1, 1)
        block = head.unsqueeze(2) * cache.blocks + torch.arange(self._blocks).minimum(last // KEY_BLOCK)
        row = head.unsqueeze(2) * cache.length + torch.arange(self._end).minimum(last)
        self._key_bags = _bags(block.unsqueeze(3) * cache.head_dim + torch.arange(cache.head_dim))
        self._value_bags = _bags(row)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """query [count, heads, dim], key and value [count, kv_heads, dim] -> [count, heads * dim]."""
        self._cache.append(layer, self._to, key, value)
        count, heads, _ = query.shape
        weights = query.unsqueeze(2).expand(-1, -1, self._blocks, -1).reshape(-1)
        # By position: scale_grad_by_freq, mode (0: sum), sparse, weights, include_last_offset.
        key_rows, value_rows = self._cache.key_rows[layer], self._cache.value_rows[layer]
        sums = torch.embedding_bag(key_rows, *self._key_bags, False, 0, False, weights, True)[0]
        scores = sums.view(count, heads, -1)[:, :, : self._end]
        if self._mask is not None:
            scores += self._mask
        weights = scores.softmax(-1).view(-1).to(value_rows.dtype)
        sums = torch.embedding_bag(value_rows, *self._value_bags, False, 0, False, weights, True)[0]
        return sums.view(count, -1).float()


def rotation_table(config: ModelConfig, positions: int) -> Tensor:
    """Rotary position embedding (RoFormer, arXiv:2104.09864) as complex factors [positions, dim / 2]."""
    exponents = torch.arange(0, config.head_dim, 2).float() / config.head_dim
    angles = torch.outer(torch.arange(positions).float(), config.rope_theta**-exponents)
    return torch.polar(torch.ones_like(angles), angles)


def interleaved(weight: Tensor, dim: int) -> Tensor:
    """Rows of a query or key projection, [heads * dim, ...], with the two that are rotated together side by side.

    Checkpoints hold a head's first components, then its second ones. Queries and keys change alike, so their products
    stay the same.
    """
    return weight.view(-1, 2, dim // 2, *weight.shape[1:]).transpose(1, 2).reshape(weight.shape)


def _bags(rows: Tensor) -> tuple[Tensor, Tensor]:
    """rows [..., rows of a bag] as the two lists the embedding bag takes: all rows, and where each bag begins."""
    size = rows.shape[-1]
    return rows.flatten().int(), torch.arange(0, rows.numel() + 1, size, dtype=torch.int)


def _length_mask(positions: Tensor, end: int) -> Tensor | None:
    """What to add to scores so that every request sees its own tokens only, [n, 1, end]; None if all see all."""
    hidden = torch.arange(end) > positions.unsqueeze(1)
    if not bool(hidden.any()):
        return None
    return torch.zeros(hidden.shape).masked_fill_(hidden, float("-inf")).unsqueeze(1)


def _causal_mask(chunk: Chunk) -> Tensor | None:
    """None where SDPA's own `is_causal` says it; else [tokens, end] booleans, true where a token sees."""
    if chunk.tree:
        return chunk.tree.visible
    if chunk.start == 0:
        return None
    return torch.ones(len(chunk.tokens), chunk.end, dtype=torch.bool).tril(chunk.start)
