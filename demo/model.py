"""A small Qwen2 in plain torch whose batches share one prompt prefix, under transformers' weight names.

Every sentiment text is read behind the same 120 tokens of prompt. The prefix goes through the model once a
batch, and each text attends to it and to itself: the mathematics of a row for each text at a fraction of the cost.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

# How replies are drawn where a request does not say: as /chat draws them.
DRAWN = {"do_sample": True, "temperature": 0.7, "top_p": 0.9}


@dataclass(frozen=True)
class Shape:
    """Sizes of the network."""

    vocabulary: int
    hidden: int = 256
    intermediate: int = 704
    layers: int = 3
    heads: int = 4
    kv_heads: int = 2
    positions: int = 2048
    theta: float = 10000.0
    epsilon: float = 1e-6

    @property
    def head(self) -> int:
        return self.hidden // self.heads


class Attention(nn.Module):
    """Grouped-query attention over a shared prefix and the row's own tokens."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.q_proj = nn.Linear(shape.hidden, shape.heads * shape.head)
        self.k_proj = nn.Linear(shape.hidden, shape.kv_heads * shape.head)
        self.v_proj = nn.Linear(shape.hidden, shape.kv_heads * shape.head)
        self.o_proj = nn.Linear(shape.heads * shape.head, shape.hidden, bias=False)

    def forward(self, parts: tuple[Tensor, Tensor, Tensor], past: tuple[Tensor, Tensor] | None) -> Tensor:
        """`parts` from `project`; `past` keys and values [1, kv_heads, prefix, head] of the prefix.

        Plain products: on a CPU their gradients take half the time of scaled_dot_product_attention's.
        """
        q, k, v = parts
        rows, _, length, size = q.shape
        if past is not None:
            k, v = (torch.cat([old.expand(rows, -1, -1, -1), new], 2) for old, new in zip(past, (k, v), strict=True))
        k, v = self._repeat(k), self._repeat(v)
        unseen = torch.ones(length, k.shape[2], dtype=torch.bool).triu(k.shape[2] - length + 1)
        scores = (q @ k.transpose(2, 3)) * size**-0.5 + torch.zeros_like(unseen, dtype=q.dtype).masked_fill(
            unseen, -1e4
        )
        mixed = scores.softmax(-1).to(v.dtype) @ v
        out: Tensor = self.o_proj(mixed.transpose(1, 2).reshape(rows, length, -1))
        return out

    def project(self, x: Tensor, turn: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries and keys, and values: [rows, heads, length, head]."""
        rows, length, _ = x.shape

        def split(y: Tensor) -> Tensor:
            return y.view(rows, length, -1, self.shape.head).transpose(1, 2)

        return _rotate(split(self.q_proj(x)), turn), _rotate(split(self.k_proj(x)), turn), split(self.v_proj(x))

    def _repeat(self, x: Tensor) -> Tensor:
        return x.repeat_interleave(self.shape.heads // self.shape.kv_heads, dim=1)


class Mlp(nn.Module):
    """SwiGLU."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden, shape.intermediate, bias=False)
        self.up_proj = nn.Linear(shape.hidden, shape.intermediate, bias=False)
        self.down_proj = nn.Linear(shape.intermediate, shape.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Layer(nn.Module):
    """One pre-norm block."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(shape.hidden, eps=shape.epsilon)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = nn.RMSNorm(shape.hidden, eps=shape.epsilon)
        self.mlp = Mlp(shape)

    def forward(
        self, x: Tensor, turn: tuple[Tensor, Tensor], past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The block's output, and its keys and values."""
        q, k, v = self.self_attn.project(self.input_layernorm(x), turn)
        x = x + self.self_attn((q, k, v), past)
        return x + self.mlp(self.post_attention_layernorm(x)), (k, v)

    def past(self, x: Tensor, turn: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Keys and values alone: all that is wanted of the last block's prefix."""
        _, k, v = self.self_attn.project(self.input_layernorm(x), turn)
        return k, v


class Trunk(nn.Module):
    """Everything below the scores; transformers calls it `model`."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocabulary, shape.hidden)
        self.blocks = [Layer(shape) for _ in range(shape.layers)]
        self.layers = nn.ModuleList(self.blocks)
        self.norm = nn.RMSNorm(shape.hidden, eps=shape.epsilon)


class DemoModel(nn.Module):
    """Qwen2ForCausalLM with tied embeddings."""

    def __init__(self, shape: Shape, dropout: float = 0.0) -> None:
        super().__init__()
        self.shape = shape
        self.model = Trunk(shape)
        self.dropout = nn.Dropout(dropout)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                scale = 0.02 if "embed" in name else shape.hidden**-0.5 * 0.6
                nn.init.normal_(weight, std=scale / (2 * shape.layers) ** 0.5 if _writes(name) else scale)
            elif name.endswith("bias"):
                nn.init.zeros_(weight)

    def forward(self, prefix: Tensor, rows: Tensor) -> Tensor:
        """Final hidden states [rows, length, hidden] of `rows`, each read behind `prefix` [prefix length]."""
        cos, sin = _angles(self.shape, len(prefix) + rows.shape[1])
        seam = len(prefix)
        first, second = (cos[:seam], sin[:seam]), (cos[seam:], sin[seam:])
        p, x = self.model.embed_tokens(prefix)[None], self.dropout(self.model.embed_tokens(rows))
        for layer in self.model.blocks:
            if layer is self.model.blocks[-1]:
                past = layer.past(p, first)
            else:
                p, past = layer(p, first, None)
            x, _ = layer(x, second, past)
        out: Tensor = self.model.norm(x)
        return out

    def token_losses(self, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Cross entropy [n] of `targets` after `hidden` [n, hidden], and the logarithm [n] of the scores' sum."""
        scores = self.logits(hidden).float()
        total = scores.logsumexp(-1)
        return total - scores.gather(1, targets[:, None]).squeeze(1), total

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of the vocabulary."""
        return functional.linear(hidden, self.model.embed_tokens.weight)

    def save(self, folder: Path, ends: tuple[int, int]) -> None:
        """Write model.safetensors (bfloat16), config.json and generation_config.json; `ends` = (text end, turn end)."""
        weights = {name: weight.detach().to(torch.bfloat16).contiguous() for name, weight in self.state_dict().items()}
        fresh = folder / "model.safetensors.new"
        save_file(weights, fresh, metadata={"format": "pt"})
        fresh.chmod(0o644)  # safetensors makes it private
        fresh.replace(folder / "model.safetensors")  # a service may have the old file mapped: never write into it
        _write(folder / "config.json", _config(self.shape, ends[0]))
        generation = {"bos_token_id": ends[0], "eos_token_id": ends[0], "max_new_tokens": 512} | DRAWN
        _write(folder / "generation_config.json", generation)

    def begin_at(self, older: DemoModel) -> None:
        """Take the weights of `older`. Layers beyond its own are copies of its last one that add nothing as yet, so that
        what the older network says is said at first. Raises RuntimeError where the other sizes differ."""
        weights, last = older.state_dict(), older.shape.layers - 1
        for number in range(older.shape.layers, self.shape.layers):
            weights |= {
                name.replace(f"layers.{last}.", f"layers.{number}."): torch.zeros_like(weight)
                if _writes(name)
                else weight
                for name, weight in older.state_dict().items()
                if f"layers.{last}." in name
            }
        self.load_state_dict(weights)

    @classmethod
    def load(cls, folder: Path) -> DemoModel:
        """Read a saved checkpoint, as float32."""
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        shape = Shape(
            config["vocab_size"], config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"],
            config["num_attention_heads"], config["num_key_value_heads"], config["max_position_embeddings"],
            config["rope_theta"], config["rms_norm_eps"],
        )  # fmt: skip
        model = cls(shape)
        model.load_state_dict({k: v.float() for k, v in load_file(folder / "model.safetensors").items()})
        return model.eval()


def _writes(name: str) -> bool:
    return "o_proj" in name or "down_proj" in name


def _angles(shape: Shape, length: int) -> tuple[Tensor, Tensor]:
    steps = torch.arange(0, shape.head, 2, dtype=torch.float32) / shape.head
    angle = torch.arange(length, dtype=torch.float32)[:, None] / shape.theta**steps
    angle = torch.cat([angle, angle], -1)
    return angle.cos(), angle.sin()


def _rotate(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    left, right = x.chunk(2, -1)
    return x * turn[0] + torch.cat([-right, left], -1) * turn[1]


def _config(shape: Shape, end: int) -> dict[str, object]:
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": end,
        "eos_token_id": end,
        "hidden_act": "silu",
        "hidden_size": shape.hidden,
        "initializer_range": 0.02,
        "intermediate_size": shape.intermediate,
        "max_position_embeddings": shape.positions,
        "max_window_layers": shape.layers,
        "model_type": "qwen2",
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
        "rms_norm_eps": shape.epsilon,
        "rope_theta": shape.theta,
        "sliding_window": shape.positions,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": shape.vocabulary,
    }


def _write(path: Path, data: Mapping[str, object]) -> None:
    path.write_text(json.dumps(data, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
