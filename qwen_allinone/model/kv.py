"""Keys and values of all slots, contiguous per slot; memory is taken from the system as it is first written."""

from __future__ import annotations

import math
import mmap
from dataclasses import dataclass

import torch
from torch import Tensor

# Tokens whose keys lie together, dimension by dimension: a row of 32 floats is two cache lines.
KEY_BLOCK = 32

Saved = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Destinations:
    """Where one token of each of several slots goes, the same in all layers."""

    keys: Tensor  # [n * kv_heads * head_dim] elements
    values: Tensor  # [n * kv_heads] rows


class KVCache:
    """Keys and values of each layer, laid out for the weighted sums of rows that decode attention consists of.

    Values are [slots, kv_heads, length, head_dim]. Keys are [slots, kv_heads, length / KEY_BLOCK, head_dim, KEY_BLOCK]:
    a query's products with a block of keys are a sum of head_dim rows, weighted by the query's elements.

    The pages of a slot become resident when tokens are written and are given back by `discard`, so the
    memory in use follows the tokens held, not slots x length. What was never written reads as zeros:
    masked positions must be finite.
    """

    def __init__(
        self,
        layers: int,
        slots: int,
        kv_heads: int,
        length: int,
        head_dim: int,
        key_dtype: torch.dtype = torch.float32,
        value_dtype: torch.dtype = torch.float32,
    ) -> None:
        """`length` is in tokens and rounded up to whole blocks. The types may be FP16, which is not exact."""
        self.slots, self.kv_heads, self.head_dim = slots, kv_heads, head_dim
        self.blocks = -(-length // KEY_BLOCK)
        self.length = self.blocks * KEY_BLOCK
        keys, values = (slots, kv_heads, self.blocks, head_dim, KEY_BLOCK), (slots, kv_heads, self.length, head_dim)
        self._key_areas, self._keys = _reserve(layers, keys, key_dtype)
        self._value_areas, self._values = _reserve(layers, values, value_dtype)
        # The same of each layer as rows: keys [slots * kv_heads * blocks * head_dim, KEY_BLOCK], and values
        # [slots * kv_heads * length, head_dim].
        self.key_rows = [keys.view(-1, KEY_BLOCK) for keys in self._keys]
        self.value_rows = [values.view(-1, head_dim) for values in self._values]

    def write(self, layer: int, slot: int, start: int, keys: Tensor, values: Tensor) -> None:
        """Store keys and values [tokens, kv_heads, head_dim] of one slot from position `start` on."""
        end = start + keys.shape[0]
        self._values[layer][slot, :, start:end] = values.transpose(0, 1)
        blocks = self._keys[layer][slot]
        done = start
        while done < end:
            block, offset = divmod(done, KEY_BLOCK)
            whole = 0 if offset else (end - done) // KEY_BLOCK
            until = done + whole * KEY_BLOCK if whole else min(end, done - offset + KEY_BLOCK)
            part = keys[done - start : until - start]
            if whole:
                blocks[:, block : block + whole] = part.view(whole, KEY_BLOCK, *part.shape[1:]).permute(2, 0, 3, 1)
            else:
                blocks[:, block, :, offset : offset + until - done] = part.permute(1, 2, 0)
            done = until

    def read(self, layer: int, slot: int, end: int) -> tuple[Tensor, Tensor]:
        """Keys and values of the first `end` tokens, [kv_heads, end, head_dim] float32 each; maybe views."""
        blocks = self._keys[layer][slot, :, : -(-end // KEY_BLOCK)]
        return blocks.transpose(2, 3).flatten(1, 2)[:, :end].float(), self._values[layer][slot, :, :end].float()

    def destinations(self, slots: Tensor, positions: Tensor) -> Destinations:
        """Where one token in each of `slots` [n] at `positions` [n] goes, for `append`."""
        heads = slots.unsqueeze(1) * self.kv_heads + torch.arange(self.kv_heads)
        blocks = heads * self.blocks + (positions // KEY_BLOCK).unsqueeze(1)
        elements = (blocks.unsqueeze(2) * self.head_dim + torch.arange(self.head_dim)) * KEY_BLOCK
        keys = elements + (positions % KEY_BLOCK).view(-1, 1, 1)
        return Destinations(keys.flatten(), (heads * self.length + positions.unsqueeze(1)).flatten())

    def append(self, layer: int, to: Destinations, keys: Tensor, values: Tensor) -> None:
        """Store one token for each of several slots; keys and values are [n, kv_heads, head_dim]."""
        self._keys[layer].put_(to.keys, keys.to(self._keys[layer].dtype))
        rows = self.value_rows[layer]
        rows.index_copy_(0, to.values, values.reshape(-1, self.head_dim).to(rows.dtype))

    def copy_out(self, slot: int, length: int) -> Saved:
        """A copy of the first `length` tokens of `slot`: keys in whole blocks and values, of each layer."""
        blocks = -(-length // KEY_BLOCK)
        pairs = zip(self._keys, self._values, strict=True)
        return [(keys[slot, :, :blocks].clone(), values[slot, :, :length].clone()) for keys, values in pairs]

    def copy_in(self, slot: int, saved: Saved, length: int) -> None:
        """Write the first `length` tokens of a copy made by `copy_out` into `slot`.

        What the slot held up to the end of the last token's block is lost.
        """
        blocks = -(-length // KEY_BLOCK)
        for layer, (keys, values) in enumerate(saved):
            self._keys[layer][slot, :, :blocks] = keys[:, :blocks]
            self._values[layer][slot, :, :length] = values[:, :length]

    def discard(self, slot: int, keep: int = 0) -> None:
        """Give the slot's memory behind its first `keep` tokens back to the system; what it held is lost."""
        in_blocks = -(-keep // KEY_BLOCK) * KEY_BLOCK  # keys of a block's tokens are interleaved
        for head in range(self.kv_heads) if keep else (0,):
            first = slot * self.kv_heads + head
            last = first + (1 if keep else self.kv_heads)
            for areas, kept, size in (
                (self._key_areas, in_blocks, self._keys[0].itemsize),
                (self._value_areas, keep, self._values[0].itemsize),
            ):
                token = size * self.head_dim
                for area in areas:
                    _release(area, (first * self.length + kept) * token, last * self.length * token)


def _reserve(count: int, shape: tuple[int, ...], dtype: torch.dtype) -> tuple[list[mmap.mmap], list[Tensor]]:
    """`count` tensors over private anonymous pages, which cost nothing until written, and the pages."""
    size, flags = math.prod(shape) * dtype.itemsize, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    areas = [mmap.mmap(-1, size, flags=flags) for _ in range(count)]
    return areas, [torch.frombuffer(area, dtype=dtype).view(shape) for area in areas]


def _release(area: mmap.mmap, begin: int, end: int) -> None:
    """Whole pages of these bytes only; the next write finds them zeroed and resident again."""
    begin, end = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE, end // mmap.PAGESIZE * mmap.PAGESIZE
    if end > begin:
        area.madvise(mmap.MADV_DONTNEED, begin, end - begin)
