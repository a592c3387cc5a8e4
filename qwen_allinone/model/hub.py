"""Models on the hub, or on the mirror that HF_ENDPOINT names: in its cache, what there is, fetched, compared."""

from __future__ import annotations

import hashlib
import logging
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from huggingface_hub import model_info, snapshot_download
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoSibling

from qwen_allinone.errors import CheckpointError
from qwen_allinone.model.weights import weight_files
from qwen_allinone.wording import Said, message_of, said

# Everything the service reads, and nothing that could run code.
_PATTERNS = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"]
_PATTERNS += ["chat_template.jinja", "*.safetensors", "model.safetensors.index.json"]
# The hub must answer a first question this fast or be called out of reach: an operator waits for the log line.
_HUB_TIMEOUT_S = 6.0
_WHAT: dict[str, Any] = {"allow_patterns": _PATTERNS, "etag_timeout": _HUB_TIMEOUT_S}

log = logging.getLogger(__name__)


def cached(name: str, revision: str) -> Path | None:
    """The snapshot in the hub's cache, if complete; makes no call. Raises CheckpointError for a name that is none."""
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=_PATTERNS, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    except HFValidationError:
        raise CheckpointError(said("model_name_form", name=name)) from None
    try:
        needed = [folder / "config.json", folder / "tokenizer.json", *weight_files(folder)]
    except CheckpointError:
        return None
    return folder if all(file.exists() for file in needed) else None


def downloaded(name: str, revision: str, folder: Path | None = None) -> Path:
    """Where the files of a model are, now that what was missing has been fetched: in `folder`, or in the hub's cache.

    What an earlier try has fetched is kept. Raises CheckpointError, which says why it could not be had.
    """
    log.info("downloading %s (%s) from the hub; this happens once", name, revision)
    with _told(name, revision):
        _ask_hub(name, revision)
        return Path(snapshot_download(name, revision=revision, local_dir=folder, **_WHAT))


@dataclass(frozen=True)
class RemoteFile:
    """A file of a model on the hub: its size in bytes, whether it is still to be fetched."""

    name: str
    size: int
    missing: bool


def files(name: str, revision: str, folder: Path | None = None) -> list[RemoteFile]:
    """What `downloaded` would see to; fetches nothing. Raises CheckpointError."""
    with _told(name, revision):
        _ask_hub(name, revision)
        planned = snapshot_download(name, revision=revision, local_dir=folder, dry_run=True, **_WHAT)
    return [RemoteFile(file.filename, file.file_size, file.will_download) for file in planned]


def verify(name: str, revision: str, folder: Path) -> None:
    """Compare the files in `folder` with the hub's SHA-256 of them, or with their size where it tells none.

    Raises:
        CheckpointError: one differs. It is removed, so that the next download fetches it again.
    """
    with _told(name, revision):
        known = model_info(name, revision=revision, timeout=_HUB_TIMEOUT_S, files_metadata=True).siblings or []
    for file in known:
        path = folder / file.rfilename
        if any(fnmatch(file.rfilename, pattern) for pattern in _PATTERNS) and _differs(path, file):
            path.resolve().unlink(missing_ok=True)  # what the cache's link leads to
            path.unlink(missing_ok=True)
            raise CheckpointError(said("download_differs", path=path))


def room(folder: Path | None = None) -> tuple[Path, int]:
    """Where downloads go, `folder` or the hub's cache, and the bytes that are free there."""
    place = (folder or Path(HF_HUB_CACHE)).absolute()
    there = next(parent for parent in (place, *place.parents) if parent.exists())
    return place, shutil.disk_usage(there).free


def _differs(path: Path, file: RepoSibling) -> bool:
    if file.lfs:
        with path.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest() != file.lfs.sha256
    return file.size is not None and path.stat().st_size != file.size


@contextmanager
def _told(name: str, revision: str) -> Iterator[None]:
    """Raises what the hub's client raises as a CheckpointError."""
    try:
        yield
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise CheckpointError(said("hub_refuses", name=name, revision=revision, error=_first(error))) from None
    except OfflineModeIsEnabled:
        raise CheckpointError(said("offline_and_not_cached", name=name)) from None
    except (LocalEntryNotFoundError, TimeoutError) as error:
        missing = said("not_in_cache", name=name)
        raise CheckpointError(said("hub_out_of_reach", missing=missing, error=_first(error))) from None
    except Exception as error:  # a disk that is full, and whatever else the hub's client passes on
        raise CheckpointError(
            said("downloading_failed", name=name, name2=type(error).__name__, error=_first(error))
        ) from None


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
        raise TimeoutError(said("silent", seconds=f"{_HUB_TIMEOUT_S:g}")) from None
    except (HfHubHTTPError, OfflineModeIsEnabled):
        raise
    except Exception as error:  # the transport's own, not all of one tree
        raise TimeoutError(f"{type(error).__name__}: {_first(error)}") from None


def _first(error: Exception) -> str:
    message = message_of(error)
    return message if isinstance(message, Said) else (str(error).strip().splitlines() or [""])[0][:300]
