"""The native kernels give the numbers of torch's, on every instruction set that this processor has."""

from __future__ import annotations

import logging
import platform
import runpy
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from qwen_allinone.model import linear
from qwen_allinone.model.attention import Chunk, Tree
from qwen_allinone.model.config import ModelConfig
from qwen_allinone.model.kv import KVCache
from qwen_allinone.model.linear import Linears, Weights
from qwen_allinone.model.lora import Adapter, LowRank, Update, load_adapter
from qwen_allinone.model.native import library as native
from qwen_allinone.model.native.layers import NativeLayers
from qwen_allinone.model.native.library import Library
from qwen_allinone.model.native.linears import NativeExact, NativeInt8
from qwen_allinone.model.qwen2 import KeptAs, Qwen2
from qwen_allinone.model.weights import WeightReader
from qwen_allinone.tasks.adapter_files import MOST_RANK, load_adapter_files
from tests.support.adapters import write_adapter, write_merged
from tests.support.checkpoints import Shape, random_weights, write_checkpoint, write_weights

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.skipif(not native.FILE.exists(), reason="the native library is not built on this machine")

ISAS = native.isas() if native.FILE.exists() else []
SHAPES = [
    Shape(hidden=256, heads=4, kv_heads=2),
    Shape(hidden=128, heads=2, kv_heads=2, tied=False, biases=False),
    Shape(hidden=64, heads=3, kv_heads=1, head_dim=128, qwen3=True),
]


@pytest.fixture(params=ISAS)
def lib(request: pytest.FixtureRequest) -> Library:
    try:
        return Library(isa=request.param)
    except OSError as error:
        pytest.skip(str(error))


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("rows", [1, 2, 3, 6, 7, 14, 15, 16, 33])
@pytest.mark.parametrize(("inner", "outer"), [(64, 96), (33, 7), (1, 1), (1024, 100)])
def test_a_product_is_the_plain_one_and_the_same_alone(lib: Library, rows: int, inner: int, outer: int) -> None:
    weight, bias, x = random(outer, inner).bfloat16(), random(outer, seed=1), random(rows, inner, seed=2)
    wanted = F.linear(x.double(), weight.double(), bias.double()).float()
    exact, int8 = NativeExact(weight, bias, lib), NativeInt8(weight, bias, lib)
    torch.testing.assert_close(exact(x), wanted, atol=2e-4, rtol=1e-5)
    assert (int8(x) - wanted).norm() < 0.03 * wanted.norm()
    for kernel in (exact, int8):
        assert torch.equal(torch.cat([kernel(row) for row in x.split(1)]), kernel(x))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_number_that_is_none_stays_one_and_in_its_row(lib: Library, bad: float) -> None:
    weight, x = random(40, 64).bfloat16(), random(3, 64)
    x[1, 5] = bad
    for kernel in (NativeExact(weight, None, lib), NativeInt8(weight, None, lib)):
        finite = kernel(x).isfinite()
        assert not finite[1].any()
        assert finite[0].all() and finite[2].all()


@pytest.mark.parametrize("weights", ["fp32", "int8"])
@pytest.mark.parametrize("shape", SHAPES, ids=["grouped", "ungrouped, untied", "Qwen3"])
def test_a_step_is_that_of_torchs_operators_between_native_linears(
    lib: Library, tmp_path: Path, shape: Shape, weights: Weights
) -> None:
    model, native_layers = _with_native_layers(tmp_path, shape, weights, lib)
    lengths = [1, 31, 32, 70]
    chunks = [Chunk(slot, length, [7 * slot]) for slot, length in enumerate(lengths)]
    outs = []
    for own in (None, native_layers):
        cache = model.new_cache(5)
        model._native_layers = None
        model.forward([Chunk(slot, 0, list(range(length))) for slot, length in enumerate(lengths)], cache)
        model._native_layers = own
        outs.append(model.forward(chunks, cache))
        keys, values = cache.read(1, 3, 71)  # the new token's are the last
        outs += [keys[:, -1], values[:, -1]]
    bound = {"atol": 1e-4, "rtol": 1e-4} if weights == "fp32" else {"atol": 0.1, "rtol": 0.05}
    for wanted, got in zip(outs[:3], outs[3:], strict=True):
        torch.testing.assert_close(got, wanted, **bound)


