"""What a model is taught by: losses of batches, for the training and for what comes after it."""

from __future__ import annotations

import torch
from torch import Tensor

from demo.batches import Batch, MoodBatch
from demo.model import DemoModel
from demo.muon import multiplies_bfloat16

STEADY = 1e-4  # of the z-loss, which keeps scores from growing (PaLM, 2022)


def arithmetic() -> torch.autocast:
    """Matrix products in bfloat16 where that is faster; weights and their updates stay FP32."""
    return torch.autocast("cpu", torch.bfloat16, enabled=multiplies_bfloat16())


def of_moods(model: DemoModel, hidden: Tensor, batch: MoodBatch, signs: Tensor) -> Tensor:
    """How far from the batch's shares the model divides the answer; `hidden` [rows, length, hidden] are its outputs,
    `signs` [2] the tokens of 正面 and 负面."""
    count = len(batch.positions)
    chosen = hidden.reshape(-1, model.shape.hidden)[batch.positions]
    losses, totals = model.token_losses(chosen.repeat(2, 1), signs.repeat_interleave(count))
    shares = torch.cat([batch.shares, 1 - batch.shares])
    return (losses * shares).sum() / count + STEADY * (totals**2).mean()


def of_written(model: DemoModel, hidden: Tensor, batch: Batch) -> tuple[float, Tensor]:
    """Of the outputs `hidden` [tokens, hidden]: the mean loss of what counts in full, and what is to be lessened.

    Both are 0 where nothing is to be learned, as of a message whose one reply strays from its kind.
    """
    losses, totals = model.token_losses(hidden[batch.positions], batch.targets)
    counted = batch.weights >= 1
    count = counted.sum().clamp(min=1)
    loss = (losses * batch.weights).sum() / count + STEADY * (totals**2).sum() / max(len(totals), 1)
    return float((losses.detach() * counted).sum() / count), loss
