"""An adapter beside a prompt, in PEFT's format: adapter_config.json and adapter_model.safetensors.

Here is read what shows without the model: the settings, the names and shapes of the tensors.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qwen_allinone.errors import TaskFileError
from qwen_allinone.wording import complaint, said

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
BASE = "base_fingerprint"  # in the metadata of the weights that `tune` writes
MOST_RANK = 512

_TENSOR = re.compile(
    r"base_model\.model\.model\.layers\.(0|[1-9]\d{0,3})\.(self_attn\.[qkvo]_proj|mlp\.(?:gate|up|down)_proj)\.lora_(A|B)\.weight"
)
_MOST_BYTES = 1 << 30
_MOST_HEADER = 1 << 24
# What PEFT can do beside plain LoRA. Each changes what the numbers mean.
_NOT_SUPPORTED = (
    "use_dora", "use_qalora", "fan_in_fan_out", "lora_bias", "modules_to_save", "rank_pattern", "alpha_pattern",
    "trainable_token_indices", "target_parameters", "layer_replication", "alora_invocation_tokens", "megatron_config",
    "arrow_config", "use_bdlora", "monteclora_config", "velora_config",
)  # fmt: skip
# These begin with changed weights of the base model, which a plain adapter then does not go with.
_PLAIN_STARTS = (True, False, "gaussian", "orthogonal", "eva")


class AdapterConfig(BaseModel):
    """The keys of adapter_config.json that plain LoRA depends on (names as in PEFT)."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    peft_type: Literal["LORA"]
    base_model_name_or_path: str | None = None
    r: int = Field(ge=1, le=MOST_RANK)
    lora_alpha: float = Field(gt=0, lt=math.inf)
    use_rslora: bool = False
    bias: Literal["none"] = "none"

    @property
    def scale(self) -> float:
        """What the products are multiplied by."""
        return self.lora_alpha / (math.sqrt(self.r) if self.use_rslora else self.r)


@dataclass(frozen=True)
class AdapterFiles:
    """Both files as they were when the task was loaded. `digest` stands for what they hold.

    `tensors`: by layer and projection (`self_attn.q_proj`), the names and shapes of its two matrices, A [r, in] and B
    [out, r]. `base`: fingerprint of the checkpoint that it was made for, None where nobody has noted it.
    """

    folder: Path
    config: AdapterConfig
    digest: str
    tensors: dict[tuple[int, str], dict[str, tuple[str, tuple[int, ...]]]]
    base: str | None = None

    @property
    def weights(self) -> Path:
        return self.folder / ADAPTER_WEIGHTS


def load_adapter_files(folder: Path) -> AdapterFiles | None:
    """The adapter in `folder`; None if there is none.

    Raises:
        TaskFileError: one of the files is missing or broken, or it is more than plain LoRA on linear layers.
    """
    config_file, weights = folder / ADAPTER_CONFIG, folder / ADAPTER_WEIGHTS
    pickled = next(iter(sorted([*folder.glob("adapter_model.bin"), *folder.glob("adapter_model.pt*")])), None)
    if pickled:
        fix = said("save_safely", adapter_weights=ADAPTER_WEIGHTS)
        raise TaskFileError(pickled, "(file)", said("is_pickle"), fix)
    if not config_file.exists() and not weights.exists():
        return None
    for file in (config_file, weights):
        if not file.exists():
            fix = said("two_files", adapter_config=ADAPTER_CONFIG, adapter_weights=ADAPTER_WEIGHTS)
            raise TaskFileError(file, "(file)", said("is_missing"), fix)
    config_bytes, data = _read(config_file), _read(weights)
    header = _header(weights, data)
    base = header.pop("__metadata__", {}).get(BASE)
    config, digest = _config(config_file, config_bytes), digest_of(config_bytes, data)
    return AdapterFiles(folder, config, digest, _tensors(weights, header), base)


def digest_of(config: bytes, weights: bytes) -> str:
    """12 characters that stand for what both files hold."""
    return hashlib.sha256(hashlib.sha256(config).digest() + weights).hexdigest()[:12]


def _read(file: Path) -> bytes:
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise TaskFileError(file, "(file)", said("larger_than_adapters"), said("put_adapter_or_remove"))
        return file.read_bytes()
    except OSError as error:
        raise TaskFileError(
            file, "(file)", said("is_unreadable", error=error.strerror), said("make_readable_file")
        ) from None


def _config(file: Path, raw: bytes) -> AdapterConfig:
    try:
        read = json.loads(raw)
        if not isinstance(read, dict):
            raise ValueError(said("no_object"))
    except (ValueError, RecursionError) as error:
        raise TaskFileError(file, "(json)", said("is_unreadable", error=error), said("write_anew_with_peft")) from None
    kinds = read.get("init_lora_weights", True)
    extra = [name for name in _NOT_SUPPORTED if read.get(name)]
    if not any(kinds is plain or (isinstance(plain, str) and kinds == plain) for plain in _PLAIN_STARTS):
        extra.append("init_lora_weights")
    if extra:
        raise TaskFileError(file, extra[0], said("is_not_supported"), said("train_plain_lora"))
    try:
        return AdapterConfig.model_validate(read)
    except ValidationError as error:
        first = error.errors()[0]
        fix = said("plain_lora")
        raise TaskFileError(file, ".".join(map(str, first["loc"])), complaint(first), fix) from None


def _header(file: Path, data: bytes) -> dict[str, Any]:
    """What a safetensors file says of its tensors. Their places are checked by who reads them."""
    try:
        (size,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + size]) if size <= _MOST_HEADER else None
    except (struct.error, ValueError, RecursionError):
        header = None
    if not isinstance(header, dict) or not all(isinstance(entry, dict) for entry in header.values()):
        raise TaskFileError(file, "(file)", said("safetensors_cut"), said("copy_again_or_train"))
    return header


def _tensors(file: Path, header: dict[str, Any]) -> dict[tuple[int, str], dict[str, tuple[str, tuple[int, ...]]]]:
    found: dict[tuple[int, str], dict[str, tuple[str, tuple[int, ...]]]] = {}
    for name, entry in header.items():
        match = _TENSOR.fullmatch(name)
        if match is None:
            fix = said("target_modules")
            raise TaskFileError(file, name[:120], said("module_not_supported"), fix)
        layer, module, side = match.groups()
        shape = entry.get("shape")
        if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
            raise TaskFileError(file, name, said("has_no_shape"), said("train_adapter_anew"))
        found.setdefault((int(layer), module), {})[side] = (name, tuple(shape))
    if not found:
        raise TaskFileError(file, "(file)", said("holds_no_tensor"), said("train_anew_or_remove"))
    for (layer, module), sides in found.items():
        if set(sides) != {"A", "B"}:
            raise TaskFileError(file, f"layers.{layer}.{module}", said("has_half_its_matrices"), said("train_it_anew"))
    return found
