"""safetensors files are checked before anything is loaded; every fault names the file or the tensor."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from qwen_allinone.errors import CheckpointError
from qwen_allinone.model.config import ModelConfig
from qwen_allinone.model.weights import INDEX, SINGLE, WeightReader, expected_shapes, weight_files
from tests.support.checkpoints import Shape, random_weights, write_checkpoint, write_json, write_weights


def refusal(folder: Path) -> str:
    """The message with which the weights of `folder` are refused."""
    with pytest.raises(CheckpointError) as caught, WeightReader(folder) as reader:
        reader.check(ModelConfig.load(folder))
    assert str(caught.value).count("Three ways out") == 1
    return str(caught.value)


@pytest.mark.parametrize("tied", [True, False])
def test_the_expected_names_are_those_of_transformers(tmp_path: Path, tied: bool) -> None:
    from transformers import Qwen2ForCausalLM

    write_checkpoint(tmp_path, Shape(tied=tied))
    model = Qwen2ForCausalLM.from_pretrained(tmp_path)
    theirs = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    assert dict(expected_shapes(ModelConfig.load(tmp_path))) == theirs


@pytest.mark.parametrize("shards", [1, 2, 5])
def test_one_file_and_many_hold_the_same_tensors(tmp_path: Path, shards: int) -> None:
    write_checkpoint(tmp_path, seed=3, shards=shards)
    assert len(weight_files(tmp_path)) == shards
    with WeightReader(tmp_path) as reader:
        reader.check(ModelConfig.load(tmp_path))
        for name, tensor in random_weights(Shape(), seed=3).items():
            assert torch.equal(reader.read(name), tensor), name


def test_a_second_copy_of_a_tied_embedding_is_passed_over(tmp_path: Path) -> None:
    """Qwen1.5-0.5B's file holds lm_head.weight as well."""
    write_checkpoint(tmp_path)
    tensors = random_weights(Shape(), seed=0)
    write_weights(tmp_path, tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()})
    with WeightReader(tmp_path) as reader:
        reader.check(ModelConfig.load(tmp_path))
        assert torch.equal(reader.read("model.embed_tokens.weight"), tensors["model.embed_tokens.weight"])


def test_a_tensor_outlives_the_reader(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    with WeightReader(tmp_path) as reader:
        mapped = reader.read("model.embed_tokens.weight")
    assert torch.equal(mapped, load_file(tmp_path / SINGLE)["model.embed_tokens.weight"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_rows_are_those_of_the_whole_matrix(tmp_path: Path, dtype: torch.dtype) -> None:
    write_checkpoint(tmp_path, shards=3)
    name = "model.embed_tokens.weight"
    stored = {key: tensor.to(dtype) for key, tensor in random_weights(Shape(), seed=0).items()}
    write_weights(tmp_path, stored, shards=3)
    with WeightReader(tmp_path) as reader:
        rows = reader.rows(name)
    for numbers in ([0], [len(stored[name]) - 1, 3, 3, 0], []):
        assert torch.equal(rows.read(numbers), stored[name][numbers].float())


def test_a_file_cut_short_while_in_use_is_an_error_and_not_a_crash(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    with WeightReader(tmp_path) as reader:
        rows = reader.rows("model.embed_tokens.weight")
    with open(tmp_path / SINGLE, "r+b") as file:
        file.truncate(100)
    with pytest.raises(OSError, match="cut short"):
        rows.read([5])


def test_rows_outlive_a_file_that_is_deleted(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    with WeightReader(tmp_path) as reader:
        rows, whole = reader.rows("model.embed_tokens.weight"), reader.read("model.embed_tokens.weight").clone()
    (tmp_path / SINGLE).unlink()
    assert torch.equal(rows.read([2, 1]), whole[[2, 1]].float())


@pytest.mark.parametrize("keep", [0, 4, 100, 10_000, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, keep: int) -> None:
    file = write_checkpoint(tmp_path) / SINGLE
    file.write_bytes(file.read_bytes()[:keep])
    assert f"{file} is truncated, damaged or missing" in refusal(tmp_path)


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    file = write_checkpoint(tmp_path) / SINGLE
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1240000000\n")
    assert f"{file} is truncated, damaged or missing" in refusal(tmp_path)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    file = weight_files(write_checkpoint(tmp_path, shards=3))[1]
    file.unlink()
    assert f"{file} is truncated, damaged or missing" in refusal(tmp_path)


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    tensors = random_weights(Shape(), seed=0)
    del tensors["model.layers.1.self_attn.k_proj.bias"]
    write_weights(tmp_path, tensors)
    assert "lack the tensor model.layers.1.self_attn.k_proj.bias" in refusal(tmp_path)


def test_an_untied_model_needs_its_head(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, tie_word_embeddings=False)
    assert "lack the tensor lm_head.weight" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("model.embed_tokens.weight", (10, 64)),
        ("model.layers.0.mlp.down_proj.weight", (96, 64)),
        ("model.norm.weight", (64, 1)),
        ("model.layers.1.self_attn.v_proj.weight", (64, 64)),
    ],
)
def test_a_wrong_shape_is_named_with_both_shapes(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    write_checkpoint(tmp_path)
    tensors = random_weights(Shape(), seed=0)
    right = tuple(tensors[name].shape)
    write_weights(tmp_path, tensors | {name: torch.zeros(shape)})
    assert f"tensor {name} has the shape {shape}, but config.json calls for {right}" in refusal(tmp_path)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.bool])
def test_weights_that_are_no_floats_are_refused(tmp_path: Path, dtype: torch.dtype) -> None:
    """Quantised weights mean nothing without their scales."""
    write_checkpoint(tmp_path)
    tensors = random_weights(Shape(), seed=0)
    name = "model.layers.0.mlp.up_proj.weight"
    write_weights(tmp_path, tensors | {name: tensors[name].to(dtype)})
    assert name in refusal(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.pth"])
def test_a_pickle_is_never_opened(tmp_path: Path, name: str) -> None:
    write_checkpoint(tmp_path)
    (tmp_path / SINGLE).unlink()
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    message = refusal(tmp_path)
    assert name in message and "pickle, which can run code" in message


def test_a_folder_without_weights_says_so(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    (tmp_path / SINGLE).unlink()
    assert f"holds no {SINGLE}" in refusal(tmp_path)


@pytest.mark.parametrize(
    "weight_map",
    [
        {"a": "../other/model.safetensors"},
        {"a": "/etc/passwd"},
        {"a": "model.bin"},
        {"a": 7},
        {"a": None},
    ],
)
def test_an_index_cannot_lead_out_of_the_folder(tmp_path: Path, weight_map: dict[str, object]) -> None:
    write_checkpoint(tmp_path, shards=2)
    write_json(tmp_path / INDEX, {"weight_map": weight_map})
    assert str(tmp_path / INDEX) in refusal(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": ["b"]}}'])
def test_a_broken_index_is_named(tmp_path: Path, content: str) -> None:
    write_checkpoint(tmp_path, shards=2)
    (tmp_path / INDEX).write_text(content)
    assert str(tmp_path / INDEX) in refusal(tmp_path)


def test_an_index_of_nothing_lacks_every_tensor(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, shards=2)
    write_json(tmp_path / INDEX, {"weight_map": {}})
    assert json.loads((tmp_path / INDEX).read_text()) == {"weight_map": {}}
    assert "lack the tensor model.embed_tokens.weight" in refusal(tmp_path)
