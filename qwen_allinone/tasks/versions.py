"""The versions of the prompts that were in force: copies that nobody edits, and the order in which they came."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from qwen_allinone.errors import TaskFileError
from qwen_allinone.files import locked_folder, replace_file
from qwen_allinone.wording import said

log = logging.getLogger(__name__)

_HISTORY = "history.json"
_MOST_KEPT = 20
_MOST_ENTRIES = 200

Files = Mapping[str, bytes]  # by `task/file`


class Entry(BaseModel):
    """A version that came into force. `why`: it was there at a start, its gold cases were tried, somebody insisted, or
    somebody went back to it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    at: float
    why: Literal["start", "tried", "forced", "back"]


_ENTRIES = TypeAdapter(list[Entry])


def task_folders(root: Path) -> list[Path]:
    """The folders under `root` that are tasks; names beginning with `.` or `_` are passed over.

    Raises:
        TaskFileError: no such folder, or no task in it.
    """
    try:
        if not root.is_dir():
            raise TaskFileError(root, "(folder)", said("does_not_exist"), said("set_prompts_folder"))
        folders = sorted(p for p in root.iterdir() if p.is_dir() and p.name[0] not in "._")
    except OSError as error:
        fix = said("readable_or_other")
        raise TaskFileError(root, "(folder)", said("is_unreadable", error=error.strerror), fix) from None
    if not folders:
        raise TaskFileError(root, "(folder)", said("holds_no_task"), said("add_folder_with_prompt"))
    return folders


def files_of(root: Path) -> Files:
    """All that belongs to the tasks under `root`. Raises TaskFileError, as `task_folders`, and OSError."""
    found = (file for folder in task_folders(root) for file in sorted(folder.iterdir()))
    return {f"{f.parent.name}/{f.name}": f.read_bytes() for f in found if f.name[0] not in ".~" and f.is_file()}


def version_of(files: Files) -> str:
    """12 characters that stand for all that is in the files."""
    sums = "".join(f"{name}\n{hashlib.sha256(files[name]).hexdigest()}\n" for name in sorted(files))
    return hashlib.sha256(sums.encode()).hexdigest()[:12]


class Versions:
    """The versions kept under one folder. Several processes may use it at the same time; all raise OSError."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, version: str) -> Path:
        """Where the copy of a version lies."""
        return self.root / version

    def keep(self, prompts: Path) -> str:
        """Copy the tasks under `prompts` as they are now; returns their version."""
        files = files_of(prompts)
        version = version_of(files)
        self.root.mkdir(parents=True, exist_ok=True)
        with locked_folder(self.root):
            if not self._is_whole(version):
                shutil.rmtree(self.folder(version), ignore_errors=True)
                temporary = Path(tempfile.mkdtemp(dir=self.root, prefix=".new-"))
                try:
                    _write(files, temporary)
                    temporary.rename(self.folder(version))
                finally:
                    shutil.rmtree(temporary, ignore_errors=True)
        return version

    def history(self) -> list[Entry]:
        """What came into force, oldest first."""
        try:
            return _ENTRIES.validate_json((self.root / _HISTORY).read_bytes())
        except FileNotFoundError:
            return []
        except ValidationError:
            log.warning("%s cannot be understood: the history of the prompts begins anew", self.root / _HISTORY)
            return []

    @property
    def current(self) -> str | None:
        """The version that came into force last."""
        entries = self.history()
        return entries[-1].version if entries else None

    def is_accepted(self, version: str) -> bool:
        """Whether it was in force before, or somebody said that it may be."""
        return any(entry.version == version for entry in self.history())

    def accept(self, version: str, why: Literal["start", "tried", "forced", "back"]) -> None:
        """Note that a version comes into force; copies that are long out of it are deleted."""
        with locked_folder(self.root):
            entries = self.history()
            if entries and entries[-1].version == version:
                return
            entries = [*entries, Entry(version=version, at=time.time(), why=why)][-_MOST_ENTRIES:]
            newest = list(dict.fromkeys(entry.version for entry in reversed(entries)))[:_MOST_KEPT]
            entries = [entry for entry in entries if entry.version in newest]
            replace_file(self.root / _HISTORY, _ENTRIES.dump_json(entries, indent=1))
            for folder in self.root.iterdir():
                if folder.is_dir() and folder.name not in newest:
                    shutil.rmtree(folder, ignore_errors=True)

    def before(self) -> str | None:
        """The version that was in force before the current one; going back twice goes back two."""
        entries = self.history()
        if not entries:
            return None
        way = [entry.version for entry in entries if entry.why != "back"]
        current = entries[-1].version
        last = max((place for place, version in enumerate(way) if version == current), default=0)
        return next((version for version in reversed(way[:last]) if version != current), None)

    def restore(self, version: str, prompts: Path) -> None:
        """Make the tasks under `prompts` those of a version: each file is replaced whole, what was not there then goes.

        Files that belong to no task stay.
        """
        wanted, there = files_of(self.folder(version)), files_of(prompts)
        for name, content in wanted.items():
            if there.get(name) != content:
                (prompts / name).parent.mkdir(exist_ok=True)
                replace_file(prompts / name, content)
        for name in there.keys() - wanted.keys():
            (prompts / name).unlink()
            with suppress(OSError):  # something else is in it
                (prompts / name).parent.rmdir()

    def _is_whole(self, version: str) -> bool:
        """Whether its copy is there and nothing of it was lost or changed."""
        try:
            return version_of(files_of(self.folder(version))) == version
        except (TaskFileError, OSError):
            return False


def _write(files: Files, root: Path) -> None:
    os.chmod(root, 0o755)
    for name, content in files.items():
        file = root / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
