"""The packed kernels give the numbers of `F.linear`, and stand aside where they cannot."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from qwen_allinone.model import linear
from qwen_allinone.model.linear import DenseLinear, HalfLinear, Int8Linear, Linears, PackedLinear, Padded, feed_of

EXACT = [DenseLinear, PackedLinear, HalfLinear]
WEIGHT = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=[*EXACT, Int8Linear], ids=lambda kernel: kernel.name)
def any_kernel(request: pytest.FixtureRequest) -> Any:
    return _present(request.param)


@pytest.fixture
def int8() -> Any:
    return _present(Int8Linear)


@pytest.fixture(params=EXACT, ids=lambda kernel: kernel.name)
def kernel(request: pytest.FixtureRequest) -> Any:
    return _present(request.param)


def _present(kernel: Any) -> Any:
    if not linear._works(kernel):
        pytest.skip(f"this CPU has no {kernel.name}")
    return kernel


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


def test_a_row_does_not_depend_on_its_neighbours(any_kernel: Any) -> None:
    """An outlier in one request must not spoil the others, as it does where a batch shares one INT8 scale."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(48, 64, generator=generator).half().float()
    x = torch.randn(8, 64, generator=generator)
    x[3] *= 1e4
    together = any_kernel(weight, None)(x)
    alone = torch.cat([any_kernel(weight, None)(row[None]) for row in x])
    torch.testing.assert_close(together, alone, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("rows", [1, 3, 16, 130])
def test_int8_is_the_same_to_the_bit_alone_and_in_a_batch(int8: Any, rows: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    kernel = int8(torch.randn(96, 128, generator=generator), torch.randn(96, generator=generator))
    x = torch.randn(rows, 128, generator=generator) * torch.logspace(-3, 3, rows).unsqueeze(1)
    assert torch.equal(kernel(x), torch.cat([kernel(row[None]) for row in x]))


@pytest.mark.parametrize("rows", [1, 5, 64])
def test_int8_is_near_the_plain_product(int8: Any, rows: int) -> None:
    """Rounding to 8 bits on both sides: about 0.6 % of the norm each with normally distributed numbers; twice that
    for inputs on processors that leave them 7 bits."""
    generator = torch.Generator().manual_seed(rows)
    weight, bias = torch.randn(200, 256, generator=generator), torch.randn(200, generator=generator)
    x = torch.randn(rows, 256, generator=generator)
    wanted = F.linear(x, weight, bias)
    error = (int8(weight.bfloat16(), bias)(x) - wanted).norm() / wanted.norm()
    assert 0 < error < (0.022 if linear._saturates() else 0.015)


def test_int8_takes_zeros_and_a_vocabulary_of_several_blocks(int8: Any) -> None:
    weight = torch.randn(2 * linear._ROW_BLOCK + 3, 16, generator=torch.Generator().manual_seed(0))
    weight[7] = 0
    x = torch.zeros(2, 16)
    x[1, 0] = 1.0
    out = int8(weight, None)(x)
    assert torch.equal(out[0], torch.zeros(len(weight)))
    torch.testing.assert_close(out[1], weight[:, 0], atol=0.04 if linear._saturates() else 0.02, rtol=0)


def test_half_size_weights_are_exact_for_bf16_checkpoints() -> None:
    if not linear._works(HalfLinear):
        pytest.skip("this CPU has no FBGEMM")
    generator = torch.Generator().manual_seed(0)
    weight = (0.02 * torch.randn(64, 64, generator=generator)).bfloat16().float()
    x = torch.randn(4, 64, generator=generator)
    torch.testing.assert_close(HalfLinear(weight, None)(x), F.linear(x, weight), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("values", "lossless"),
    [
        ([1.0, 0.5, -3.0], True),
        ([0.0, 0.0, 0.0], True),
        ([1.0, 2.0**-31 * 1.9921875], True),  # all 8 digits of a bf16 number
        ([1.0, 2.0**-38 * 1.9921875], False),
        ([0.1, 1.0], False),  # more digits than FP16 has
        ([1e30, 1e28], False),
        ([float("nan"), 1.0], False),
        ([1.0, 1e-45], False),
        ([2.0**100, 2.0**90 * 1.5], True),
        ([2.0**-100, 2.0**-120 * 1.5], True),
    ],
)
def test_storage_in_half_size_is_lossless_where_no_digit_goes(values: list[float], lossless: bool) -> None:
    weight = torch.tensor([values])
    assert HalfLinear.is_lossless(weight) == lossless
    x = torch.ones(1, len(values))
    if lossless and linear._works(HalfLinear):
        assert torch.equal(HalfLinear(weight, None)(x), F.linear(x, weight))


def test_bf16_weights_of_a_real_spread_are_lossless() -> None:
    weight = 0.02 * torch.randn(512, 1024, generator=torch.Generator().manual_seed(0))
    assert HalfLinear.is_lossless(weight.bfloat16())
    assert not HalfLinear.is_lossless(weight)


@pytest.mark.parametrize(("dtype", "kernel"), [(torch.bfloat16, "fbgemm-fp16"), (torch.float32, "dense")])
def test_fp32_takes_half_size_storage_only_where_it_is_lossless(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, kernel: str
) -> None:
    seconds = {PackedLinear: 3.0, DenseLinear: 2.0, HalfLinear: 1.0}
    monkeypatch.setattr(linear, "_works", lambda kernel: True)
    monkeypatch.setattr(linear, "_measure", lambda kernel, weight: {1: seconds[kernel]})
    linears = Linears("fp32", "torch")
    linears.make(torch.randn(1024, 512, generator=torch.Generator().manual_seed(0)).to(dtype))
    assert linears.names == kernel


def test_each_kind_of_weights_has_its_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "_works", lambda kernel: True)
    assert [_name(weights) for weights in ("fp32", "fp16", "int8")] == ["onednn-packed", "fbgemm-fp16", "fbgemm-int8"]


def test_a_cpu_without_packed_kernels_falls_back_to_the_plain_product(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(linear, "_works", lambda kernel: kernel is DenseLinear)
    assert _name("fp32") == "dense"
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        assert _name("int8") == "dense"
    assert "no kernel for int8 weights; using fp16" in caplog.text
    assert "no kernel for fp16 weights; using fp32" in caplog.text


@pytest.mark.parametrize("error", [RuntimeError, AttributeError, NotImplementedError])
def test_a_kernel_that_raises_does_not_work(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def broken(self: PackedLinear, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        raise error("no such operator")

    monkeypatch.setattr(PackedLinear, "__init__", broken)
    assert _name("fp32") == "dense"


def test_a_kernel_that_gives_wrong_numbers_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PackedLinear, "__call__", lambda self, x: torch.zeros(x.shape[0], 48))
    assert _name("fp32") == "dense"


def test_int8_is_near_on_a_cpu_that_saturates(int8: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """7 bits for activations instead of 8: about twice the error."""
    monkeypatch.setattr(linear, "_saturates", lambda: True)
    weight, x = torch.ones(16, 256), torch.ones(2, 256)
    torch.testing.assert_close(int8(weight, None)(x), F.linear(x, weight), atol=0, rtol=0.02)
    assert linear._works(int8)


def test_the_kernel_that_takes_least_time_is_chosen_for_each_large_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {PackedLinear: 2.0, HalfLinear: 3.0, DenseLinear: 1.0}
    monkeypatch.setattr(linear, "_works", lambda kernel: True)
    monkeypatch.setattr(linear, "_measure", lambda kernel, weight: {1: seconds[kernel], 4: seconds[kernel]})
    linears = Linears("fp32", "torch")
    linears.make(torch.zeros(1024, 512))
    assert linears.names == "dense"
    linears.make(WEIGHT)  # too small to measure
    assert linears.names == "dense, onednn-packed"


@pytest.mark.parametrize(
    ("seconds", "feed"),
    [
        ({1: 1.0, 2: 1.0, 4: 1.0}, (0, 1, 2, 3, 4)),
        ({1: 2.0, 2: 2.0, 4: 1.0}, (0, 4, 4, 4, 4)),
        ({1: 1.0, 2: 3.0, 4: 2.0}, (0, 1, 4, 4, 4)),
        ({1: 1.0, 2: 1.0, 4: 0.97}, (0, 1, 2, 3, 4)),  # too small a gain to be more than noise
        ({1: 1.0, 4: 4.0, 8: 2.0}, (0, 1, 8, 8, 8, 8, 8, 8, 8)),
    ],
)
def test_rows_are_added_where_more_take_less_time(seconds: dict[int, float], feed: tuple[int, ...]) -> None:
    assert feed_of(seconds) == feed


def test_added_rows_do_not_show(any_kernel: Any) -> None:
    kernel = any_kernel(WEIGHT, None)
    padded = Padded(kernel, (0, 4, 2, 4, 4))
    for rows in range(1, 7):
        x = torch.randn(rows, 8, generator=torch.Generator().manual_seed(rows))
        torch.testing.assert_close(padded(x), kernel(x))


def test_a_large_shape_is_measured_for_real() -> None:
    weight = torch.randn(1024, 512, generator=torch.Generator().manual_seed(0))
    x = torch.randn(3, 512, generator=torch.Generator().manual_seed(1))
    linears = Linears("fp32", "torch")
    torch.testing.assert_close(linears.make(weight)(x), F.linear(x, weight), atol=1e-3, rtol=1e-3)
    assert linears.names in ("onednn-packed", "dense")


def _name(weights: Any) -> str:
    linears = Linears(weights, "torch")
    linears.make(WEIGHT)
    return linears.names
