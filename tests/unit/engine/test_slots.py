"""Slots: who gets which memory, what is reused, and that the budget of tokens is never passed."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from qwen_allinone.engine.slots import Slot, SlotTable, common_prefix
from qwen_allinone.model.kv import KVCache

LENGTH = 512


def make(count: int = 4, kv_tokens: int = 1000) -> tuple[SlotTable, KVCache]:
    cache = KVCache(layers=2, slots=count, kv_heads=2, length=LENGTH, head_dim=8)
    return SlotTable(cache, count, kv_tokens), cache


def keys_of(tokens: list[int], start: int = 0) -> Tensor:
    """Keys that can be recomputed: they depend on all tokens up to their own, as real ones do."""
    rows, digest = [], 1.0
    for place, token in enumerate(tokens):
        digest = (digest * 31 + token + 1) % 9973
        rows.append([digest + place / 1024] * 8)
    return torch.tensor(rows[start:]).reshape(-1, 1, 8).expand(-1, 2, 8)


def compute(cache: KVCache, slot: Slot, tokens: list[int]) -> None:
    """Bring the slot up to `tokens`, as a forward pass would."""
    start = len(slot.tokens)
    assert slot.tokens == tokens[:start]
    if start < len(tokens):
        for layer in range(2):
            keys = keys_of(tokens, start)
            cache.write(layer, slot.index, start, keys + layer, -keys - layer)
    slot.tokens.extend(tokens[start:])


def check_memory(cache: KVCache, slot: Slot) -> None:
    """The slot holds the keys and values of exactly the tokens its books name."""
    for layer in range(len(cache.key_rows)):
        keys, values = cache.read(layer, slot.index, len(slot.tokens))
        expected = keys_of(slot.tokens).transpose(0, 1) if slot.tokens else keys
        assert torch.equal(keys, expected + layer if slot.tokens else keys)
        assert torch.equal(values, -expected - layer if slot.tokens else values)


def serve(table: SlotTable, cache: KVCache, tokens: list[int], most: int | None = None) -> Slot:
    """One whole request: acquire, compute, release."""
    slot = table.acquire(tokens, most or len(tokens))
    assert slot is not None
    compute(cache, slot, tokens)
    table.release(slot)
    return slot


@pytest.mark.parametrize(
    ("a", "b", "count"),
    [([], [1], 0), ([1, 2], [1, 2], 2), ([1, 2, 3], [1, 2], 2), ([1, 9, 3], [1, 2, 3], 1), ([9], [1], 0)],
)
def test_shared_beginnings_are_counted(a: list[int], b: list[int], count: int) -> None:
    assert common_prefix(a, b) == common_prefix(b, a) == count


def test_the_slot_with_the_longest_common_beginning_is_taken() -> None:
    table, cache = make()
    taken = [table.acquire(tokens, 10) for tokens in ([1, 2, 3], [1, 2, 3, 4, 5], [1, 9, 9, 9, 9])]
    slots = [slot for slot in taken if slot]
    for slot, tokens in zip(slots, ([1, 2, 3], [1, 2, 3, 4, 5], [1, 9, 9, 9, 9]), strict=True):
        compute(cache, slot, tokens)
        table.release(slot)
    again = table.acquire([1, 2, 3, 4, 7, 8], 10)
    assert again is slots[1] and again.tokens == [1, 2, 3, 4]
    check_memory(cache, again)


def test_the_last_token_is_always_left_to_compute() -> None:
    """Without it there would be no logits."""
    table, cache = make()
    serve(table, cache, [1, 2, 3, 4])
    slot = table.acquire([1, 2, 3, 4], 8)
    assert slot is not None and slot.tokens == [1, 2, 3]
    table.release(slot)
    shorter = table.acquire([1, 2], 8)
    assert shorter is slot and shorter.tokens == [1]


def test_what_another_caller_has_asked_is_of_no_use() -> None:
    table, cache = make()
    slot = table.acquire([1, 2, 3, 4], 8, "alice")
    assert slot is not None
    compute(cache, slot, [1, 2, 3, 4])
    table.release(slot)
    for other in ("bob", None):
        taken = table.acquire([1, 2, 3, 4], 8, other)
        assert taken is not None and taken.tokens == []
        table.release(taken)


def test_a_slot_of_another_caller_that_must_be_taken_keeps_the_tasks_prefix_alone() -> None:
    table, cache = make()
    first = serve(table, cache, [1, 2])
    table.remember_prefix(first)
    taken = [table.acquire([1, 2, 3, 4, 5], 8, "alice") for _ in range(4)]
    for slot in taken:
        assert slot is not None
        compute(cache, slot, [1, 2, 3, 4, 5])
        table.release(slot)
    again = table.acquire([1, 2, 3, 4, 5], 8, "bob")
    assert again is not None and again.tokens == [1, 2]
    check_memory(cache, again)


def test_a_busy_slot_is_not_shared() -> None:
    table, cache = make()
    slot = table.acquire([1, 2, 3, 4], 8)
    assert slot is not None
    compute(cache, slot, [1, 2, 3, 4])
    other = table.acquire([1, 2, 3, 4, 5], 8)
    assert other is not None and other is not slot and other.tokens == []


def test_where_nothing_is_shared_the_memories_used_last_are_spared() -> None:
    table, cache = make(count=3)
    first, second = serve(table, cache, [1] * 5), None
    slot = table.acquire([2] * 5, 5)
    assert slot is not None and slot is not first, "an empty slot comes before one that remembers"
    compute(cache, slot, [2] * 5)
    table.release(slot)
    second = slot
    third = serve(table, cache, [3] * 5)
    assert len({first.index, second.index, third.index}) == 3
    assert serve(table, cache, [4] * 5) is first, "of those that remember, the one used longest ago goes"
    assert serve(table, cache, [5] * 5) is second


def test_a_prefix_is_copied_in_where_no_slot_has_more() -> None:
    table, cache = make()
    slot = serve(table, cache, [1, 2, 3, 4, 5, 6])
    table.remember_prefix(slot)
    serve(table, cache, [9, 9])
    busy = table.acquire([1, 2, 3, 4, 5, 6, 7], 10)
    assert busy is not None and busy.tokens == [1, 2, 3, 4, 5, 6]
    check_memory(cache, busy)
    partly = table.acquire([1, 2, 3, 8, 8], 10)
    assert partly is not None and partly.tokens == [1, 2, 3]
    check_memory(cache, partly)


def test_the_longest_of_several_prefixes_is_copied_in() -> None:
    table, cache = make()
    for tokens in ([1, 2], [1, 2, 3, 4, 5], [1, 2, 3]):
        table.remember_prefix(serve(table, cache, tokens))
    for slot in table._slots:
        table.forget(slot)
    slot = table.acquire([1, 2, 3, 4, 7], 10)
    assert slot is not None and slot.tokens == [1, 2, 3, 4]
    check_memory(cache, slot)


def test_a_slot_that_has_more_than_the_prefix_beats_it() -> None:
    table, cache = make()
    table.remember_prefix(serve(table, cache, [1, 2, 3]))
    longer = serve(table, cache, [1, 2, 3, 4, 5, 6])
    slot = table.acquire([1, 2, 3, 4, 5, 9], 10)
    assert slot is longer and slot.tokens == [1, 2, 3, 4, 5]
    check_memory(cache, slot)


def test_a_prefix_outlives_the_slot_it_came_from() -> None:
    table, cache = make(count=1)
    slot = serve(table, cache, [1, 2, 3, 4])
    table.remember_prefix(slot)
    serve(table, cache, [8, 8, 8, 8])
    again = table.acquire([1, 2, 3, 4, 5], 10)
    assert again is not None and again.tokens == [1, 2, 3, 4]
    check_memory(cache, again)


def test_no_slot_is_given_when_all_are_busy() -> None:
    table, _ = make(count=2)
    assert table.acquire([1], 5) and table.acquire([1], 5)
    assert table.acquire([1], 5) is None
    assert table.busy == 2


def test_no_slot_is_given_beyond_the_memory_promised() -> None:
    table, _ = make(count=4, kv_tokens=100)
    first = table.acquire([1], 60)
    assert first is not None
    assert table.acquire([2], 41) is None
    assert table.acquire([2], 40) is not None
    assert table.acquire([3], 1) is None
    table.release(first)
    assert table.acquire([3], 60) is not None


def test_the_whole_budget_can_go_to_one_request() -> None:
    table, cache = make(count=4, kv_tokens=100)
    for tokens in ([1] * 30, [2] * 30, [3] * 30):
        serve(table, cache, tokens)
    slot = table.acquire([4], 100)
    assert slot is not None
    table.check_integrity()
    assert sum(other.held for other in table._slots) == 100


def test_memories_used_longest_ago_are_given_up_first() -> None:
    table, cache = make(count=4, kv_tokens=100)
    slots = [serve(table, cache, [number] * 30) for number in (1, 2, 3)]
    assert table.acquire([4] * 5, 30) is not None
    assert [bool(slot.tokens) for slot in slots] == [False, True, True]


def test_a_memory_that_is_reused_is_the_last_to_be_given_up() -> None:
    table, cache = make(count=4, kv_tokens=100)
    oldest = serve(table, cache, [1] * 30)
    for number in (2, 3):
        serve(table, cache, [number] * 30)
    slot = table.acquire([1] * 30 + [5], 95)
    assert slot is oldest and len(slot.tokens) == 30
    check_memory(cache, slot)
    table.check_integrity()


def test_a_short_request_in_a_large_slot_leaves_room_for_others() -> None:
    """What the slot held before is not needed any more: others must not wait for it."""
    table, cache = make(count=2, kv_tokens=100)
    serve(table, cache, [1] * 90)
    short = table.acquire([1, 1, 5], 10)
    assert short is not None
    compute(cache, short, [1, 1, 5])
    other = table.acquire([7], 90)
    assert other is not None
    check_memory(cache, short)
    table.check_integrity()


def test_forgetting_a_slot_gives_its_memory_back() -> None:
    table, cache = make(count=3, kv_tokens=2000)
    tokens = [number % 50 for number in range(LENGTH)]
    slot, neighbour = serve(table, cache, tokens), serve(table, cache, [7] + tokens[1:])
    before = slot.held
    table.forget(slot)
    assert before == LENGTH and (slot.held, slot.tokens, slot.busy) == (0, [], False)
    page = 4096 // 4
    for layer in range(len(cache.key_rows)):
        for tensor in cache.read(layer, slot.index, LENGTH):
            assert int((tensor != 0).sum()) <= 2 * page
    check_memory(cache, neighbour)


@pytest.mark.parametrize("seed", range(8))
def test_the_budget_is_never_passed_and_memory_is_never_mixed_up(seed: int) -> None:
    """A random life of requests, some of which share beginnings, end early, or are forgotten."""
    rng = random.Random(seed)
    count, kv_tokens = rng.choice([(1, 60), (3, 90), (6, 200), (6, 1000)])
    table, cache = make(count, kv_tokens)
    stems = [[rng.randrange(4) for _ in range(rng.randint(1, 25))] for _ in range(4)]
    table.remember_prefix(serve(table, cache, stems[0]))
    running: list[tuple[Slot, list[int], int]] = []
    refused = served = 0
    for _ in range(250):
        if running and rng.random() < 0.5:
            slot, tokens, most = running.pop(rng.randrange(len(running)))
            more = tokens + [rng.randrange(4) for _ in range(rng.randint(0, most - len(tokens)))]
            compute(cache, slot, more)
            check_memory(cache, slot)
            (table.forget if rng.random() < 0.1 else table.release)(slot)
        else:
            tokens = rng.choice(stems)[: rng.randint(1, 25)] + [rng.randrange(4) for _ in range(rng.randint(1, 8))]
            most = len(tokens) + rng.randint(0, 20)
            if most > min(LENGTH, kv_tokens):
                continue
            slot_or_none = table.acquire(tokens, most)
            if slot_or_none is None:
                refused += 1
                promised = sum(slot.held for slot, _, _ in running)
                assert len(running) == count or promised + most > kv_tokens, "refused although there was room"
            else:
                served += 1
                check_memory(cache, slot_or_none)
                assert len(slot_or_none.tokens) < len(tokens)
                running.append((slot_or_none, tokens, most))
        table.check_integrity()
        assert table.busy == len(running)
        assert sum(slot.held for slot in table._slots) <= kv_tokens
    assert served > 50 and (refused or kv_tokens == 1000)


def test_what_one_adapter_has_computed_is_no_use_to_another_or_to_none() -> None:
    table, cache = make()

    def reused(adapter: str | None) -> int:
        slot = table.acquire([1, 2, 3, 4, 5, 6], 6, "me", adapter)
        assert slot is not None
        found = len(slot.tokens)
        check_memory(cache, slot)
        compute(cache, slot, [1, 2, 3, 4, 5, 6])
        table.release(slot)
        return found

    prefix = table.acquire([1, 2, 3], 3, adapter="a")
    assert prefix is not None
    compute(cache, prefix, [1, 2, 3])
    table.remember_prefix(prefix)
    table.release(prefix)
    assert [reused(name) for name in ("b", None, "a", "b", None, "a")] == [0, 0, 3, 5, 5, 5]
