"""An adapter's matrices as the native layers read them (native/qaio.h)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from qwen_allinone.model.lora import Adapter, LowRank, Site
from qwen_allinone.model.native.library import (
    MOST_PARTS,
    PANEL,
    RANK_BLOCK,
    RANK_CHUNK,
    CLinear,
    CLowRank,
    CPart,
)

SITES: tuple[Site, ...] = ("qkv", "out", "gate_up", "down")  # in the order of qaio.h
_TOGETHER = 4  # A of a projection has whole multiples of so many rows


class PackedAdapter:
    """`c` [layers][SITES] is what C reads, `ranks` the most of any linear, rows of zeros included."""

    def __init__(self, adapter: Adapter, linears: Sequence[Sequence[CLinear]]) -> None:
        """`linears`: of each layer, in the order of `SITES`.

        Raises:
            ValueError: a matrix does not go with its linear, or its projections do not begin with a panel.
        """
        places = [(layer, site) for layer in range(len(linears)) for site in SITES]
        if strange := sorted(adapter.updates.keys() - set(places)):
            raise ValueError(f"an adapter for a linear that is not there: {strange[0]}")
        self._tensors: list[Tensor] = []  # what C only has the addresses of
        self.c = (CLowRank * len(places))()
        for number, place in enumerate(places):
            if place in adapter.updates:
                linear = linears[place[0]][SITES.index(place[1])]
                self.c[number] = self._packed(adapter.updates[place].parts, linear)
        self.ranks = max(update.ranks for update in self.c)

    def _packed(self, parts: Sequence[LowRank], linear: CLinear) -> CLowRank:
        _check(parts, linear)
        downs = [_with_zeros(part.down, _TOGETHER, RANK_CHUNK) for part in parts]
        packed, at = CLowRank(parts=len(parts), down=self._kept(_down(torch.cat(downs)))), 0
        for number, (part, down) in enumerate(zip(parts, downs, strict=True)):
            outputs, rank = part.up.shape
            begin, panels = part.begin // PANEL, -(-outputs // PANEL)
            packed.part[number] = CPart(begin, begin + panels, at, rank, self._kept(_up(part.up)))
            at += down.shape[0]
        packed.ranks = at
        return packed

    def _kept(self, tensor: Tensor) -> int:
        self._tensors.append(tensor)
        return tensor.data_ptr()


def _check(parts: Sequence[LowRank], linear: CLinear) -> None:
    if not 0 < len(parts) <= MOST_PARTS:
        raise ValueError(f"an update in {len(parts)} parts")
    for part in parts:
        outputs, rank = part.up.shape
        end = part.begin + outputs
        fits = part.down.shape == (rank, linear.k) and rank > 0 and 0 <= part.begin < end <= linear.n
        if not fits or part.begin % PANEL or (end % PANEL and end != linear.n):
            shapes = f"{list(part.down.shape)} and {list(part.up.shape)} from {part.begin} on"
            raise ValueError(f"an update of {shapes} does not go with a linear of {linear.k} to {linear.n}")


def _down(a: Tensor) -> Tensor:
    """A [ranks, in] in blocks of ranks, and in these in chunks of inputs."""
    blocks = torch.split(a, RANK_BLOCK)
    return torch.cat([block.view(len(block), -1, RANK_CHUNK).transpose(0, 1).flatten() for block in blocks])


def _up(b: Tensor) -> Tensor:
    """B [outputs, rank] in panels."""
    panels = _with_zeros(b, PANEL, 1)
    return panels.view(-1, PANEL, b.shape[1]).transpose(1, 2).contiguous()


def _with_zeros(matrix: Tensor, rows: int, columns: int) -> Tensor:
    """As FP32, with zeros up to whole multiples of so many rows and columns."""
    height, width = matrix.shape
    return F.pad(matrix.float(), (0, -width % columns, 0, -height % rows))
