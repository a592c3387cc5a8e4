"""The slow reference: transformers, one request at a time. Imported only by tests that compare with it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig


@cache
def load_model(folder: Path) -> Any:
    """transformers' own model in FP32."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@cache
def load_tokenizer(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder)


@torch.inference_mode()
def logits(folder: Path, ids: Sequence[int]) -> Tensor:
    """Logits after each of `ids`, [len(ids), vocab]."""
    return load_model(folder)(input_ids=torch.tensor([list(ids)])).logits[0]  # type: ignore[no-any-return]


@torch.inference_mode()
def last_state(folder: Path, ids: Sequence[int]) -> Tensor:
    """The hidden state after the last of `ids`, as the head reads it, [hidden]."""
    out = load_model(folder)(input_ids=torch.tensor([list(ids)]), output_hidden_states=True)
    return out.hidden_states[-1][0, -1]  # type: ignore[no-any-return]


@torch.inference_mode()
def greedy(folder: Path, prompt: Sequence[int], count: int, stop_ids: frozenset[int]) -> tuple[int, ...]:
    """What `generate` says to `prompt`, without the stop token; the first token is never a stop."""
    config = GenerationConfig(
        do_sample=False, max_new_tokens=count, min_new_tokens=1, eos_token_id=sorted(stop_ids) or None, pad_token_id=0
    )
    ids = torch.tensor([list(prompt)])
    out = load_model(folder).generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
    reply: list[int] = out[0, len(prompt) :].tolist()
    return tuple(reply[:-1] if reply and reply[-1] in stop_ids else reply)


def label_probabilities(folder: Path, prompt: Sequence[int], labels: Sequence[Sequence[int]]) -> list[float]:
    """Probability of each label if each token is drawn among those that some label allows next."""
    out = []
    for label in labels:
        probability = 1.0
        for depth, token in enumerate(label):
            path = list(label[:depth])
            allowed = sorted({row[depth] for row in labels if list(row[:depth]) == path and len(row) > depth})
            scores = logits(folder, [*prompt, *path])[-1, allowed].double().softmax(-1)
            probability *= float(scores[allowed.index(token)])
        out.append(probability)
    return out
