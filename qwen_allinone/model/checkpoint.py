"""Finds a checkpoint (the embedded demo, a local folder, the hub or its cache) and loads it."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from qwen_allinone.errors import CheckpointError
from qwen_allinone.host import heap_returned
from qwen_allinone.model import hub
from qwen_allinone.model.config import ModelConfig
from qwen_allinone.model.linear import Kernels, Weights
from qwen_allinone.model.qwen2 import KeptAs, Qwen2
from qwen_allinone.model.sampling_defaults import SamplingDefaults, sampling_defaults
from qwen_allinone.model.tokenizer import Tokenizer
from qwen_allinone.model.weights import WeightReader, fingerprint
from qwen_allinone.shipped_files import SHIPPED
from qwen_allinone.wording import said

DEMO = "demo"
DEMO_FOLDER = SHIPPED / "demo" / "checkpoint"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint. `stop_ids` end a reply: end of text and end of a chat turn.

    `identity` stands for what its files hold and for how its weights are kept.
    """

    name: str
    folder: Path
    model: Qwen2
    tokenizer: Tokenizer
    stop_ids: frozenset[int]
    sampling_defaults: SamplingDefaults
    identity: str


def load(
    name: str,
    revision: str,
    weights: Weights,
    context: int,
    kernels: Kernels = "auto",
    kv: KeptAs = "auto",
    packed: Path | None = None,
) -> Checkpoint:
    """Find the checkpoint `name`, verify its files and load it. `packed`: the folder where packed weights are kept.

    Raises:
        CheckpointError: says what is wrong and the ways out.
    """
    folder = find(name, revision)
    config = ModelConfig.load(folder)
    if context > config.max_position_embeddings:
        log.warning("QAIO_CONTEXT=%d is cut to the model's %d", context, config.max_position_embeddings)
        context = config.max_position_embeddings
    tokenizer, drawn = Tokenizer.load(folder), sampling_defaults(folder)
    ends = _known_ends(folder, tokenizer, config.vocab_size)
    with WeightReader(folder) as reader, heap_returned():
        mark = fingerprint(folder)
        packed_file = packed / f"{mark}-{weights}.panels" if packed else None
        model = Qwen2(config, reader, context, weights, tokenizer.ids, kernels, kv, packed_file)
    identity = f"{mark}:{weights}" + ("" if kv == "auto" else f":{kv}")
    return Checkpoint(name, folder, model, tokenizer, ends, drawn, identity)


def find(name: str, revision: str) -> Path:
    """The local folder of `name`; downloads from the hub what is not in its cache."""
    if name == DEMO:
        return _existing(DEMO_FOLDER)
    if is_folder(name):
        return _existing(Path(name).expanduser())
    return hub.cached(name, revision) or hub.downloaded(name, revision)


def is_folder(name: str) -> bool:
    """A name is a folder if one is there or if it is written like a path; otherwise it is a hub id."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or Path(name).is_dir()


def stop_ids(folder: Path, tokenizer: Tokenizer) -> frozenset[int]:
    """`<|endoftext|>` and `<|im_end|>`: the base model's eos alone would let a chat run on."""
    ends = (tokenizer.control_id("<|endoftext|>"), tokenizer.control_id("<|im_end|>"))
    found = frozenset(token for token in ends if token is not None)
    if not found:
        raise CheckpointError(said("tokenizer_without_end", folder=folder))
    return found


def _known_ends(folder: Path, tokenizer: Tokenizer, vocabulary: int) -> frozenset[int]:
    """`stop_ids`, once the tokenizer knows no token that the model has not."""
    ends = stop_ids(folder, tokenizer)
    with suppress(ValueError):
        tokenizer.forget_beyond(vocabulary)
        if ends <= tokenizer.ids:
            return ends
    raise CheckpointError(said("tokenizer_beyond_model", folder=folder, vocabulary=vocabulary))


def _existing(folder: Path) -> Path:
    if not folder.is_dir():
        raise CheckpointError(said("no_model_folder", folder=folder))
    return folder
