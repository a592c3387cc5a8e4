"""Packed weights in a file: the same numbers, one copy for all, and nothing lost where the file is bad or cannot be."""

from __future__ import annotations

import multiprocessing
import resource
from pathlib import Path

import pytest
import torch

from qwen_allinone.model import checkpoint
from qwen_allinone.model.attention import Chunk
from qwen_allinone.model.native import library as native
from qwen_allinone.model.qwen2 import Qwen2
from tests.support.checkpoints import Shape, random_weights, write_checkpoint, write_weights

pytestmark = pytest.mark.skipif(native.library() is None, reason="there are no native kernels for this machine")
SHAPE = Shape(hidden=256, heads=4, kv_heads=2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = write_checkpoint(tmp_path / "model", SHAPE)
    write_weights(folder, {name: tensor.bfloat16() for name, tensor in random_weights(SHAPE, seed=3).items()})
    return folder


def load(folder: Path, packed: Path | None, weights: str = "fp32") -> Qwen2:
    return checkpoint.load(str(folder), "main", weights, 96, packed=packed).model  # type: ignore[arg-type]


def logits(model: Qwen2) -> torch.Tensor:
    return model.logits(model.forward([Chunk(0, 0, list(range(40)))], model.new_cache(1)))


def is_mapped(file: Path) -> bool:
    return str(file) in Path("/proc/self/maps").read_text(encoding="utf-8")


@pytest.mark.parametrize("weights", ["fp32", "int8"])
def test_a_model_from_the_file_gives_the_same_bits(folder: Path, tmp_path: Path, weights: str) -> None:
    lib = native.library()
    if weights == "int8" and not (lib and lib.has_fast_int8):
        pytest.skip("torch's INT8 kernel serves on this processor, and its weights are kept in no file")
    wanted = logits(load(folder, None, weights))
    first = load(folder, tmp_path / "packed", weights)
    (file,) = (tmp_path / "packed").iterdir()
    written = file.stat().st_mtime_ns
    second = load(folder, tmp_path / "packed", weights)
    assert is_mapped(file)
    assert file.stat().st_mtime_ns == written
    for model in (first, second):
        assert torch.equal(logits(model), wanted)
        assert model.kernel.startswith("native")


@pytest.mark.parametrize("damage", ["cut", "empty", "no header", "another version", "longer"])
def test_a_damaged_file_is_written_anew(
    folder: Path, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = logits(load(folder, tmp_path / "packed"))
    (file,) = (tmp_path / "packed").iterdir()
    whole = file.read_bytes()
    file.unlink()  # the model above has it mapped
    broken = {
        "cut": whole[:-1],
        "empty": b"",
        "no header": bytes(len(whole)),
        "another version": whole.replace(b'"format": 1', b'"format": 0', 1),
        "longer": whole + b"0",
    }
    file.write_bytes(broken[damage])
    assert torch.equal(logits(load(folder, tmp_path / "packed")), wanted)
    assert "will be written anew" in caplog.text
    assert file.read_bytes() == whole


def test_where_it_cannot_be_written_the_model_loads_without(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = logits(load(folder, None))
    (tmp_path / "file").write_text("")
    assert torch.equal(logits(load(folder, tmp_path / "file")), wanted)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # what a full disk looks like
    try:
        model = load(folder, tmp_path / "packed")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert torch.equal(logits(model), wanted)
    assert caplog.text.count("packed weights are not kept") == 2
    assert not list((tmp_path / "packed").iterdir())


def test_workers_that_start_together_map_one_file(folder: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(3) as pool:
        found = pool.starmap(_inode, [(folder, tmp_path / "packed")] * 3)
    (file,) = (tmp_path / "packed").iterdir()
    assert found == [file.stat().st_ino] * 3


def _inode(folder: Path, packed: Path) -> int:
    """Of the file that a worker has mapped (proc(5), maps)."""
    model = load(folder, packed)
    lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    (inode,) = {int(line.split()[4]) for line in lines if line.endswith(".panels")}
    del model
    return inode


def test_weights_that_only_torch_holds_are_not_kept(folder: Path, tmp_path: Path) -> None:
    write_weights(folder, random_weights(SHAPE, seed=3))  # FP32 numbers that bf16 does not hold
    load(folder, tmp_path / "packed")
    assert not list((tmp_path / "packed").iterdir())