@pytest.mark.parametrize("weights", ["fp32", "int8"])
def test_a_sequence_has_the_same_bits_alone_and_in_a_batch(lib: Library, tmp_path: Path, weights: Weights) -> None:
    model, _ = _with_native_layers(tmp_path, SHAPES[0], weights, lib)
    cache = model.new_cache(16)
    model.forward([Chunk(slot, 0, list(range(20 + slot))) for slot in range(16)], cache)
    chunks = [Chunk(slot, 20 + slot, [slot]) for slot in range(16)]
    alone = model.forward(chunks[5:6], cache)
    for count in (6, 8, 15, 16):
        assert torch.equal(model.forward(chunks[:count], cache)[5:6], alone)


def test_prompts_trees_and_single_tokens_go_through_one_step(lib: Library, tmp_path: Path) -> None:
    model, native_layers = _with_native_layers(tmp_path, SHAPES[0], "fp32", lib)
    visible = torch.ones(4, 39, dtype=torch.bool)
    visible[1, 36], visible[2, 36:38] = False, False  # rows 1 and 2 begin anew behind the text
    tree = Tree([35, 35, 35, 36], visible, [0, 2, 3])
    chunks = [Chunk(0, 12, [5, 6, 7]), Chunk(1, 35, [1, 2, 3, 4], tree), Chunk(2, 3, [9]), Chunk(3, 0, list(range(40)))]
    outs = []
    for layers in (None, native_layers):
        model._native_layers = layers
        cache = model.new_cache(4)
        for slot, length in ((0, 12), (1, 35), (2, 3)):
            model.forward([Chunk(slot, 0, list(range(length)))], cache)
        outs.append(model.forward(chunks, cache))
    torch.testing.assert_close(outs[1], outs[0], atol=1e-4, rtol=1e-4)


def test_a_prompt_has_the_same_bits_however_it_is_cut(lib: Library, tmp_path: Path) -> None:
    model, _ = _with_native_layers(tmp_path, SHAPES[0], "fp32", lib)
    ids = list(range(90))
    outs = []
    for cuts in ([90], [1, 90], [33, 64, 89, 90], [*range(1, 91)]):
        cache, start = model.new_cache(1), 0
        for end in cuts:
            out = model.forward([Chunk(0, start, ids[start:end])], cache)
            start = end
        outs.append(out)
    assert all(torch.equal(out, outs[0]) for out in outs)


@pytest.mark.parametrize("weights", ["fp32", "int8"])
def test_keys_and_values_of_half_size_stay_near(lib: Library, tmp_path: Path, weights: Weights) -> None:
    outs = []
    for kv in ("fp32", "fp16"):
        model, _ = _with_native_layers(tmp_path, SHAPES[0], weights, lib, kv)
        cache = model.new_cache(1)
        model.forward([Chunk(0, 0, list(range(50)))], cache)
        outs.append(model.logits(model.forward([Chunk(0, 50, [3])], cache)))
        assert model.kv_bytes_per_token == {"fp32": 4, "fp16": 2}[kv] * 2 * 2 * 2 * 64  # sides, layers, heads, numbers
    assert 0 < (outs[0] - outs[1]).norm() < 0.02 * outs[0].norm()


@pytest.mark.parametrize(("weights", "kept"), [("fp32", torch.float32), ("int8", torch.float16)])
def test_keys_and_values_are_approximate_where_the_weights_are(
    lib: Library, tmp_path: Path, weights: Weights, kept: torch.dtype
) -> None:
    cache = _with_native_layers(tmp_path, SHAPES[0], weights, lib, "auto")[0].new_cache(1)
    assert {cache.key_rows[0].dtype, cache.value_rows[0].dtype} == {kept}


def test_half_size_keys_take_native_kernels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_checkpoint(tmp_path)
    with WeightReader(tmp_path) as reader:
        model = Qwen2(ModelConfig.load(tmp_path), reader, 64, "fp32", None, "torch", "fp16")
    assert "keys are kept as FP32" in caplog.text
    assert model.new_cache(1).key_rows[0].dtype == torch.float32


@pytest.mark.parametrize(
    "chunk",
    [
        Chunk(2, 0, [1]),
        Chunk(-1, 0, [1]),
        Chunk(0, -1, [1]),
        Chunk(0, 96, [1]),
        Chunk(0, 90, [1] * 7),
        Chunk(0, 3, [1], Tree([96], torch.ones(1, 4, dtype=torch.bool), [0])),
        Chunk(0, 3, [1], Tree([3], torch.ones(1, 3, dtype=torch.bool), [0])),
        Chunk(0, 3, [1], Tree([3], torch.ones(1, 4), [0])),
    ],
    ids=["slot", "negative slot", "negative index", "index", "end", "position", "short mask", "mask of floats"],
)
def test_what_lies_outside_of_the_cache_is_refused(tmp_path: Path, chunk: Chunk) -> None:
    model, layers = _with_native_layers(tmp_path, SHAPES[0], "fp32", Library())
    with pytest.raises(ValueError, match="outside of the c|mask"):
        layers(torch.zeros(len(chunk.tokens), 256), [chunk], model.new_cache(2))
    with pytest.raises(ValueError, match="1 tokens for 2 rows"):
        layers(torch.zeros(2, 256), [Chunk(0, 0, [1])], model.new_cache(2))
    with pytest.raises(ValueError, match="another model"):
        layers(torch.zeros(1, 256), [Chunk(0, 0, [1])], KVCache(2, 1, 1, 96, 64))


