"""Samples replies with transformers: an independent reading of the checkpoint, in padded batches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from demo.batches import Prompts
from qwen_allinone.tasks import render

LIMIT = 128


@dataclass(frozen=True)
class Reply:
    """A sampled reply; `ended` says whether the model ended it itself."""

    text: str
    ended: bool


class Writer:
    """Writes replies as the chat task asks for them."""

    def __init__(self, folder: Path, prompts: Prompts) -> None:
        # Any: transformers' stubs do not let `generate` be called on what from_pretrained returns.
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self.prompts = prompts

    def write(self, inputs: list[tuple[str, str]], rows: int = 50) -> list[Reply]:
        """One reply for each (text, sentiment)."""
        replies: list[Reply] = []
        for start in range(0, len(inputs), rows):
            replies += self._batch(inputs[start : start + rows])
        return replies

    @torch.inference_mode()
    def _batch(self, inputs: list[tuple[str, str]]) -> list[Reply]:
        task, tokenizer, (pad, end) = self.prompts.chat, self.prompts.tokenizer, self.prompts.ends
        coded = [tokenizer.encode_rendered(render(task, {"text": text, "sentiment": label})) for text, label in inputs]
        longest = max(map(len, coded))
        ids = torch.tensor([[pad] * (longest - len(row)) + row for row in coded])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in coded])
        out = self.model.generate(
            ids, attention_mask=mask, do_sample=True, temperature=0.7, top_p=0.9, top_k=0,
            max_new_tokens=LIMIT, eos_token_id=[pad, end], pad_token_id=pad,
        )  # fmt: skip
        replies = []
        for row in out[:, longest:].tolist():
            stop = next((i for i, token in enumerate(row) if token in (pad, end)), None)
            replies.append(Reply(tokenizer.decode(row[:stop]), stop is not None))
        return replies
