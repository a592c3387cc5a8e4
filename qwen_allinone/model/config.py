"""The shape of a Qwen2ForCausalLM or Qwen3ForCausalLM checkpoint, read from its config.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from qwen_allinone.errors import CheckpointError
from qwen_allinone.wording import complaint, said

QWEN2, QWEN3 = "Qwen2ForCausalLM", "Qwen3ForCausalLM"


class ModelConfig(BaseModel):
    """The keys of config.json this forward pass depends on (names as in transformers)."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    hidden_size: int = Field(ge=1)
    intermediate_size: int = Field(ge=1)
    num_hidden_layers: int = Field(ge=1)
    num_attention_heads: int = Field(ge=1)
    num_key_value_heads: int = Field(ge=1)
    vocab_size: int = Field(ge=1)
    max_position_embeddings: int = Field(32768, ge=1)
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1e4
    tie_word_embeddings: bool = False
    head_dim: int = Field(0, description="When the file does not say: hidden_size / num_attention_heads; of Qwen3, 128")
    head_norms: bool = Field(False, description="Qwen3: queries and keys are normalised head by head")

    @model_validator(mode="before")
    @classmethod
    def _read_variants(cls, raw: Any) -> Any:
        """Newer files keep rope_theta in rope_parameters; older ones leave out what equals a default."""
        raw = dict(raw)
        raw["head_norms"] = raw.get("architectures") == [QWEN3]
        if raw["head_norms"] and raw.get("attention_bias"):
            raise ValueError(said("qwen3_bias"))
        rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
        raw.setdefault("rope_theta", rope.get("rope_theta", 1e4))
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind != "default":
            raise ValueError(said("rope_unknown", kind=kind))
        if raw.get("use_sliding_window"):
            raise ValueError(said("sliding_window"))
        if raw.get("hidden_act", "silu") != "silu":
            raise ValueError(said("activation_unknown", name=raw["hidden_act"]))
        if raw.get("quantization_config"):
            raise ValueError(said("weights_quantized"))
        heads = raw.get("num_attention_heads")
        raw.setdefault("num_key_value_heads", heads)
        hidden = raw.get("hidden_size")
        if raw["head_norms"] and raw.get("head_dim") is None:
            raw["head_dim"] = 128
        if not raw.get("head_dim") and isinstance(heads, int) and isinstance(hidden, int) and heads > 0:
            raw["head_dim"] = hidden // heads
        return raw

    @model_validator(mode="after")
    def _heads_fit(self) -> ModelConfig:
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(said("heads_not_multiple"))
        if self.head_dim < 2 or self.head_dim % 2:
            raise ValueError(said("head_dim_odd", head_dim=self.head_dim))
        return self

    @classmethod
    def load(cls, folder: Path) -> ModelConfig:
        """Read and check `folder`/config.json.

        Raises:
            CheckpointError: no file, broken JSON, another architecture, or a variant that is not supported.
        """
        file = folder / "config.json"
        try:
            raw = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise CheckpointError(said("no_config_json", folder=folder)) from None
        except (OSError, ValueError, RecursionError) as error:
            raise CheckpointError(said("file_unreadable", file=file, error=error)) from None
        found = raw.get("architectures") if isinstance(raw, dict) else None
        if found not in ([QWEN2], [QWEN3]):
            raise CheckpointError(
                said("model_kind_unknown", file=file, value=found or said("no_architecture"), qwen2=QWEN2, qwen3=QWEN3)
            )
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"])) or "config"
            raise CheckpointError(said("of_key", file=file, key=key, first=complaint(first))) from None
        except (TypeError, AttributeError) as error:  # a value of another type than any checkpoint has
            raise CheckpointError(said("config_unclear", file=file, error=error)) from None