ADAPTERS: dict[str, dict[str, Any]] = {
    "all": {"rank": 3},
    "wide": {"rank": 17, "targets": ["v_proj", "up_proj"], "seed": 1},
    "largest": {"rank": MOST_RANK, "lora_alpha": 16, "targets": ["q_proj", "down_proj"], "layers": [1], "seed": 2},
    "attention": {"rank": 8, "targets": ["q_proj", "k_proj", "o_proj"], "layers": [0], "seed": 3},
}
WHOSE = [None, *ADAPTERS, "all", None, "wide", "all"]


def _adapted(folder: Path, shape: Shape, weights: Weights, lib: Library, kv: KeptAs = "fp32") -> Qwen2:
    """The model with all `ADAPTERS`."""
    model, _ = _with_native_layers(folder, shape, weights, lib, kv)
    for name, settings in ADAPTERS.items():
        files = load_adapter_files(write_adapter(folder.parent / f"{folder.name}-{name}", folder, **settings))
        assert files is not None
        model.adapt(name, load_adapter(files, model.config, "abc", [folder.name]))
    return model


def _prompts_and_decoding(model: Qwen2) -> tuple[KVCache, list[Chunk]]:
    """A cache, and chunks of 2 to 40 tokens, of which every other one's last comes alone; one and none have adapters."""
    cache, texts = model.new_cache(len(WHOSE)), [list(range(5, 7 + 4 * slot)) for slot in range(len(WHOSE))]
    whole = [Chunk(slot, 0, text, adapter=WHOSE[slot]) for slot, text in enumerate(texts)]
    model.forward([Chunk(c.slot, 0, c.tokens[:-1], adapter=c.adapter) for c in whole[::2]], cache)
    for c in whole[::2]:
        whole[c.slot] = Chunk(c.slot, c.end - 1, c.tokens[-1:], adapter=c.adapter)
    return cache, whole


@pytest.mark.parametrize("shape", SHAPES, ids=["grouped", "ungrouped, untied", "Qwen3"])
def test_rows_of_a_step_are_computed_with_their_adapters_as_with_merged_weights(
    lib: Library, tmp_path: Path, shape: Shape
) -> None:
    model = _adapted(tmp_path / "base", shape, "fp32", lib)
    cache, chunks = _prompts_and_decoding(model)
    logits = model.logits(model.forward(chunks, cache))
    for name in (None, *ADAPTERS):
        folder = tmp_path / "base"
        if name is not None:
            folder = write_merged(tmp_path / f"merged-{name}", folder, tmp_path / f"base-{name}")
        with WeightReader(folder) as reader:
            merged = Qwen2(ModelConfig.load(folder), reader, 96, "fp32", kernels="torch")
        for chunk, row in zip(chunks, logits, strict=True):
            if chunk.adapter == name:
                text = Chunk(0, 0, list(range(5, 7 + 4 * chunk.slot)))
                wanted = merged.logits(merged.forward([text], merged.new_cache(1)))[0]
                torch.testing.assert_close(row, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("weights", ["fp32", "int8"])
def test_a_row_with_an_adapter_has_the_same_bits_alone_and_among_others(
    lib: Library, tmp_path: Path, weights: Weights
) -> None:
    model = _adapted(tmp_path / "base", SHAPES[0], weights, lib)
    cache, chunks = _prompts_and_decoding(model)
    together = model.forward(chunks, cache)
    for chunk, row in zip(chunks, together, strict=True):
        assert torch.equal(model.forward([chunk], cache)[0], row)
    bare = model.forward([Chunk(c.slot, c.start, c.tokens) for c in chunks], cache)
    assert [torch.equal(*rows) for rows in zip(bare, together, strict=True)] == [name is None for name in WHOSE]


def test_adapters_go_with_keys_of_half_size(tmp_path: Path) -> None:
    outs = []
    for kv in ("fp32", "fp16"):
        model = _adapted(tmp_path / kv, SHAPES[0], "fp32", Library(), kv)
        cache, chunks = _prompts_and_decoding(model)
        outs.append(model.forward(chunks, cache))
    assert 0 < (outs[0] - outs[1]).norm() < 0.02 * outs[0].norm()


def _update(outputs: int, inputs: int, begin: int = 0, rank: int = 2) -> Update:
    return Update(256, (LowRank(begin, torch.ones(rank, inputs), torch.ones(outputs, rank)),))


@pytest.mark.parametrize(
    ("place", "update"),
    [
        ((0, "out"), _update(256, 255)),
        ((0, "out"), _update(288, 256)),
        ((0, "out"), _update(64, 256, begin=224)),
        ((0, "out"), _update(32, 256, begin=-32)),
        ((0, "out"), _update(32, 256, begin=16)),
        ((0, "out"), _update(40, 256)),
        ((0, "out"), _update(0, 256)),
        ((0, "out"), _update(32, 256, rank=0)),
        ((0, "out"), Update(256, ())),
        ((0, "out"), Update(256, (LowRank(0, torch.ones(3, 256), torch.ones(32, 2)),))),
        ((0, "out"), Update(256, _update(32, 256).parts * 4)),
        ((0, "head"), _update(32, 256)),
        ((2, "out"), _update(32, 256)),
        ((-1, "out"), _update(32, 256)),
    ],
)
def test_an_adapter_that_does_not_go_with_the_linears_is_refused(
    tmp_path: Path, place: tuple[int, Any], update: Update
) -> None:
    _, layers = _with_native_layers(tmp_path, SHAPES[0], "fp32", Library())
    layers.adapt("fits", Adapter({(0, "out"): _update(256, 256)}, 2))
    with pytest.raises(ValueError, match="an update|an adapter for"):
        layers.adapt("does not", Adapter({place: update}, 2))


def test_an_adapter_that_is_not_there_is_refused(tmp_path: Path) -> None:
    model, layers = _with_native_layers(tmp_path, SHAPES[0], "fp32", Library())
    with pytest.raises(ValueError, match="no adapter 'a'"):
        layers(torch.zeros(1, 256), [Chunk(0, 0, [1], adapter="a")], model.new_cache(1))


def test_a_library_of_other_sources_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "INTERFACE", native.INTERFACE + 1)
    with pytest.raises(OSError, match="built from other sources"):
        Library()


