"""Readers of what the network makes of a text, used in training only."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from demo.batches import ChatBatch, MoodBatch

VECTOR = 384  # the teacher's


class Readers(nn.Module):
    """Readers used in training only: of the mood, from the words alone; of the teacher's vector, from the mean output;
    of a message's kind and of the teacher's vector of it, from the output where its reply begins.

    The label token alone teaches a word its polarity through all layers at once, slowly; the first teaches it directly.
    The second and the last make the network understand sentences as the teacher does; the third, what sort of reply is
    wanted.
    """

    def __init__(self, hidden: int, kinds: int) -> None:
        super().__init__()
        self.of_kind = nn.Linear(hidden, kinds)
        self.of_words = nn.Linear(hidden, 1)
        self.of_meaning = nn.Linear(hidden, VECTOR)
        self.of_message = nn.Linear(hidden, VECTOR)
        with torch.no_grad():
            self.of_words.weight.fill_(0.0)[:, 0] = 25.0  # embeddings are small: one of their axes is polarity

    def losses(self, words: Tensor, states: Tensor, batch: MoodBatch) -> tuple[Tensor, Tensor]:
        """Mean losses of both; `words` and `states` are [rows, length, hidden]."""
        share = (batch.filled / batch.filled.sum(1, keepdim=True)).unsqueeze(-1)
        of_words = self.of_words((words * share).sum(1)).squeeze(1)
        of_meaning = self.of_meaning((states * share).sum(1))
        polarity = functional.binary_cross_entropy_with_logits(of_words, batch.shares)
        return polarity, functional.mse_loss(of_meaning, batch.vectors)

    def of_messages(self, states: Tensor, batch: ChatBatch) -> tuple[Tensor, Tensor]:
        """Mean losses of kinds and of the teacher's vectors, 0 where a batch tells none; `states` is [tokens, hidden]."""
        guessed, vectors = self.of_kind(states[batch.answered]), self.of_message(states[batch.meant])
        kind = functional.cross_entropy(guessed, batch.kinds, reduction="sum") / max(1, len(batch.kinds))
        meaning = functional.mse_loss(vectors, batch.vectors, reduction="sum") / max(1, batch.vectors.numel())
        return kind, meaning
