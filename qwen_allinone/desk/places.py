"""Where a file of feedback lies: on a disk, or in an object store under a URI."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal
from urllib.parse import unquote, urlsplit

from qwen_allinone.errors import DataFileError
from qwen_allinone.wording import said

SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss", "hdfs", "file")


@dataclass(frozen=True)
class StoredFile:
    """A file in an object store; opened with pyarrow, which finds keys and regions where the store's own tools do.

    No message quotes the URI: it may hold a password.
    """

    uri: str

    @property
    def name(self) -> str:
        return PurePosixPath(unquote(urlsplit(self.uri).path)).name

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix

    def open(self, mode: Literal["rb"] = "rb") -> io.BufferedReader:
        """Read from its beginning, any number of times; raises OSError, or DataFileError: no such store."""
        try:
            from pyarrow import fs
        except ImportError:
            raise DataFileError(said("stores_need_pyarrow", file=str(self))) from None
        try:
            store, path = fs.FileSystem.from_uri(self.uri)
        except ValueError as error:  # pyarrow's own, of a URI that it does not take
            raise DataFileError(said("uri_unusable", file=str(self), error=_without(self.uri, error))) from None
        raw: Any = store.open_input_file(path)
        return io.BufferedReader(raw, 1 << 20)

    def __str__(self) -> str:
        parts = urlsplit(self.uri)
        return f"{parts.scheme}://{parts.hostname or ''}{parts.path}"


File = Path | StoredFile


def place(named: str) -> File:
    """What a user named: a path, or a URI of an object store.

    Raises:
        DataFileError: a URI of a kind that is not known.
    """
    scheme, separator, _ = named.partition("://")
    if not separator:
        return Path(named)
    if scheme not in SCHEMES:
        raise DataFileError(said("store_unknown", scheme=scheme, known=SCHEMES))
    return StoredFile(named)


def openable(file: File) -> Path | IO[bytes]:
    """For libraries that take a path or an open file."""
    return file if isinstance(file, Path) else file.open("rb")


def _without(uri: str, error: ValueError) -> str:
    return str(error).replace(uri, "the URI")
