"""Tiny Qwen2 and Qwen3 checkpoints with random weights: the files of a real one, in a few hundred kilobytes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor

CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
# As in Qwen1.5's tokenizer.json and tokenizer_config.json.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Repeated words become one token each, as the labels are in Qwen's vocabulary; 说不清 and 说不准 share a beginning.
LINES = (
    *("正面。", "负面。", "中性。", "positive ", "negative ") * 9,
    *(
        "今天天气很好，我很开心。",
        "说不清，说不准。",
        "the room was clean and the staff were friendly",
        "输入：房间干净\n情感：",
    )
    * 3,
)


@dataclass(frozen=True)
class Shape:
    """Sizes of a tiny model; grouped-query attention and a tied embedding unless told otherwise."""

    hidden: int = 64
    inner: int = 96
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    tied: bool = True
    positions: int = 512
    theta: float = 10_000.0
    biases: bool = True
    qwen3: bool = False
    head_dim: int = 0  # 0: hidden / heads

    @property
    def head(self) -> int:
        return self.head_dim or self.hidden // self.heads


@cache
def build_tokenizer() -> Tokenizer:
    """Byte-level BPE as Qwen's, trained on LINES."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=340, initial_alphabet=alphabet, show_progress=False, min_frequency=2)
    tokenizer.train_from_iterator(LINES, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in CONTROL])
    return tokenizer


def write_tokenizer(folder: Path, template: str | None = TEMPLATE) -> None:
    """tokenizer.json and tokenizer_config.json; without a chat template if `template` is None."""
    folder.mkdir(parents=True, exist_ok=True)
    build_tokenizer().save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": CONTROL[0],
        "pad_token": CONTROL[0],
        "additional_special_tokens": list(CONTROL[1:]),
        "clean_up_tokenization_spaces": False,
        "model_max_length": 512,
    }
    if template is not None:
        config["chat_template"] = template
    write_json(folder / "tokenizer_config.json", config)


def write_checkpoint(
    folder: Path,
    shape: Shape | None = None,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    shards: int = 1,
    **config: Any,
) -> Path:
    """A whole checkpoint under `folder`; `config` overrides keys of config.json. Returns `folder`."""
    shape = shape or Shape()
    write_tokenizer(folder)
    write_json(folder / "config.json", config_of(shape) | config)
    write_weights(folder, random_weights(shape, seed, dtype), shards)
    return folder


def config_of(shape: Shape) -> dict[str, Any]:
    """config.json as transformers 4 wrote it for Qwen1.5."""
    family = "qwen3" if shape.qwen3 else "qwen2"
    return {
        "architectures": [f"{family.title()}ForCausalLM"],
        "model_type": family,
        **({"head_dim": shape.head, "attention_bias": False} if shape.qwen3 else {}),
        "hidden_act": "silu",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.inner,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "vocab_size": build_tokenizer().get_vocab_size(),
        "max_position_embeddings": shape.positions,
        "rms_norm_eps": 1e-6,
        "rope_theta": shape.theta,
        "tie_word_embeddings": shape.tied,
        "use_sliding_window": False,
        "sliding_window": shape.positions,
        "max_window_layers": shape.layers,
        "eos_token_id": build_tokenizer().token_to_id(CONTROL[0]),
    }


def random_weights(shape: Shape, seed: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Weights large enough that no two logits are close and replies vary: rounding must not decide an argmax."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, size in _shapes(shape):
        values = torch.randn(size, generator=generator)
        if name.endswith("norm.weight"):
            values = 1.0 + 0.1 * values
        elif name.endswith("bias") or "embed" in name or "lm_head" in name:
            values = 0.5 * values
        else:
            # Blocks that outweigh the residual; else a tied model repeats its last token for ever.
            values = values * size[-1] ** -0.5 * (4.0 if "o_proj" in name or "down_proj" in name else 1.0)
        tensors[name] = values.to(dtype)
    return tensors


def write_weights(folder: Path, tensors: dict[str, Tensor], shards: int = 1) -> None:
    """model.safetensors, or `shards` files and their index."""
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    where = {}
    for number in range(shards):
        name = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        part = {key: tensors[key] for key in list(tensors)[number::shards]}
        save_file(part, folder / name, metadata={"format": "pt"})
        where |= dict.fromkeys(part, name)
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": where})


def write_json(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")


def _shapes(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    head = shape.head
    vocabulary = build_tokenizer().get_vocab_size()
    yield "model.embed_tokens.weight", (vocabulary, shape.hidden)
    if not shape.tied:
        yield "lm_head.weight", (vocabulary, shape.hidden)
    for layer in range(shape.layers):
        prefix = f"model.layers.{layer}."
        yield prefix + "input_layernorm.weight", (shape.hidden,)
        for name, heads in (("q", shape.heads), ("k", shape.kv_heads), ("v", shape.kv_heads)):
            yield f"{prefix}self_attn.{name}_proj.weight", (heads * head, shape.hidden)
            if shape.biases and not shape.qwen3:
                yield f"{prefix}self_attn.{name}_proj.bias", (heads * head,)
        if shape.qwen3:
            yield prefix + "self_attn.q_norm.weight", (head,)
            yield prefix + "self_attn.k_norm.weight", (head,)
        yield prefix + "self_attn.o_proj.weight", (shape.hidden, shape.heads * head)
        yield prefix + "post_attention_layernorm.weight", (shape.hidden,)
        yield prefix + "mlp.gate_proj.weight", (shape.inner, shape.hidden)
        yield prefix + "mlp.up_proj.weight", (shape.inner, shape.hidden)
        yield prefix + "mlp.down_proj.weight", (shape.hidden, shape.inner)
    yield "model.norm.weight", (shape.hidden,)
