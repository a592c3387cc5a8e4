"""A checkpoint's safetensors files: checked against the config before anything is loaded, read one tensor at a time."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import threading
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from qwen_allinone.errors import CheckpointError
from qwen_allinone.model.config import ModelConfig
from qwen_allinone.wording import said

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_SAMPLE = 1024  # bytes
_FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files a checkpoint consists of, whether or not they exist yet.

    Raises:
        CheckpointError: the folder has neither a weight file nor an index, or the index is broken.
    """
    index = folder / INDEX
    if index.exists():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise CheckpointError(said("file_unreadable", file=index, error=error)) from None
        if not all(isinstance(n, str) and Path(n).name == n and n.endswith(".safetensors") for n in names):
            raise CheckpointError(said("index_names_other_files", index=index))
        return [folder / name for name in names]
    if (folder / SINGLE).exists():
        return [folder / SINGLE]
    pickled = next(iter(sorted(folder.glob("*.bin")) + sorted(folder.glob("*.pt*"))), None)
    if pickled:
        raise CheckpointError(said("weights_are_pickle", pickled=pickled))
    raise CheckpointError(said("no_weights", folder=folder, single=SINGLE))


def fingerprint(folder: Path) -> str:
    """12 characters that stand for config, tokenizer and weights, of which samples of every tensor are read.

    Two trainings of the same shape differ in them; a single altered number does not show.
    """
    digest = hashlib.sha256()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (folder / name).exists():
            digest.update(name.encode() + hashlib.sha256((folder / name).read_bytes()).digest())
    for file in weight_files(folder):
        with file.open("rb") as source:
            size = source.read(8)
            header = source.read(struct.unpack("<Q", size)[0])
            digest.update(size + header)
            start = 8 + len(header)
            for name, entry in sorted(json.loads(header).items()):
                if name != "__metadata__":
                    begin, end = entry["data_offsets"]
                    for offset in (begin, (begin + end) // 2, max(begin, end - _SAMPLE)):
                        source.seek(start + offset)
                        digest.update(source.read(min(_SAMPLE, end - offset)))
    return digest.hexdigest()[:12]


class Rows:
    """Rows of a stored matrix, read from its file when asked for.

    A mapped file would do the same with less code, but the system maps pages around each one touched, which for a
    vocabulary come to hundreds of megabytes, and a file cut short meanwhile would end the process, not one step.
    """

    def __init__(self, file: Path, name: str) -> None:
        """The tensor `name` of the safetensors file (format: an 8-byte length, a JSON header, then the data)."""
        self._file = os.open(file, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)
        size = struct.unpack("<Q", os.pread(self._file, 8, 0))[0]
        entry = json.loads(os.pread(self._file, size, 8))[name]
        self._offset = 8 + size + entry["data_offsets"][0]
        self._dtype, self._width = _FLOATS[entry["dtype"]], entry["shape"][1]
        self._bytes = self._width * self._dtype.itemsize

    def read(self, numbers: Sequence[int]) -> Tensor:
        """Those rows, [len(numbers), width] float32; raises OSError when the file has become too short."""
        data = bytearray(max(1, len(numbers)) * self._bytes)
        view = memoryview(data)
        for index, number in enumerate(numbers):
            row = view[index * self._bytes : (index + 1) * self._bytes]
            if os.preadv(self._file, [row], self._offset + number * self._bytes) != self._bytes:
                raise OSError("the model's file was cut short while in use")
        return torch.frombuffer(data, dtype=self._dtype).view(-1, self._width)[: len(numbers)].float()


class WeightReader:
    """Reads tensors by name from the mapped files; nothing is copied until a caller converts it.

    Pages that were read count as this process's memory as long as the file stays mapped: `release` between layers
    keeps the peak of loading near the final size. Several threads may read; each maps the files for itself.
    """

    def __init__(self, folder: Path) -> None:
        self._files: dict[str, Path] = {}
        self._local = threading.local()
        for file in weight_files(folder):
            self._files.update(dict.fromkeys(self._handle(file).keys(), file))

    def __enter__(self) -> WeightReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Unmap this thread's files, but for tensors still in use; the next `read` maps them again."""
        handles = self._handles()
        while handles:
            _, handle = handles.popitem()
            handle.__exit__(None, None, None)

    @property
    def has_biases(self) -> bool:
        """Whether queries, keys and values have biases: those of Qwen2 do, those of Qwen3 do not."""
        return any(name.endswith("self_attn.q_proj.bias") for name in self._files)

    def check(self, config: ModelConfig) -> None:
        """Every tensor the config calls for is there in the right shape; raises CheckpointError if not."""
        for name, shape in expected_shapes(config, self.has_biases):
            if name not in self._files:
                raise CheckpointError(said("tensor_missing", name=name))
            stored = self._handle(self._files[name]).get_slice(name)
            if stored.get_dtype() not in _FLOATS:
                kind = stored.get_dtype()
                raise CheckpointError(said("tensor_quantized", name=name, kind=kind))
            found = tuple(stored.get_shape())
            if found != shape:
                raise CheckpointError(said("tensor_shape", name=name, found=str(found), shape=str(shape)))

    def read(self, name: str) -> Tensor:
        """The tensor called `name`, in the file's own type, mapped from the file."""
        tensor: Tensor = self._handle(self._files[name]).get_tensor(name)
        return tensor

    def rows(self, name: str) -> Rows:
        """The matrix called `name`, to be read row by row for as long as the model lives."""
        return Rows(self._files[name], name)

    def _handle(self, file: Path) -> Any:
        handles = self._handles()
        if file not in handles:
            try:
                handles[file] = safe_open(file, framework="pt", device="cpu").__enter__()  # type: ignore[no-untyped-call]
            except (OSError, SafetensorError) as error:
                self.release()
                raise CheckpointError(said("weights_damaged", file=file, error=error)) from None
        return handles[file]

    def _handles(self) -> dict[Path, Any]:
        handles: dict[Path, Any] = self._local.__dict__.setdefault("handles", {})
        return handles


def expected_shapes(config: ModelConfig, with_biases: bool = True) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of a checkpoint, as transformers writes them; a Qwen2 may do without its biases."""
    hidden, inner, head = config.hidden_size, config.intermediate_size, config.head_dim
    query, key = config.num_attention_heads * head, config.num_key_value_heads * head
    yield "model.embed_tokens.weight", (config.vocab_size, hidden)
    yield "model.norm.weight", (hidden,)
    if not config.tie_word_embeddings:
        yield "lm_head.weight", (config.vocab_size, hidden)
    for layer in range(config.num_hidden_layers):
        prefix = f"model.layers.{layer}."
        yield prefix + "input_layernorm.weight", (hidden,)
        yield prefix + "post_attention_layernorm.weight", (hidden,)
        for name, rows in (("q", query), ("k", key), ("v", key)):
            yield f"{prefix}self_attn.{name}_proj.weight", (rows, hidden)
            if with_biases:
                yield f"{prefix}self_attn.{name}_proj.bias", (rows,)
        for name in ("q_norm", "k_norm") if config.head_norms else ():
            yield f"{prefix}self_attn.{name}.weight", (head,)
        yield prefix + "self_attn.o_proj.weight", (hidden, query)
        yield prefix + "mlp.gate_proj.weight", (inner, hidden)
        yield prefix + "mlp.up_proj.weight", (inner, hidden)
        yield prefix + "mlp.down_proj.weight", (hidden, inner)
