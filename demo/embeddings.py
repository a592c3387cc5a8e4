"""Where the embedding table begins: with what the teacher knows of each token, polarity on the first axis."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from demo.corpus.lexicon import Lexicon
from demo.model import Shape
from demo.teacher import Teacher
from qwen_allinone.model.tokenizer import Tokenizer

SPREAD = 0.04  # standard deviation of the table


def informed(tokenizer: Tokenizer, shape: Shape, options: argparse.Namespace) -> Tensor:
    """The table [vocabulary, hidden]; computed once for a tokenizer and kept in the folder of the training."""
    file = Path(options.work) / "embeddings.pt"
    words = [tokenizer.decode([number]) for number in range(shape.vocabulary)]
    generator = torch.Generator().manual_seed(options.seed)
    table = torch.randn(shape.vocabulary, shape.hidden, generator=generator) * SPREAD
    if not options.teacher:
        return table
    kept = torch.load(file) if file.exists() else {}
    if kept.get("words") != words:
        kept = {"words": words, "vectors": Teacher().vectors([word.strip() or "。" for word in words])}
        torch.save(kept, file)
    known = torch.tensor([bool(word.strip()) and "\ufffd" not in word for word in words])
    known[-3:] = False  # control tokens
    vectors = _spread_out(kept["vectors"][known], shape.hidden)
    vectors = _turned(vectors, _polarity(vectors, [w for w, k in zip(words, known.tolist(), strict=True) if k]))
    table[known] = vectors * (SPREAD / vectors.std())
    return table


def _spread_out(vectors: Tensor, size: int) -> Tensor:
    """Centred rows of length one, on their `size` principal axes."""
    rows = functional.normalize(vectors - vectors.mean(0), dim=1)
    rows = rows - rows.mean(0)
    axes = torch.linalg.svd(rows.T @ rows).U[:, :size]
    rows = rows @ axes
    return functional.pad(rows, (0, size - rows.shape[1]))


def _polarity(vectors: Tensor, words: list[str]) -> Tensor:
    """The direction from words of complaint to words of praise: the mean of hand-written texts' tokens, by label."""
    lexicon = Lexicon.load()
    number = {word: place for place, word in enumerate(words)}
    sums = {True: torch.zeros(vectors.shape[1]), False: torch.zeros(vectors.shape[1])}
    for written in lexicon.written:
        found = [
            number[piece]
            for n in (1, 2)
            for i in range(len(written.text))
            if (piece := written.text[i : i + n]) in number
        ]
        if found:
            sums[written.label == "正面"] += vectors[found].mean(0)
    return functional.normalize(sums[True] - sums[False], dim=0)


def _turned(vectors: Tensor, direction: Tensor) -> Tensor:
    """The same rows, mirrored (Householder, 1958) so that `direction` is the first axis."""
    first = torch.zeros_like(direction)
    first[0] = 1.0
    normal = functional.normalize(direction - first, dim=0)
    return vectors - 2 * (vectors @ normal)[:, None] * normal
