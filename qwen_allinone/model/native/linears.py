"""The native library's linears, behind the seam of `model/linear.py`."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from qwen_allinone.model.native.library import EXACT, INT8, PANEL, CLinear, Library, library
from qwen_allinone.model.quantize import quantized

_BLOCK = 128 * PANEL  # rows packed at a time: bounds what packing needs beside the result


class NativeLinear:
    """A weight [n, k] of any float type in panels of 32 outputs (native/qaio.h)."""

    name: str

    def __init__(self, kind: int, shape: tuple[int, int], tensors: tuple[Tensor | None, ...], lib: Library) -> None:
        """`tensors`: the panels, their scales and the bias, which live as long as this."""
        self._library, self.tensors = lib, tensors
        self.c = CLinear(kind, *shape, 0, *(None if tensor is None else tensor.data_ptr() for tensor in tensors))

    def __call__(self, x: Tensor) -> Tensor:
        y = torch.empty(x.shape[0], self.c.n)
        if x.shape[0]:
            self._library.linear(self.c, x.contiguous(), y)
        return y


class NativeExact(NativeLinear):
    """Weights stored as bf16, arithmetic in FP32: no digit is lost of a checkpoint that is stored as bf16."""

    name = "native-exact"

    def __init__(self, weight: Tensor, bias: Tensor | None, lib: Library | None = None) -> None:
        n, k = weight.shape
        panels = torch.empty(-(-n // PANEL), k, PANEL // 2, 2, dtype=torch.int16)
        for rows, into in _blocks(weight):
            halves = rows.bfloat16().view(torch.int16).view(-1, 2, PANEL // 2, k)
            panels[into] = halves.permute(0, 3, 2, 1)
        super().__init__(EXACT, (n, k), (panels, None, _held(bias)), lib or _there())

    @staticmethod
    def is_lossless(weight: Tensor) -> bool:
        """True if bf16 holds every number of `weight`."""
        return weight.dtype == torch.bfloat16 or all(
            torch.equal(block.bfloat16().float(), block.float()) for block in torch.split(weight, _BLOCK)
        )


class NativeInt8(NativeLinear):
    """INT8 weights with a scale for each output, INT8 activations with a scale for each row."""

    name = "native-int8"

    def __init__(self, weight: Tensor, bias: Tensor | None, lib: Library | None = None) -> None:
        n, k = weight.shape
        fours = -(-k // 4)
        panels = torch.empty(-(-n // PANEL), fours, PANEL, 4, dtype=torch.uint8)
        scales = torch.empty(panels.shape[0], PANEL)
        for rows, into in _blocks(weight):
            values, steps = quantized(rows)
            scales[into] = steps.view(-1, PANEL)
            # 128 is added by turning the highest bit.
            shifted = F.pad(values, (0, 4 * fours - k)).view(torch.uint8) ^ 0x80
            panels[into] = shifted.view(-1, PANEL, fours, 4).transpose(1, 2)
        super().__init__(INT8, (n, k), (panels, scales, _held(bias)), lib or _there())


def _blocks(weight: Tensor) -> Iterator[tuple[Tensor, slice]]:
    """Rows of `weight` in whole panels, the last one filled with zeros, and which panels they are."""
    for start in range(0, weight.shape[0], _BLOCK):
        rows = weight[start : start + _BLOCK]
        panels = -(-rows.shape[0] // PANEL)
        first = start // PANEL
        yield F.pad(rows, (0, 0, 0, panels * PANEL - rows.shape[0])).contiguous(), slice(first, first + panels)


def _held(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.contiguous()


def _there() -> Library:
    lib = library()
    if lib is None:
        raise NotImplementedError("no native library")
    return lib
