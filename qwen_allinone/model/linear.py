"""The linear layers' kernels behind one seam: `Linears` makes them.

The native library's are taken where it runs. Where it does not, those inside torch are measured once for each shape,
and the fastest is taken.

`fp32` weights may be stored as bf16 or FP16 where that loses no digit, as it does not for the bf16 numbers of
checkpoints: half the memory to read, and the same products.

All take x [rows, in] float32 and give [rows, out] float32. Torch's, but for `F.linear`, are operators that are not a
stable interface. Each is tried at load, and one that fails or gives wrong numbers is left out.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from qwen_allinone.model.native.library import library
from qwen_allinone.model.native.linears import NativeExact, NativeInt8
from qwen_allinone.model.quantize import TINY, quantized

Weights = Literal["fp32", "fp16", "int8"]
Kernels = Literal["auto", "torch"]

log = logging.getLogger(__name__)
_kept = threading.local()

# oneDNN packs for a row count; 16 serves decode batches and prefill alike.
_PACK_ROWS = 16
# Row counts of decode steps: tried one by one, since a kernel can be slower with fewer rows than with more.
_TRIED_ROWS = (1, 2, 3, 4, 6, 8, 12, 16)
_GAIN = 0.93  # a change must save this much time to be more than noise
# Below this many elements a product is over before its weights' way through memory matters.
_WORTH_MEASURING = 1 << 19
_SAMPLE_ROWS = 8192  # of the vocabulary's head: enough to see the kernel
_ROW_BLOCK = 4096
_PINNED = 16  # columns that pin the range of INT8 activations; two are needed, 16 keep rows aligned


class Linear(Protocol):
    """y = x W^T + b."""

    def __call__(self, x: Tensor) -> Tensor: ...


class Kernel(Linear, Protocol):
    """One way to store and multiply a weight [out, in] of any float type."""

    name: str

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None: ...


class DenseLinear:
    """`F.linear`: the reference, on any CPU."""

    name = "dense"

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight, self._bias = weight.float().contiguous(), bias

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self._weight, self._bias)


class PackedLinear(partial[Tensor]):
    """FP32 weights in oneDNN's blocked layout: streams them about twice as fast at small batches.

    It is the operator itself, with the weight bound.
    """

    name = "onednn-packed"

    def __new__(cls, weight: Tensor, bias: Tensor | None) -> PackedLinear:
        operator = torch.ops.mkldnn
        packed = operator._reorder_linear_weight(weight.float().contiguous(), _PACK_ROWS)
        return super().__new__(cls, operator._linear_pointwise, W=packed, B=bias, attr="none", scalars=[], algorithm="")


class HalfLinear:
    """Weights stored as FP16, arithmetic in FP32 (FBGEMM, x86).

    The weight is scaled by a power of two, which changes no digit, so that its largest element comes near FP16's
    largest number. Elements down to 2^-31 of that keep all digits of a bf16 number: `is_lossless` tells.
    """

    name = "fbgemm-fp16"

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        exponent = _half_exponent(weight)
        scaled = weight.to(torch.float32, copy=True).mul_(2.0**exponent)
        self._unscale = torch.tensor(2.0**-exponent)
        self._packed = torch.ops.quantized.linear_prepack_fp16(scaled, bias)

    def __call__(self, x: Tensor) -> Tensor:
        out: Tensor = torch.ops.quantized.linear_dynamic_fp16(x * self._unscale, self._packed)
        return out

    @staticmethod
    def is_lossless(weight: Tensor) -> bool:
        """True if no element loses a digit, so that results differ from FP32 storage by the order of sums only."""
        scale = 2.0 ** _half_exponent(weight)
        scaled = (block.float() * scale for block in torch.split(weight, _ROW_BLOCK))
        return all(torch.equal(block.half().float(), block) for block in scaled)


def _half_exponent(weight: Tensor) -> int:
    """The largest n for which weight x 2^n stays below FP16's largest number, 65504; 0 for a weight without scale."""
    largest = float(weight.abs().max())
    return math.floor(math.log2(65504 / largest)) if 0 < largest < math.inf else 0


