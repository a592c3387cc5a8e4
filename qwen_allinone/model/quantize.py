"""INT8 weights with a scale for each output."""

from __future__ import annotations

import torch
from torch import Tensor

TINY = torch.tensor(1e-30)  # instead of a largest magnitude of zero


def quantized(weight: Tensor) -> tuple[Tensor, Tensor]:
    """INT8 [out, in] and a scale for each row [out], symmetric."""
    values = weight.float()
    scales = torch.maximum(values.abs().amax(1), TINY) / 127
    return (values / scales.unsqueeze(1)).round_().to(torch.int8), scales