def test_without_the_library_torchs_kernels_serve(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def none(*_: object) -> None:
        raise OSError("libqaio.so: no such file")

    native.library.cache_clear()
    monkeypatch.setattr(native, "Library", none)
    try:
        linears = Linears("fp32")
        linears.make(random(16, 8).bfloat16())
    finally:
        native.library.cache_clear()
    assert "native" not in linears.names
    assert "no native kernels, torch's are used: libqaio.so" in caplog.text


def test_a_library_with_wrong_numbers_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(NativeExact, "__call__", lambda self, x: torch.zeros(x.shape[0], self.c.n))
    with caplog.at_level(logging.WARNING):
        assert linear._native("fp32") is None
    assert "native-exact fails here" in caplog.text


def test_weights_that_bf16_does_not_hold_are_left_to_torch() -> None:
    linears = Linears("fp32")
    linears.make(random(16, 8).bfloat16())
    assert linears.names == "native-exact"
    linears.make(random(16, 8))
    assert linears.names != "native-exact"


def test_the_checks_pass_under_the_sanitizers(tmp_path: Path) -> None:
    if platform.machine() != "x86_64":
        pytest.skip("the sanitizers are asked for on x86-64 only")
    sanitize = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-O1")
    try:
        runpy.run_path(str(ROOT / "native/build.py"))["build"](tmp_path / "check", *sanitize, check=True)
    except RuntimeError as error:
        pytest.skip(f"no compiler with sanitizers here: {error}")
    done = subprocess.run([tmp_path / "check", "15"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _with_native_layers(
    folder: Path, shape: Shape, weights: Weights, lib: Library, kv: KeptAs = "fp32"
) -> tuple[Qwen2, NativeLayers]:
    """A model that is computed by `lib`."""
    write_checkpoint(folder, shape)
    write_weights(folder, {name: tensor.bfloat16() for name, tensor in random_weights(shape, seed=3).items()})
    with pytest.MonkeyPatch.context() as patch, WeightReader(folder) as reader:
        patch.setattr("qwen_allinone.model.native.linears.library", lambda: lib)
        patch.setattr("qwen_allinone.model.qwen2.library", lambda: lib)
        patch.setattr(linear, "library", lambda: lib)
        patch.setattr(lib, "has_fast_int8", True)
        model = Qwen2(ModelConfig.load(folder), reader, 96, weights, kv=kv)
    assert model._native_layers is not None
    return model, model._native_layers
