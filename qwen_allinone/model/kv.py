"""Keys and values of all slots, contiguous per slot; memory is taken from the system as it is first written."""

from __future__ import annotations

import math
import mmap

import torch
from torch import Tensor

Saved = list[tuple[Tensor, Tensor]]


class KVCache:
    """FP32 keys and values, [slots, kv_heads, length, head_dim] for each layer.

    The pages of a slot become resident when tokens are written and are given back by `discard`, so the
    memory in use follows the tokens held, not slots x length. What was never written reads as zeros:
    masked positions must be finite.
    """

    def __init__(self, layers: int, slots: int, kv_heads: int, length: int, head_dim: int) -> None:
        shape = (slots, kv_heads, length, head_dim)
        self.length = length
        self._maps: list[mmap.mmap] = []
        self._keys = [self._reserve(shape) for _ in range(layers)]
        self._values = [self._reserve(shape) for _ in range(layers)]

    def write(self, layer: int, slot: int, start: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store keys and values [tokens, kv_heads, head_dim] of one slot from position `start` on.

        Returns:
            Views of all keys and all values of the slot up to the last token written, [kv_heads, end, head_dim].
        """
        end = start + keys.shape[0]
        slot_keys, slot_values = self._keys[layer][slot, :, :end], self._values[layer][slot, :, :end]
        slot_keys[:, start:] = keys.transpose(0, 1)
        slot_values[:, start:] = values.transpose(0, 1)
        return slot_keys, slot_values

    def write_each(self, layer: int, slots: Tensor, positions: Tensor, keys: Tensor, values: Tensor) -> None:
        """Store one token in each of `slots` [n] at `positions` [n]; keys and values are [n, kv_heads, head_dim]."""
        self._keys[layer][slots, :, positions] = keys
        self._values[layer][slots, :, positions] = values

    def read_range(self, layer: int, slots: slice, end: int) -> tuple[Tensor, Tensor]:
        """Views of the first `end` positions of neighbouring slots, [slots, kv_heads, end, head_dim]."""
        return self._keys[layer][slots, :, :end], self._values[layer][slots, :, :end]

    def copy_out(self, slot: int, length: int) -> Saved:
        """A copy of the first `length` tokens of `slot`: keys and values of each layer."""
        pairs = zip(self._keys, self._values, strict=True)
        return [(k[slot, :, :length].clone(), v[slot, :, :length].clone()) for k, v in pairs]

    def copy_in(self, slot: int, saved: Saved, length: int) -> None:
        """Write the first `length` tokens of a copy made by `copy_out` into `slot`."""
        for layer, (keys, values) in enumerate(saved):
            self._keys[layer][slot, :, :length] = keys[:, :length]
            self._values[layer][slot, :, :length] = values[:, :length]

    def discard(self, slot: int, keep: int = 0) -> None:
        """Give the slot's memory behind its first `keep` tokens back to the system; what it held is lost."""
        _, heads, length, dim = self._keys[0].shape
        run, kept = 4 * length * dim, 4 * keep * dim
        for head in range(heads) if keep else (0,):
            begin = (slot * heads + head) * run + kept
            end = begin - kept + (run if keep else heads * run)
            # Whole pages of this slot only; the next write finds them zeroed and resident again.
            begin, end = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE, end // mmap.PAGESIZE * mmap.PAGESIZE
            if end > begin:
                for area in self._maps:
                    area.madvise(mmap.MADV_DONTNEED, begin, end - begin)

    def _reserve(self, shape: tuple[int, ...]) -> Tensor:
        """A tensor over private anonymous pages, which cost nothing until written."""
        area = mmap.mmap(-1, 4 * math.prod(shape), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._maps.append(area)
        return torch.frombuffer(area, dtype=torch.float32).view(shape)
