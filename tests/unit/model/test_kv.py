"""Keys and values per slot: what is written is read back, and what is discarded is gone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from qwen_allinone.model.kv import KVCache


def tokens(count: int, seed: int, heads: int = 2, dim: int = 8) -> Tensor:
    return torch.randn(count, heads, dim, generator=torch.Generator().manual_seed(seed))


def fill(cache: KVCache, layer: int, slot: int, count: int, seed: int, heads: int = 2, dim: int = 8) -> None:
    cache.write(layer, slot, 0, tokens(count, seed, heads, dim), tokens(count, seed + 1000, heads, dim))


def read(cache: KVCache, slot: int, length: int) -> list[Tensor]:
    """Copies of the keys and values of all layers, [kv_heads, length, head_dim] each."""
    return [tensor.clone() for layer in range(len(cache.key_rows)) for tensor in cache.read(layer, slot, length)]


@pytest.mark.parametrize("ends", [(4, 5, 9), (32, 64, 70), (31, 33, 100), (10, 90, 91, 96, 100), (100,)])
def test_chunks_follow_each_other(ends: tuple[int, ...]) -> None:
    """They begin and end inside blocks of keys and at their edges."""
    cache = KVCache(layers=1, slots=3, kv_heads=2, length=100, head_dim=8)
    whole_k, whole_v = tokens(100, 0), tokens(100, 1)
    for start, end in zip((0, *ends), ends, strict=False):
        cache.write(0, 1, start, whole_k[start:end], whole_v[start:end])
        keys, values = cache.read(0, 1, end)
        assert torch.equal(keys, whole_k[:end].transpose(0, 1))
        assert torch.equal(values, whole_v[:end].transpose(0, 1))


def test_slots_and_layers_are_apart() -> None:
    cache = KVCache(layers=2, slots=3, kv_heads=2, length=16, head_dim=8)
    for layer in range(2):
        for slot in range(3):
            fill(cache, layer, slot, 16, seed=10 * layer + slot)
    for slot in range(3):
        for layer in range(2):
            keys, values = cache.read(layer, slot, 16)
            assert torch.equal(keys, tokens(16, 10 * layer + slot).transpose(0, 1))
            assert torch.equal(values, tokens(16, 1000 + 10 * layer + slot).transpose(0, 1))


def test_one_token_in_each_of_many_slots_equals_one_at_a_time() -> None:
    together = KVCache(layers=1, slots=5, kv_heads=2, length=80, head_dim=8)
    apart = KVCache(layers=1, slots=5, kv_heads=2, length=80, head_dim=8)
    slots, positions = [4, 0, 3], [0, 79, 32]
    keys, values = tokens(3, 0), tokens(3, 1)
    together.append(0, together.destinations(torch.tensor(slots), torch.tensor(positions)), keys, values)
    for row, (slot, position) in enumerate(zip(slots, positions, strict=True)):
        apart.write(0, slot, position, keys[row : row + 1], values[row : row + 1])
    for slot in range(5):
        assert all(map(torch.equal, read(together, slot, 80), read(apart, slot, 80)))


def test_a_copy_put_into_another_slot_is_the_same() -> None:
    cache = KVCache(layers=3, slots=2, kv_heads=2, length=80, head_dim=8)
    for layer in range(3):
        fill(cache, layer, 0, 70, seed=layer)
        fill(cache, layer, 1, 80, seed=50 + layer)
    saved = cache.copy_out(0, 70)
    before = read(cache, 1, 80)
    cache.copy_in(1, saved, 36)
    for now, old, source in zip(read(cache, 1, 80), before, read(cache, 0, 80), strict=True):
        assert torch.equal(now[:, :36], source[:, :36])
        assert torch.equal(now[:, 64:], old[:, 64:])  # behind the block the copy ends in


def test_a_copy_does_not_change_with_its_slot() -> None:
    cache = KVCache(layers=1, slots=1, kv_heads=2, length=16, head_dim=8)
    fill(cache, 0, 0, 8, seed=0)
    saved = cache.copy_out(0, 8)
    fill(cache, 0, 0, 8, seed=9)
    cache.copy_in(0, saved, 8)
    assert torch.equal(read(cache, 0, 8)[0], tokens(8, 0).transpose(0, 1))


@pytest.mark.parametrize(("length", "heads", "dim"), [(256, 2, 64), (100, 3, 40), (33, 1, 8), (1536, 2, 16)])
def test_discarding_a_slot_zeroes_its_pages_and_no_others(length: int, heads: int, dim: int) -> None:
    """Slots are seldom whole pages: the pages at the edges are shared with a neighbour and stay."""
    cache = KVCache(layers=2, slots=4, kv_heads=heads, length=length, head_dim=dim)
    for layer in range(2):
        for slot in range(4):
            fill(cache, layer, slot, length, seed=10 * layer + slot, heads=heads, dim=dim)
    others = {slot: read(cache, slot, length) for slot in (0, 1, 3)}
    cache.discard(2)
    for slot, before in others.items():
        assert all(torch.equal(a, b) for a, b in zip(before, read(cache, slot, length), strict=True))
    page = 4096 // 4
    for tensor in read(cache, 2, length):
        left = int((tensor != 0).sum())
        assert left <= 2 * page, f"{left} of {tensor.numel()} values are still in memory"


def test_a_discarded_slot_can_be_written_again() -> None:
    cache = KVCache(layers=1, slots=2, kv_heads=2, length=512, head_dim=8)
    fill(cache, 0, 1, 512, seed=0)
    cache.discard(1)
    fill(cache, 0, 1, 300, seed=7)
    assert torch.equal(read(cache, 1, 300)[0], tokens(300, 7).transpose(0, 1))


def resident_kib() -> int:
    with open("/proc/self/smaps_rollup") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))


def test_memory_follows_the_tokens_written() -> None:
    """32 MiB are reserved; a quarter is written, then given back."""
    ones = torch.ones(1024, 4, 64)
    cache = KVCache(layers=2, slots=8, kv_heads=4, length=1024, head_dim=64)
    start = resident_kib()
    for slot in (2, 5):
        for layer in range(2):
            cache.write(layer, slot, 0, ones, ones)
    written = resident_kib()
    assert 7.5 * 1024 < written - start < 9.5 * 1024
    cache.discard(2)
    assert written - resident_kib() > 3.5 * 1024
    cache.discard(5)
    assert written - resident_kib() > 7 * 1024


def test_values_kept_as_fp16_are_read_as_fp32_and_take_half_the_memory() -> None:
    ones = torch.ones(1024, 4, 64)
    sizes = {}
    for dtype in (torch.float32, torch.float16):
        cache = KVCache(layers=2, slots=8, kv_heads=4, length=1024, head_dim=64, value_dtype=dtype)
        sizes[dtype] = cache.value_rows[0].nbytes
    assert sizes[torch.float16] * 2 == sizes[torch.float32]
    for layer in range(2):
        cache.write(layer, 3, 0, ones, ones / 3)
    cache.append(0, cache.destinations(torch.tensor([3]), torch.tensor([7])), ones[:1], ones[:1] / 7)
    keys, values = cache.read(0, 3, 9)
    assert keys.dtype == values.dtype == torch.float32
    torch.testing.assert_close(values[:, 7], ones[0] / 7, atol=1e-4, rtol=0)
    torch.testing.assert_close(values[:, 8], ones[0] / 3, atol=2e-4, rtol=0)


def test_what_is_kept_of_a_discarded_slot_stays_with_either_kind_of_value() -> None:
    ones = torch.ones(1024, 4, 64)
    for dtype in (torch.float32, torch.float16):
        cache = KVCache(layers=1, slots=3, kv_heads=4, length=1024, head_dim=64, value_dtype=dtype)
        for slot in range(3):
            cache.write(0, slot, 0, ones, ones)
        cache.discard(1, keep=500)
        assert all(bool((tensor == 1).all()) for slot in (0, 2) for tensor in cache.read(0, slot, 1024))
        assert all(bool((tensor == 1).all()) for tensor in cache.read(0, 1, 500))
        keys, values = cache.read(0, 1, 1024)
        assert bool((keys[:, 512:] == 0).all()) and bool((values[:, 512:] == 0).all())
