"""Finds a checkpoint (the embedded demo, a local folder, the hub or its cache) and loads it."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import model_info, snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from qwen_allinone.errors import CheckpointError
from qwen_allinone.host import heap_returned
from qwen_allinone.model.config import ModelConfig
from qwen_allinone.model.linear import Weights
from qwen_allinone.model.qwen2 import Qwen2
from qwen_allinone.model.tokenizer import Tokenizer
from qwen_allinone.model.weights import WeightReader, fingerprint, weight_files
from qwen_allinone.shipped_files import SHIPPED

DEMO = "demo"
DEMO_FOLDER = SHIPPED / "demo" / "checkpoint"

# Everything the service reads, and nothing that could run code.
_PATTERNS = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"]
_PATTERNS += ["chat_template.jinja", "*.safetensors", "model.safetensors.index.json"]
# The hub must answer a first question this fast or be called out of reach: an operator waits for the log line.
_HUB_TIMEOUT_S = 6.0

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
    identity: str


def load(name: str, revision: str, weights: Weights, context: int) -> Checkpoint:
    """Find the checkpoint `name`, verify its files and load it.

    Raises:
        CheckpointError: says what is wrong and the ways out.
    """
    folder = find(name, revision)
    config = ModelConfig.load(folder)
    if context > config.max_position_embeddings:
        log.warning("QAIO_CONTEXT=%d is cut to the model's %d", context, config.max_position_embeddings)
        context = config.max_position_embeddings
    tokenizer = Tokenizer.load(folder)
    with WeightReader(folder) as reader, heap_returned():
        model = Qwen2(config, reader, context, weights, tokenizer.ids)
    identity = f"{fingerprint(folder)}:{weights}"
    return Checkpoint(name, folder, model, tokenizer, stop_ids(folder, tokenizer), identity)


def find(name: str, revision: str) -> Path:
    """The local folder of `name`; downloads from the hub what is not in its cache."""
    if name == DEMO:
        return _existing(DEMO_FOLDER)
    if is_folder(name):
        return _existing(Path(name).expanduser())
    return _cached(name, revision) or _downloaded(name, revision)


def is_folder(name: str) -> bool:
    """A name is a folder if one is there or if it is written like a path; otherwise it is a hub id."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or Path(name).is_dir()


def stop_ids(folder: Path, tokenizer: Tokenizer) -> frozenset[int]:
    """`<|endoftext|>` and `<|im_end|>`: the base model's eos alone would let a chat run on."""
    ends = (tokenizer.control_id("<|endoftext|>"), tokenizer.control_id("<|im_end|>"))
    found = frozenset(token for token in ends if token is not None)
    if not found:
        raise CheckpointError(f"the tokenizer in {folder} has neither <|endoftext|> nor <|im_end|>")
    return found


def _existing(folder: Path) -> Path:
    if not folder.is_dir():
        raise CheckpointError(f"the model folder {folder} does not exist")
    return folder


def _cached(name: str, revision: str) -> Path | None:
    """The snapshot in the hub's cache, if complete; makes no call."""
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=_PATTERNS, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    except HFValidationError:
        raise CheckpointError(f"{name!r} is neither a folder nor a valid hub id") from None
    try:
        needed = [folder / "config.json", folder / "tokenizer.json", *weight_files(folder)]
    except CheckpointError:
        return None
    return folder if all(file.exists() for file in needed) else None


def _downloaded(name: str, revision: str) -> Path:
    log.info("downloading %s (%s) from the hub; this happens once", name, revision)
    try:
        _ask_hub(name, revision)
        return Path(snapshot_download(name, revision=revision, allow_patterns=_PATTERNS, etag_timeout=_HUB_TIMEOUT_S))
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise CheckpointError(f"the hub does not give {name!r} at revision {revision!r} ({_first(error)})") from None
    except OfflineModeIsEnabled:
        raise CheckpointError(f"HF_HUB_OFFLINE is set and {name} is not (or only partly) in the hub's cache") from None
    except (LocalEntryNotFoundError, TimeoutError) as error:
        missing = f"{name} is not (or only partly) in its cache"
        raise CheckpointError(f"the hub is out of reach and {missing} ({_first(error)})") from None
    except Exception as error:  # a disk that is full, and whatever else the hub's client passes on
        raise CheckpointError(f"downloading {name} failed ({type(error).__name__}: {_first(error)})") from None


def _ask_hub(name: str, revision: str) -> None:
    """Ask the hub one question; raises what it answers, or TimeoutError if it cannot be reached in _HUB_TIMEOUT_S.

    snapshot_download (2.4) begins with calls that have no timeout, or five retries. A timeout of the transport
    would not do either: it starts anew for each address and each byte, and leaves out name resolution.
    """
    answer: Future[object] = Future()

    def ask() -> None:
        try:
            answer.set_result(model_info(name, revision=revision, timeout=_HUB_TIMEOUT_S))
        except Exception as error:
            answer.set_exception(error)

    threading.Thread(target=ask, name="hub", daemon=True).start()
    try:
        answer.result(_HUB_TIMEOUT_S)
    except TimeoutError:
        raise TimeoutError(f"no answer within {_HUB_TIMEOUT_S:g} s") from None
    except (HfHubHTTPError, OfflineModeIsEnabled):
        raise
    except Exception as error:  # the transport's own, not all of one tree
        raise TimeoutError(f"{type(error).__name__}: {_first(error)}") from None


def _first(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:300]
