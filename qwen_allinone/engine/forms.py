"""Forms: answers whose tokens are not free."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor


class Form(Protocol):
    """What the tokens of one answer have to be. The engine's thread asks it, so it must not block or raise."""

    def allowed(self) -> bytes:
        """A bit for each token, the lowest bit of the first byte is token 0: whether it may come next. A stop id is
        among them where the answer may end."""

    def take(self, token: int) -> bool:
        """`token` has come; returns whether the answer has to end with it."""


def only(logits: Tensor, allowed: bytes) -> Tensor:
    """`logits` [vocab], with -inf for the tokens that a form does not allow; what it does not know it does not."""
    bits = np.unpackbits(np.frombuffer(allowed, np.uint8), count=len(logits), bitorder="little")
    return logits.masked_fill(torch.from_numpy(bits) == 0, -torch.inf)
