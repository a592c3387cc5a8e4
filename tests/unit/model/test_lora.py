"""Adapters: as if they had been merged into the weights, alone and among others; what does not suit is refused."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from qwen_allinone.errors import TaskFileError
from qwen_allinone.model.attention import Chunk
from qwen_allinone.model.config import ModelConfig
from qwen_allinone.model.linear import Weights
from qwen_allinone.model.lora import load_adapter
from qwen_allinone.model.native.library import library
from qwen_allinone.model.qwen2 import Qwen2
from qwen_allinone.model.weights import WeightReader
from qwen_allinone.tasks.adapter_files import load_adapter_files
from tests.support.adapters import write_adapter, write_merged
from tests.support.checkpoints import Shape, write_checkpoint

NATIVE = Shape(hidden=128, heads=2, kv_heads=1)  # what native kernels compute
IDS = random.Random(1).choices(range(340), k=40)


def load(checkpoint: Path, adapters: Sequence[Path] = (), weights: Weights = "fp32") -> Qwen2:
    """The model, with adapters under the names of their folders."""
    config = ModelConfig.load(checkpoint)
    with WeightReader(checkpoint) as reader:
        model = Qwen2(config, reader, 64, weights)
    for folder in adapters:
        files = load_adapter_files(folder)
        assert files is not None
        model.adapt(folder.name, load_adapter(files, config, "abc", [checkpoint.name]))
    return model


def alone(model: Qwen2, ids: Sequence[int], adapter: str | None = None) -> Tensor:
    """Logits after `ids`, of which the last comes in a step of its own."""
    cache = model.new_cache(1)
    model.forward([Chunk(0, 0, ids[:-1], adapter=adapter)], cache)
    return model.logits(model.forward([Chunk(0, len(ids) - 1, ids[-1:], adapter=adapter)], cache))[0]


@pytest.mark.parametrize(
    ("shape", "settings"),
    [
        (Shape(), {}),
        (Shape(qwen3=True, head_dim=32, layers=3), {"use_rslora": True, "layers": [0, 2]}),
        (NATIVE, {"targets": ["k_proj", "v_proj", "up_proj"], "rank": 8}),
    ],
    ids=["all projections", "Qwen3, some layers, rank-stabilised", "native kernels, some projections"],
)
def test_an_adapter_is_as_good_as_merged_weights(tmp_path: Path, shape: Shape, settings: dict[str, object]) -> None:
    base = write_checkpoint(tmp_path / "base", shape, dtype=torch.bfloat16 if shape is NATIVE else torch.float32)
    adapter = write_adapter(tmp_path / "a", base, **settings)  # type: ignore[arg-type]
    model, merged = load(base, [adapter]), load(write_merged(tmp_path / "merged", base, adapter))
    assert (model._native_layers is not None) == (shape is NATIVE and library() is not None)
    torch.testing.assert_close(alone(model, IDS, "a"), alone(merged, IDS), atol=1e-4, rtol=1e-4)
    assert torch.equal(alone(model, IDS), alone(load(base), IDS)), "others are computed as before"
    assert float((alone(model, IDS, "a") - alone(model, IDS)).abs().max()) > 0.1


def test_sixteen_requests_of_two_adapters_and_none_share_each_step(tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "base")
    adapters = [write_adapter(tmp_path / name, base, rank=rank, seed=rank) for name, rank in (("a", 2), ("b", 5))]
    model = load(base, adapters)
    of = {None: load(base)} | {a.name: load(write_merged(tmp_path / f"m{a.name}", base, a)) for a in adapters}
    chooser = random.Random(2)
    names = [chooser.choice(["a", "b", None]) for _ in range(16)]
    texts = [chooser.choices(range(340), k=chooser.randint(2, 40)) for _ in names]
    cache = model.new_cache(16)
    # Half of them are a token behind, so that prompts and single tokens meet.
    first = [Chunk(slot, 0, ids[:-1], adapter=name) for slot, (ids, name) in enumerate(zip(texts, names, strict=True))]
    model.forward(first[:8], cache)
    rest = [Chunk(slot, len(texts[slot]) - 1, texts[slot][-1:], adapter=names[slot]) for slot in range(8)]
    rest += [Chunk(slot, 0, texts[slot], adapter=names[slot]) for slot in range(8, 16)]
    chooser.shuffle(rest)
    logits = model.logits(model.forward(rest, cache))
    for chunk, row in zip(rest, logits, strict=True):
        torch.testing.assert_close(row, alone(of[chunk.adapter], texts[chunk.slot]), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("weights", ["fp16", "int8"])
def test_an_adapter_stays_exact_on_weights_that_are_not(tmp_path: Path, weights: Weights) -> None:
    """Its own part is FP32: what it changes is what it changes on FP32 weights, but for what they lose."""
    base = write_checkpoint(tmp_path / "base", NATIVE, dtype=torch.bfloat16)
    adapter = write_adapter(tmp_path / "a", base, seed=3)
    exact, rough = load(base, [adapter]), load(base, [adapter], weights)
    lost = float((alone(rough, IDS) - alone(exact, IDS)).norm() / alone(exact, IDS).norm())
    found = float((alone(rough, IDS, "a") - alone(exact, IDS, "a")).norm() / alone(exact, IDS, "a").norm())
    assert found < 3 * lost + 1e-5


Change = Callable[[Path], object]


def config(**changes: object) -> Change:
    def change(folder: Path) -> None:
        file = folder / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | changes), "utf-8")

    return change


def tensors(change: Callable[[dict[str, Tensor]], object]) -> Change:
    def apply(folder: Path) -> None:
        file = folder / "adapter_model.safetensors"
        found = {name: tensor.clone() for name, tensor in load_file(file).items()}
        change(found)
        save_file(found, file)

    return apply


QUERY = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (config(base_model_name_or_path="Qwen/Qwen2.5-0.5B"), "trained on 'Qwen/Qwen2.5-0.5B'"),
        (config(r=4), "rank 4 on this model makes"),
        (config(r=0), "r: "),
        (config(r=True), "r: "),
        (config(lora_alpha="NaN"), "lora_alpha"),
        (config(use_dora=True), "use_dora: is not supported"),
        (config(bias="all"), "bias"),
        (config(init_lora_weights="pissa"), "init_lora_weights: is not supported"),
        (config(peft_type="IA3"), "peft_type"),
        (lambda f: (f / "adapter_config.json").write_text("[" * 99_999), "cannot be read"),
        (lambda f: (f / "adapter_config.json").unlink(), "is missing"),
        (lambda f: (f / "adapter_model.safetensors").unlink(), "is missing"),
        (lambda f: (f / "adapter_model.safetensors").write_bytes(b"\xff" * 64), "no whole safetensors"),
        (lambda f: (f / "adapter_model.safetensors").write_bytes(b""), "no whole safetensors"),
        (lambda f: (f / "adapter_model.bin").write_bytes(b"\x80\x04"), "is a pickle"),
        (tensors(lambda t: t[QUERY].fill_(float("nan"))), "not finite"),
        (tensors(lambda t: t.pop(QUERY)), "half of its matrices"),
        (tensors(dict.clear), "holds no tensor"),
        (tensors(lambda t: t.update({QUERY: t[QUERY].int()})), "holds torch.int32"),
        (tensors(lambda t: t.update({QUERY: torch.ones(3, 5)})), "makes [3, 64]"),
        (tensors(lambda t: t.update({QUERY.replace("layers.0", "layers.9"): torch.ones(3, 64)})), "half of"),
        (
            tensors(lambda t: t.update({"base_model.model.lm_head.lora_A.weight": torch.ones(3, 64)})),
            "module that is not supported",
        ),
    ],
)
def test_what_does_not_suit_is_refused_with_a_sentence(tmp_path: Path, change: Change, told: str) -> None:
    base = write_checkpoint(tmp_path / "base")
    adapter = write_adapter(tmp_path / "a", base)
    load(base, [adapter])
    change(adapter)
    with pytest.raises(TaskFileError) as raised:
        load(base, [adapter])
    assert told in str(raised.value) and "\n" not in str(raised.value)


def test_one_that_was_cut_short_or_changed_meanwhile_is_refused(tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "base")
    adapter = write_adapter(tmp_path / "a", base)
    files = load_adapter_files(adapter)
    assert files is not None
    write_adapter(adapter, base, seed=9)
    with pytest.raises(TaskFileError, match="has changed since"):
        load_adapter(files, ModelConfig.load(base), "abc", ["base"])
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(TaskFileError, match="cannot be read"):
        load(base, [adapter])


def test_a_tuned_adapter_knows_its_checkpoint_whatever_that_is_called(tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "base")
    load(base, [write_adapter(tmp_path / "a", base, metadata={"base_fingerprint": "abc"}, base_model_name_or_path="x")])
    with pytest.raises(TaskFileError, match="tuned on another checkpoint"):
        load(base, [write_adapter(tmp_path / "b", base, metadata={"base_fingerprint": "abd"})])