class Int8Linear:
    """INT8 weights with a scale for each output, INT8 activations with a scale for each row (FBGEMM, x86).

    The operator takes the range of activations from all of x, and one request's outlier would coarsen its neighbours'
    numbers. So rows are divided by their own largest magnitude before and multiplied by it after, and columns of
    constant +1 and -1 that meet zero weights pin the range: the sums between are integers, and a row's result is the
    same bits alone and in a batch.
    """

    name = "fbgemm-int8"

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        # Block by block: the FP32 copy of a whole vocabulary would be four times the final size.
        blocks = [quantized(block) for block in torch.split(weight, _ROW_BLOCK)]
        values = F.pad(torch.cat([values for values, _ in blocks]), (0, _PINNED))
        scales = torch.cat([scales for _, scales in blocks]).double()
        with warnings.catch_warnings():  # quantized tensors are to leave torch some day; this release is pinned
            warnings.simplefilter("ignore")
            zeros = torch.zeros(len(scales), dtype=torch.long)
            packed = torch._make_per_channel_quantized_tensor(values, scales, zeros, 0)
        self._packed = torch.ops.quantized.linear_prepack(packed, None)
        self._bias = torch.zeros(1) if bias is None else bias
        self._seven_bits = _saturates()

    def __call__(self, x: Tensor) -> Tensor:
        scaled, pinned = _pinned_rows(x.shape)
        largest = torch.maximum(x.abs().amax(1, keepdim=True), TINY)
        torch.div(x, largest, out=scaled)
        out = torch.ops.quantized.linear_dynamic(pinned, self._packed, self._seven_bits)
        return torch.addcmul(self._bias, out, largest)


def _pinned_rows(shape: torch.Size) -> tuple[Tensor, Tensor]:
    """Room for rows of `shape`, and the same with the constant columns behind.

    The rows of decode steps are kept, and shared by all linears of a thread.
    """
    buffers: dict[torch.Size, tuple[Tensor, Tensor]] = _kept.__dict__.setdefault("buffers", {})
    if shape in buffers:
        return buffers[shape]
    rows, width = shape
    pinned = torch.zeros(rows, width + _PINNED)
    pinned[:, width], pinned[:, width + 1] = 1.0, -1.0
    buffer = pinned[:, :width], pinned
    if rows <= _TRIED_ROWS[-1]:
        buffers[shape] = buffer
    return buffer


@cache
def _saturates() -> bool:
    """True if this CPU sums pairs of INT8 products in 16 bits (no VNNI): activations must then do with 7 bits."""
    scale, zero = torch.ones(16, dtype=torch.double), torch.zeros(16, dtype=torch.long)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        weight = torch._make_per_channel_quantized_tensor(torch.full((16, 64), 127, dtype=torch.int8), scale, zero, 0)
    x = torch.ones(1, 64)
    x[0, 0] = -1.0
    packed = torch.ops.quantized.linear_prepack(weight, None)
    return abs(float(torch.ops.quantized.linear_dynamic(x, packed, False)[0, 0]) - 62 * 127) > 127


_KERNELS: dict[Weights, tuple[type[Kernel], ...]] = {
    "fp32": (PackedLinear, HalfLinear, DenseLinear),
    "fp16": (HalfLinear,),
    "int8": (Int8Linear,),
}
_INSTEAD: dict[Weights, Weights] = {"int8": "fp16", "fp16": "fp32"}


@dataclass(frozen=True)
class Choice:
    """The kernel for one shape, and `feed`: how many rows to give it for 0, 1, 2, ... rows (zeros are added)."""

    kernel: type[Kernel]
    feed: tuple[int, ...] = ()

    @property
    def pads(self) -> bool:
        return self.feed != tuple(range(len(self.feed)))


class Padded:
    """A kernel that is given a few rows of zeros more where that is faster."""

    def __init__(self, kernel: Kernel, feed: tuple[int, ...]) -> None:
        self._kernel, self._feed = kernel, feed

    def __call__(self, x: Tensor) -> Tensor:
        rows = x.shape[0]
        if rows >= len(self._feed) or self._feed[rows] == rows:
            return self._kernel(x)
        return self._kernel(F.pad(x, (0, 0, 0, self._feed[rows] - rows)))[:rows]


class Stacked:
    """A tall linear in parts that lie one below the other."""

    def __init__(self, parts: Sequence[Linear]) -> None:
        self._parts = parts

    def __call__(self, x: Tensor) -> Tensor:
        outs = [part(x) for part in self._parts]
        return outs[0] if len(outs) == 1 else torch.cat(outs, dim=-1)


