"""The packed kernels give the numbers of `F.linear`, and stand aside where they cannot."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from qwen_allinone.model import linear
from qwen_allinone.model.linear import DenseLinear, HalfLinear, PackedLinear, choose_kernel

KERNELS = [DenseLinear, PackedLinear, HalfLinear]


@pytest.fixture(params=KERNELS, ids=lambda kernel: kernel.name)
def kernel(request: pytest.FixtureRequest) -> Any:
    try:
        request.param(torch.zeros(16, 16), None)
    except (RuntimeError, AttributeError, NotImplementedError):
        pytest.skip(f"this CPU has no {request.param.name}")
    return request.param


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 16, 17, 130])
@pytest.mark.parametrize(("inner", "outer"), [(64, 96), (33, 7), (1, 1), (256, 1000)])
@pytest.mark.parametrize("biased", [True, False])
def test_every_kernel_equals_the_plain_product(kernel: Any, rows: int, inner: int, outer: int, biased: bool) -> None:
    generator = torch.Generator().manual_seed(rows * outer)
    weight = torch.randn(outer, inner, generator=generator).half().float()
    bias = torch.randn(outer, generator=generator) if biased else None
    x = torch.randn(rows, inner, generator=generator)
    out = kernel(weight, bias)(x)
    assert out.shape == (rows, outer) and out.dtype == torch.float32
    torch.testing.assert_close(out, F.linear(x, weight, bias), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_kernel_takes_the_types_of_checkpoints(kernel: Any, dtype: torch.dtype) -> None:
    weight = torch.randn(24, 32, generator=torch.Generator().manual_seed(0)).to(dtype)
    x = torch.randn(5, 32, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(kernel(weight, None)(x), F.linear(x, weight.float()), atol=1e-3, rtol=1e-3)


def test_a_row_does_not_depend_on_its_neighbours(kernel: Any) -> None:
    """int8 kernels that scale whole tensors do: an outlier in one request would spoil the others."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(48, 64, generator=generator).half().float()
    x = torch.randn(8, 64, generator=generator)
    x[3] *= 1e4
    together = kernel(weight, None)(x)
    alone = torch.cat([kernel(weight, None)(row[None]) for row in x])
    torch.testing.assert_close(together, alone, atol=1e-3, rtol=1e-4)


def test_half_size_weights_are_exact_for_bf16_checkpoints() -> None:
    if not linear._works(HalfLinear):
        pytest.skip("this CPU has no FBGEMM")
    generator = torch.Generator().manual_seed(0)
    weight = (0.02 * torch.randn(64, 64, generator=generator)).bfloat16().float()
    x = torch.randn(4, 64, generator=generator)
    torch.testing.assert_close(HalfLinear(weight, None)(x), F.linear(x, weight), atol=2e-6, rtol=1e-5)


def test_the_fastest_kernel_that_works_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "_works", lambda kernel: True)
    assert choose_kernel("fp32") is PackedLinear
    assert choose_kernel("fp16") is HalfLinear


def test_a_cpu_without_packed_kernels_falls_back_to_the_plain_product(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(linear, "_works", lambda kernel: False)
    assert choose_kernel("fp32") is DenseLinear
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        assert choose_kernel("fp16") is DenseLinear
    assert "twice the memory" in caplog.text


@pytest.mark.parametrize("error", [RuntimeError, AttributeError, NotImplementedError])
def test_a_kernel_that_raises_does_not_work(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def broken(self: PackedLinear, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        raise error("no such operator")

    monkeypatch.setattr(PackedLinear, "__init__", broken)
    assert choose_kernel("fp32") is DenseLinear


def test_a_kernel_that_gives_wrong_numbers_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PackedLinear, "__call__", lambda self, x: torch.zeros(x.shape[0], 48))
    assert choose_kernel("fp32") is DenseLinear
