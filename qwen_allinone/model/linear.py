"""The linear layers' kernels behind one seam: `make_linear` picks the fastest exact one this CPU has.

All take x [rows, in] float32 and give [rows, out] float32. The packed kernels are operators inside torch
that are not a stable interface, so each is tried once at load and `F.linear` stands in where it fails.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = Literal["fp32", "fp16"]
Linear = Callable[[Tensor], Tensor]

log = logging.getLogger(__name__)

# oneDNN packs for a row count; 16 serves decode batches and prefill alike.
_PACK_ROWS = 16
# The packed kernel gains nothing below four rows and is often slower there, so fewer are padded.
_LEAST_ROWS = 4


class DenseLinear:
    """`F.linear`: the reference, on any CPU."""

    name = "dense"

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight, self._bias = weight.float().contiguous(), bias

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self._weight, self._bias)


class PackedLinear:
    """FP32 weights in oneDNN's blocked layout: streams them about twice as fast at small batches."""

    name = "onednn-packed"

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.float().contiguous(), _PACK_ROWS)
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        rows = x.shape[0]
        if rows < _LEAST_ROWS:
            x = F.pad(x, (0, 0, 0, _LEAST_ROWS - rows))
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, self._bias, "none", [], "")
        return out[:rows]


class HalfLinear:
    """Weights stored as FP16, arithmetic in FP32 (FBGEMM, x86). Exact for bf16 checkpoints down to 2^-17."""

    name = "fbgemm-fp16"

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._packed = torch.ops.quantized.linear_prepack_fp16(weight.float().contiguous(), bias)

    def __call__(self, x: Tensor) -> Tensor:
        out: Tensor = torch.ops.quantized.linear_dynamic_fp16(x, self._packed)
        return out


def choose_kernel(weights: Weights) -> type[DenseLinear] | type[PackedLinear] | type[HalfLinear]:
    """The fastest kernel for `weights` that gives right numbers on this CPU."""
    wanted = HalfLinear if weights == "fp16" else PackedLinear
    if _works(wanted):
        return wanted
    if weights == "fp16":
        log.warning("fp16 weights need FBGEMM (an x86 CPU); using fp32, which takes twice the memory")
        return choose_kernel("fp32")
    return DenseLinear


def _works(kernel: type[PackedLinear] | type[HalfLinear]) -> bool:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(48, 32, generator=generator).half().float()
    bias, x = torch.randn(48, generator=generator), torch.randn(5, 32, generator=generator)
    try:
        return torch.allclose(kernel(weight, bias)(x), F.linear(x, weight, bias), atol=1e-4)
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
