"""Kernels at the widths of Qwen1.5-0.5B (fewer layers, a tiny vocabulary) against transformers' FP32 logits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.agreement import compare, own_logits, reference_logits, sequences
from qwen_allinone.model import checkpoint
from qwen_allinone.model.linear import Weights
from tests.support.checkpoints import Shape, random_weights, write_checkpoint, write_weights

# Hidden, intermediate and head sizes of Qwen1.5-0.5B, so that the measured tables and large-shape kernels are in play.
SHAPE = Shape(hidden=1024, inner=2816, layers=3, heads=16, kv_heads=16)
IDS = sequences(300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_checkpoint(tmp_path_factory.mktemp("wide"), SHAPE)
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: torch.ones(tensor.shape) if "norm" in name else 0.02 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in random_weights(SHAPE, seed=0).items()
    }  # as spread as a real model's, so that logits are of a real size
    write_weights(folder, {name: tensor.bfloat16() for name, tensor in weights.items()})
    return folder


@pytest.fixture(scope="module")
def wanted(folder: Path) -> torch.Tensor:
    return reference_logits(folder, IDS)


@pytest.mark.parametrize("weights", ["fp32", "fp16"])
def test_exact_weights_agree_to_a_ten_thousandth(folder: Path, wanted: torch.Tensor, weights: Weights) -> None:
    model = checkpoint.load(str(folder), "main", weights, 80).model
    assert compare(own_logits(model, IDS), wanted)["max_difference"] < 1e-4


def test_int8_stays_near(folder: Path, wanted: torch.Tensor) -> None:
    model = checkpoint.load(str(folder), "main", "int8", 80).model
    if "int8" not in model.kernel:
        pytest.skip("this CPU has no INT8 kernel")
    figures = compare(own_logits(model, IDS), wanted)
    assert 0 < figures["mean_kl"] < 0.001
