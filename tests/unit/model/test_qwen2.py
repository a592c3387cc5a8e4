"""The fused forward pass gives the logits of transformers, however a sequence is cut and whoever is in the batch."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from qwen_allinone.model import linear
from qwen_allinone.model.attention import Chunk
from qwen_allinone.model.config import ModelConfig
from qwen_allinone.model.kv import KVCache
from qwen_allinone.model.linear import Kernels, Weights
from qwen_allinone.model.qwen2 import Qwen2
from qwen_allinone.model.weights import WeightReader
from tests.support.checkpoints import Shape, random_weights, write_checkpoint, write_weights

CONTEXT = 96
IDS = random.Random(0).choices(range(340), k=60)


def load(folder: Path, weights: Weights = "fp32", context: int = CONTEXT, kernels: Kernels = "auto") -> Qwen2:
    with WeightReader(folder) as reader:
        return Qwen2(ModelConfig.load(folder), reader, context, weights, kernels=kernels)


def last_logits(model: Qwen2, ids: Sequence[int], cuts: Sequence[int] = ()) -> Tensor:
    """Logits after the last of `ids`, computed in chunks that end at `cuts`."""
    cache = model.new_cache(1)
    bounds = [0, *cuts, len(ids)]
    for start, end in zip(bounds, bounds[1:], strict=False):
        hidden = model.forward([Chunk(0, start, ids[start:end])], cache)
    return model.logits(hidden)[0]


@pytest.mark.parametrize(
    "shape",
    [
        Shape(),
        Shape(kv_heads=4, tied=False, theta=1e6),
        Shape(kv_heads=1),
        Shape(hidden=48, inner=80, heads=3, kv_heads=3, layers=3, tied=False),
        Shape(qwen3=True, head_dim=32, theta=1e6),
        Shape(qwen3=True, kv_heads=4, tied=False),
    ],
    ids=["grouped, tied", "ungrouped, untied", "one key head", "odd sizes", "Qwen3, wide heads", "Qwen3, untied"],
)
def test_logits_are_those_of_transformers(tmp_path: Path, shape: Shape) -> None:
    from tests.support.reference import logits

    folder = write_checkpoint(tmp_path, shape, seed=5)
    expected = logits(folder, IDS)
    model = load(folder)
    for length in (1, 2, 17, 60):
        torch.testing.assert_close(last_logits(model, IDS[:length]), expected[length - 1], atol=2e-4, rtol=2e-4)


def test_a_qwen2_without_biases_is_one_whose_biases_are_zero(tmp_path: Path) -> None:
    without = write_checkpoint(tmp_path / "without", Shape(biases=False), seed=3)
    weights = random_weights(Shape(biases=False), 3)
    for name, size in (
        (n, w.shape[0])
        for n, w in list(weights.items())
        if n.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight"))
    ):
        weights[name.replace("weight", "bias")] = torch.zeros(size)
    zero = write_checkpoint(tmp_path / "zero")
    write_weights(zero, weights)
    assert torch.equal(last_logits(load(without), IDS), last_logits(load(zero), IDS))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_files_are_computed_in_fp32(tmp_path: Path, dtype: torch.dtype) -> None:
    from tests.support.reference import logits

    folder = write_checkpoint(tmp_path, dtype=dtype)
    torch.testing.assert_close(last_logits(load(folder), IDS), logits(folder, IDS)[-1], atol=2e-4, rtol=2e-4)


def test_a_sharded_checkpoint_gives_the_same_logits(tmp_path: Path, tiny_checkpoint: Path) -> None:
    sharded = write_checkpoint(tmp_path, shards=3)
    assert torch.equal(last_logits(load(sharded), IDS), last_logits(load(tiny_checkpoint), IDS))


@pytest.mark.parametrize("cuts", [[1], [59], [30], [7, 8, 9, 40], list(range(1, 60)), [16, 32, 48]])
def test_a_prompt_in_chunks_gives_the_logits_of_a_prompt_at_once(tiny_checkpoint: Path, cuts: list[int]) -> None:
    model = load(tiny_checkpoint)
    torch.testing.assert_close(last_logits(model, IDS, cuts), last_logits(model, IDS), atol=1e-4, rtol=1e-4)


def test_every_request_of_a_mixed_batch_gets_what_it_gets_alone(tiny_checkpoint: Path) -> None:
    """Decode steps, first chunks and later chunks of different lengths, in slots that are not in order."""
    rng = random.Random(1)
    model = load(tiny_checkpoint)
    for _ in range(8):
        sequences = {slot: [rng.randrange(340) for _ in range(rng.randint(2, 60))] for slot in rng.sample(range(9), 6)}
        cache = model.new_cache(9)
        chunks = []
        for number, (slot, ids) in enumerate(sequences.items()):
            start = len(ids) - 1 if number % 2 else rng.randrange(len(ids))
            if start:
                model.forward([Chunk(slot, 0, ids[:start])], cache)
            chunks.append(Chunk(slot, start, ids[start:]))
        together = model.logits(model.forward(chunks, cache))
        for row, ids in zip(together, sequences.values(), strict=True):
            torch.testing.assert_close(row, last_logits(model, ids), atol=1e-4, rtol=1e-4)


def test_what_a_slot_held_before_does_not_matter(tiny_checkpoint: Path) -> None:
    """A shorter sequence in a slot whose tail still holds an older one, beside a longer one."""
    model = load(tiny_checkpoint)
    cache = model.new_cache(3)
    older = [7] * 80
    for slot in range(3):
        model.forward([Chunk(slot, 0, older)], cache)
    short, long = IDS[:5], IDS[5:55]
    model.forward([Chunk(0, 0, short[:-1]), Chunk(2, 0, long[:-1])], cache)
    decoded = model.logits(model.forward([Chunk(0, 4, short[-1:]), Chunk(2, 49, long[-1:])], cache))
    torch.testing.assert_close(decoded[0], last_logits(model, short), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(decoded[1], last_logits(model, long), atol=1e-4, rtol=1e-4)


def test_a_step_leaves_the_other_slots_as_they_are(tiny_checkpoint: Path) -> None:
    model = load(tiny_checkpoint)
    cache = model.new_cache(4)
    for slot in range(4):
        model.forward([Chunk(slot, 0, IDS[slot : slot + 20])], cache)
    before = {slot: cache.copy_out(slot, CONTEXT) for slot in (1, 2)}
    model.forward([Chunk(0, 20, [5]), Chunk(3, 20, [6])], cache)
    for slot, saved in before.items():
        for (old_k, old_v), (new_k, new_v) in zip(saved, cache.copy_out(slot, CONTEXT), strict=True):
            assert torch.equal(old_k, new_k) and torch.equal(old_v, new_v)


def test_the_last_position_of_the_context_can_be_computed(tiny_checkpoint: Path) -> None:
    from tests.support.reference import logits

    ids = (IDS + IDS)[:CONTEXT]
    expected = logits(tiny_checkpoint, ids)[-1]
    model = load(tiny_checkpoint)
    torch.testing.assert_close(last_logits(model, ids, [CONTEXT - 1]), expected, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("fixture", ["tiny_checkpoint", "untied_checkpoint"])
def test_logits_of_some_tokens_are_those_rows_of_all(fixture: str, request: pytest.FixtureRequest) -> None:
    model = load(request.getfixturevalue(fixture))
    hidden = model.forward([Chunk(0, 0, IDS), Chunk(1, 0, IDS[:9])], model.new_cache(2))
    ids = (300, 2, 2, 41)
    torch.testing.assert_close(model.logits_of(hidden, ids), model.logits(hidden)[:, list(ids)], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        model.logits_of(hidden[1], ids), model.logits(hidden)[1, list(ids)], atol=1e-4, rtol=1e-4
    )


def test_half_size_weights_change_logits_by_less_than_a_thousandth(tmp_path: Path) -> None:
    """On weights that fp16 holds exactly; the arithmetic is FP32 either way."""
    folder = write_checkpoint(tmp_path)
    exact = {name: tensor.half().float() for name, tensor in random_weights(Shape(), seed=0).items()}
    write_weights(folder, exact)
    full, half = load(folder, kernels="torch"), load(folder, "fp16", kernels="torch")
    if half.kernel != "fbgemm-fp16":
        pytest.skip("this CPU has no FBGEMM")
    torch.testing.assert_close(last_logits(half, IDS, [20]), last_logits(full, IDS, [20]), atol=1e-3, rtol=0)


def test_a_cpu_without_packed_kernels_gives_the_same_logits(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = last_logits(load(tiny_checkpoint, kernels="torch"), IDS)
    monkeypatch.setattr(linear, "_works", lambda kernel: kernel is linear.DenseLinear)
    plain = load(tiny_checkpoint, kernels="torch")
    assert plain.kernel == "dense"
    torch.testing.assert_close(last_logits(plain, IDS), packed, atol=1e-4, rtol=1e-4)


def test_a_cache_holds_what_the_model_asks_for(tiny_checkpoint: Path) -> None:
    model = load(tiny_checkpoint)
    cache = model.new_cache(3)
    assert isinstance(cache, KVCache)
    model.forward([Chunk(2, 0, IDS)], cache)
    keys, values = cache.read(1, 2, len(IDS))
    assert keys.shape == values.shape == (2, len(IDS), 16)
    assert len(cache.key_rows) == len(cache.value_rows) == 2


def test_a_saved_beginning_gives_the_same_logits_in_another_slot(tiny_checkpoint: Path) -> None:
    model = load(tiny_checkpoint)
    cache = model.new_cache(2)
    model.forward([Chunk(0, 0, IDS[:40])], cache)
    cache.copy_in(1, cache.copy_out(0, 40), 25)
    hidden = model.forward([Chunk(1, 25, IDS[25:])], cache)
    torch.testing.assert_close(model.logits(hidden)[0], last_logits(model, IDS), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("folder", ["tiny_checkpoint", "untied_checkpoint"])
def test_ids_that_the_tokenizer_lacks_are_never_likely(folder: str, request: pytest.FixtureRequest) -> None:
    """Vocabularies are padded: Qwen2.5's has 151,936 rows for 151,665 tokens."""
    path = request.getfixturevalue(folder)
    config = ModelConfig.load(path)
    known = set(range(config.vocab_size - 30)) - {3, 17}
    with WeightReader(path) as reader:
        whole, cut = Qwen2(config, reader, context=64), Qwen2(config, reader, context=64, token_ids=known)
    ids = [1, 5, 9]
    logits = whole.logits(whole.forward([Chunk(0, 0, ids)], whole.new_cache(1)))[0]
    found = cut.logits(cut.forward([Chunk(0, 0, ids)], cut.new_cache(1)))[0]
    assert len(found) == max(known) + 1
    assert torch.isneginf(found[[3, 17]]).all()
    torch.testing.assert_close(found[sorted(known)], logits[sorted(known)], atol=1e-4, rtol=1e-4)
