"""Muon (K. Jordan, 2024): momentum whose matrix updates are made orthogonal. Learns more from each step than AdamW."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
MOMENTUM = 0.95


def orthogonal(update: Tensor, rounds: int = 5) -> Tensor:
    """Push all singular values of a matrix towards 1 by a quintic Newton-Schulz iteration; half precision will do."""
    a, b, c = COEFFICIENTS
    x: Tensor = (update / (update.norm() + 1e-7)).to(torch.bfloat16 if multiplies_bfloat16() else torch.float32)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(rounds):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return (x.T if tall else x).float()


def multiplies_bfloat16() -> bool:
    """Whether the processor has instructions for it: matrix products are twice as fast then."""
    can = torch.cpu.get_capabilities()
    return bool(can.get("avx512_bf16") or can.get("amx_bf16"))


class Muon:
    """For the weight matrices inside the network; embeddings, norms and biases want AdamW.

    With several processes each makes its share of the updates, and `share` (a sum over processes) hands them round.
    """

    def __init__(self, weights: Iterable[nn.Parameter], decay: float, mine: slice, share: Callable[[Tensor], None]):
        self.weights, self.decay, self.mine, self.share = list(weights), decay, mine, share
        self.velocity = [torch.zeros_like(weight) for weight in self.weights]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One update with Nesterov momentum; `rate` is scaled by the matrix's shape."""
        flat = torch.zeros(sum(weight.numel() for weight in self.weights))
        parts = torch.split(flat, [weight.numel() for weight in self.weights])
        updates = [part.view_as(weight) for part, weight in zip(parts, self.weights, strict=True)]
        for number in range(len(self.weights))[self.mine]:
            gradient = self.weights[number].grad
            assert gradient is not None
            self.velocity[number].lerp_(gradient, 1 - MOMENTUM)
            updates[number].copy_(orthogonal(gradient.lerp(self.velocity[number], MOMENTUM)))
        self.share(flat)
        for weight, update in zip(self.weights, updates, strict=True):
            scale = max(1.0, weight.shape[0] / weight.shape[1]) ** 0.5
            weight.mul_(1 - rate * self.decay).add_(update, alpha=-rate * scale)
            weight.grad = None
