"""config.json is read as transformers means it; what the forward pass does not do is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qwen_allinone.errors import CheckpointError
from qwen_allinone.model.config import ModelConfig
from tests.support.checkpoints import Shape, config_of, write_json

BASE = config_of(Shape())
# What Qwen1.5-0.5B's own file says (its shape, without what the forward pass does not read).
QWEN = {
    "architectures": ["Qwen2ForCausalLM"],
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "vocab_size": 151936,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
}


def load(folder: Path, changes: dict[str, Any], base: dict[str, Any] = BASE) -> ModelConfig:
    """Load `base` with `changes`; a value of None removes the key."""
    raw = {key: value for key, value in (base | changes).items() if value is not None}
    write_json(folder / "config.json", raw)
    return ModelConfig.load(folder)


def test_the_shape_of_qwen_is_read(tmp_path: Path) -> None:
    config = load(tmp_path, {}, QWEN)
    assert (config.head_dim, config.rope_theta, config.tie_word_embeddings) == (64, 1e6, True)


@pytest.mark.parametrize(
    ("changes", "name", "value"),
    [
        ({}, "num_key_value_heads", 2),
        ({"num_key_value_heads": None}, "num_key_value_heads", 4),
        ({}, "head_dim", 16),
        ({"head_dim": 32}, "head_dim", 32),
        ({}, "rope_theta", 10_000.0),
        ({"rope_theta": None}, "rope_theta", 10_000.0),
        ({"rope_theta": None, "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}, "rope_theta", 5e5),
        ({"rope_scaling": None}, "rope_theta", 10_000.0),
        ({"tie_word_embeddings": None}, "tie_word_embeddings", False),
        ({"rms_norm_eps": None}, "rms_norm_eps", 1e-6),
        ({"quantization_config": {}}, "hidden_size", 64),
        ({"a_key_of_the_future": 1}, "hidden_size", 64),
        ({}, "head_norms", False),
        ({"architectures": ["Qwen3ForCausalLM"]}, "head_norms", True),
        ({"architectures": ["Qwen3ForCausalLM"]}, "head_dim", 128),
        ({"architectures": ["Qwen3ForCausalLM"], "head_dim": 32, "attention_bias": False}, "head_dim", 32),
    ],
)
def test_variants_of_the_file_mean_the_same(tmp_path: Path, changes: dict[str, Any], name: str, value: object) -> None:
    assert getattr(load(tmp_path, changes), name) == value


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architectures": ["LlamaForCausalLM"]}, ["LlamaForCausalLM", "runs Qwen2ForCausalLM and Qwen3ForCausalLM"]),
        ({"architectures": ["Qwen2MoeForCausalLM"]}, ["Qwen2MoeForCausalLM"]),
        ({"architectures": ["Qwen3MoeForCausalLM"]}, ["Qwen3MoeForCausalLM"]),
        ({"architectures": ["Qwen3ForCausalLM"], "attention_bias": True}, ["attention_bias"]),
        ({"architectures": None}, ["no architecture"]),
        ({"architectures": "Qwen2ForCausalLM"}, ["Qwen2ForCausalLM"]),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, ["'yarn'", "rope"]),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, ["'linear'", "rope"]),
        ({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e6}}, ["'dynamic'", "rope"]),
        ({"rope_scaling": "yarn"}, ["config.json"]),
        ({"use_sliding_window": True}, ["sliding-window", "use_sliding_window"]),
        ({"hidden_act": "gelu"}, ["'gelu'"]),
        ({"hidden_size": None}, ["hidden_size"]),
        ({"hidden_size": "wide"}, ["hidden_size"]),
        ({"num_attention_heads": "four"}, ["num_attention_heads"]),
        ({"num_attention_heads": 0}, ["num_attention_heads"]),
        ({"num_attention_heads": 3}, ["num_attention_heads"]),
        ({"num_key_value_heads": 3}, ["num_key_value_heads"]),
        ({"head_dim": 15}, ["head_dim"]),
        ({"vocab_size": -1}, ["vocab_size"]),
        ({"num_hidden_layers": [2]}, ["num_hidden_layers"]),
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}, ["quantiz"]),
    ],
)  # fmt: skip
def test_a_model_this_service_cannot_run_is_refused(tmp_path: Path, changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(CheckpointError) as caught:
        load(tmp_path, changes)
    for word in [str(tmp_path / "config.json"), "Three ways out", *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"42", b"null", b"\xff\xfe", b"[" * 100_000])
def test_a_broken_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        ModelConfig.load(tmp_path)
    assert str(tmp_path / "config.json") in str(caught.value) and "Three ways out" in str(caught.value)


def test_a_folder_without_config_is_no_model_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no config.json"):
        ModelConfig.load(tmp_path)


def test_the_file_transformers_writes_today_is_read_the_same(tmp_path: Path) -> None:
    from transformers import Qwen2Config

    write_json(tmp_path / "config.json", BASE)
    ours = ModelConfig.load(tmp_path)
    again = tmp_path / "again"
    Qwen2Config.from_pretrained(tmp_path).save_pretrained(again)
    assert "rope_theta" not in json.loads((again / "config.json").read_text())
    assert ModelConfig.load(again) == ours