class Linears:
    """Makes the linears of one model with the fastest kernel for each shape. Thread-safe."""

    def __init__(self, weights: Weights, kernels: Kernels = "auto") -> None:
        """`weights` is what is asked for; a CPU that lacks its kernel gets the next larger, with a warning.

        The attribute of that name says what it got.
        """
        self._native = _native(weights) if kernels == "auto" else None
        self._kernels: list[type[Kernel]] = []
        while not self._kernels and self._native is not NativeInt8:
            self._kernels = [kernel for kernel in _KERNELS[weights] if _works(kernel)]
            if not self._kernels:
                log.warning("this CPU has no kernel for %s weights; using %s", weights, _INSTEAD[weights])
                weights = _INSTEAD[weights]
        self.weights = weights
        self._exact = weights == "fp32"
        self._choices: dict[tuple[int, int, bool], Choice] = {}
        self._made_natively = False
        self._choosing = threading.Lock()

    def make(self, weight: Tensor, bias: Tensor | None = None) -> Linear:
        """The linear of `weight` [out, in], any float type, and `bias` [out] float32."""
        if self._native and (self._native is NativeInt8 or NativeExact.is_lossless(weight)):
            self._made_natively = True
            return self._native(weight, bias)
        large = weight.numel() >= _WORTH_MEASURING
        halves = large and self._exact and HalfLinear in self._kernels and HalfLinear.is_lossless(weight)
        key = (weight.shape[0], weight.shape[1], halves)
        with self._choosing:
            if key not in self._choices:
                able = [kernel for kernel in self._kernels if kernel is not HalfLinear or halves or not self._exact]
                self._choices[key] = _choose(able, weight) if large else Choice(able[0])
            choice = self._choices[key]
        kernel = choice.kernel(weight, bias)
        return Padded(kernel, choice.feed) if choice.pads else kernel

    @property
    def native(self) -> str | None:
        """The name of the native kernel, None where torch's serve."""
        return self._native.name if self._native else None

    @property
    def names(self) -> str:
        """The kernels in use, for people."""
        native = [self._native.name] if self._native and self._made_natively else []
        return ", ".join(dict.fromkeys(native + [choice.kernel.name for choice in self._choices.values()]))


def _native(weights: Weights) -> type[NativeExact] | type[NativeInt8] | None:
    """The native kernel for `weights`, if there is one here and its numbers are right."""
    lib = library()
    if lib is None or (weights == "int8" and not lib.has_fast_int8):
        return None
    kernel = NativeInt8 if weights == "int8" else NativeExact
    if _works(kernel):
        return kernel
    log.warning("the native kernel %s fails here, torch's are used", kernel.name)
    return None


def _choose(kernels: list[type[Kernel]], weight: Tensor) -> Choice:
    """The kernel that takes the least time over all row counts of decode steps, and what to feed it."""
    tables = {kernel: _measure(kernel, weight[:_SAMPLE_ROWS]) for kernel in kernels}
    best = min(kernels, key=lambda kernel: sum(tables[kernel].values()))
    return Choice(best, feed_of(tables[best]))


def feed_of(seconds: dict[int, float]) -> tuple[int, ...]:
    """From times by row count, for each number of rows the row count, at least as large, to feed.

    A number between two measured ones is taken to be as slow as the slower of them.
    """
    tried = sorted(seconds)
    feed = [0]
    for rows in range(1, tried[-1] + 1):
        above = [count for count in tried if count >= rows]
        below = [count for count in tried if count <= rows]
        own = max(seconds[above[0]], seconds[below[-1] if below else above[0]])
        best = min(above, key=lambda count: seconds[count])
        feed.append(best if seconds[best] < _GAIN * own else rows)
    return tuple(feed)


def _measure(kernel: type[Kernel], weight: Tensor) -> dict[int, float]:
    """Seconds of one product by row count, with a weight that comes from memory as it does in a decode step."""
    linear = kernel(weight, None)
    cached = torch.ones(2 * _cache_bytes() // 4)
    times = {}
    for rows in _TRIED_ROWS:
        x = torch.ones(rows, weight.shape[1])
        linear(x)
        times[rows] = min(_seconds(linear, x, cached) for _ in range(2))
    return times


def _seconds(linear: Kernel, x: Tensor, cached: Tensor) -> float:
    cached.sum()  # drives the weight out of the cache
    began = time.perf_counter()
    linear(x)
    return time.perf_counter() - began


def _cache_bytes() -> int:
    """Size of the last-level cache; a guess where the system does not say."""
    known = "SC_LEVEL3_CACHE_SIZE" in os.sysconf_names
    return (os.sysconf("SC_LEVEL3_CACHE_SIZE") if known else 0) or 32 << 20


def _works(kernel: type[Kernel]) -> bool:
    """True if the kernel runs here and its numbers are right, at full scale too.

    INT8 instructions of older CPUs saturate 16-bit sums in between: the largest weights against the largest inputs
    would show it.
    """
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(48, 64, generator=generator).bfloat16().float()
    weight[0] = weight.abs().max()
    bias, x = torch.randn(48, generator=generator), torch.randn(5, 64, generator=generator)
    x[0] = 3.0
    wanted = F.linear(x, weight, bias)
    try:
        error = (kernel(weight, bias)(x) - wanted).norm() / wanted.norm()
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    return bool(error < (0.03 if kernel in (Int8Linear, NativeInt8) else 1e-5))
