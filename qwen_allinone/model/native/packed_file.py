"""A model's packed weights in a file: workers that map it hold one copy together, and a start packs nothing.

The file: 8 bytes with the length of a JSON header, the header, and the tensors, each at a multiple of 64 bytes. It is
written whole or not at all, and never changed.
"""

from __future__ import annotations

import json
import logging
import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from qwen_allinone.files import locked_folder
from qwen_allinone.model.linear import Linear
from qwen_allinone.model.native.library import Library
from qwen_allinone.model.native.linears import NativeLinear

FORMAT = 1
_ALIGNED = 64
_TYPES = {"int16": torch.int16, "uint8": torch.uint8, "float32": torch.float32}

log = logging.getLogger(__name__)


class PackedFile:
    """The linears of one model, by name: those of the file if it is there, else those that are made."""

    def __init__(self, file: Path | None, lib: Library | None) -> None:
        """Without a `file`, or a library that could use it, nothing is read or kept."""
        self._file = file if lib else None
        self._library = lib
        self._stored: dict[str, NativeLinear] = {}
        self._made: dict[str, Linear] = {}

    @contextmanager
    def open(self) -> Iterator[None]:
        """While a model is loaded: of workers that start together one packs, and the others wait for its file."""
        with ExitStack() as stack:
            if self._file is not None:
                try:
                    self._file.parent.mkdir(parents=True, exist_ok=True)
                    stack.enter_context(locked_folder(self._file.parent))
                    self._stored = self._read(self._file)
                except OSError as error:
                    log.warning("packed weights are not kept: %s", error)
                    self._file = None
            yield

    def linear(self, name: str, make: Callable[[], Linear]) -> Linear:
        """The linear `name`, mapped from the file, or made. Thread-safe."""
        stored = self._stored.get(name)
        if stored is None:
            self._made[name] = make()
        return stored or self._made[name]

    def keep(self) -> bool:
        """Write what was made, if all of it is native. True: from now on `linear` answers from the file."""
        made = {name: linear for name, linear in self._made.items() if isinstance(linear, NativeLinear)}
        if self._file is None or self._stored or len(made) < len(self._made):
            return False
        try:
            _write(self._file, made)
            self._stored = self._read(self._file)
        except OSError as error:
            log.warning("packed weights are not kept: %s", error)
        self._made = {}
        return bool(self._stored)

    def _read(self, file: Path) -> dict[str, NativeLinear]:
        """The linears of `file`; none if it is not there or is damaged."""
        try:
            header = _header(file)
            storage = torch.UntypedStorage.from_file(str(file), shared=False, nbytes=header["size"])
            assert isinstance(storage, torch.UntypedStorage)
            return {name: self._mapped(storage, entry) for name, entry in header["linears"].items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, struct.error) as error:
            log.warning("%s is not used and will be written anew: %s", file, error)
            return {}

    def _mapped(self, storage: torch.UntypedStorage, entry: dict[str, Any]) -> NativeLinear:
        assert self._library
        tensors = tuple(part and _tensor(storage, *part) for part in entry["parts"])
        return NativeLinear(entry["kind"], tuple(entry["shape"]), tensors, self._library)


def _tensor(storage: torch.UntypedStorage, kind: str, shape: list[int], offset: int) -> Tensor:
    dtype = _TYPES[kind]
    return torch.empty(0, dtype=dtype).set_(storage, offset // dtype.itemsize, shape)  # type: ignore[call-overload, no-any-return]


def _header(file: Path) -> dict[str, Any]:
    with file.open("rb") as source:
        length = struct.unpack("<Q", source.read(8))[0]
        header: dict[str, Any] = json.loads(source.read(min(length, file.stat().st_size)))
    if header["format"] != FORMAT or header["size"] != file.stat().st_size:
        raise ValueError("it is not complete, or of another version")
    return header


def _write(file: Path, linears: dict[str, NativeLinear]) -> None:
    header: dict[str, Any] = {"format": FORMAT, "size": 0, "linears": {}}
    for name, linear in linears.items():
        parts = [
            tensor if tensor is None else [str(tensor.dtype)[6:], list(tensor.shape), 0] for tensor in linear.tensors
        ]
        header["linears"][name] = {"kind": linear.c.kind, "shape": [linear.c.n, linear.c.k], "parts": parts}
    room = _aligned(2 * len(json.dumps(header)) + 8)  # the offsets make it longer
    at = room
    for name, linear in linears.items():
        for tensor, part in zip(linear.tensors, header["linears"][name]["parts"], strict=True):
            if tensor is not None:
                part[2], at = at, _aligned(at + tensor.nbytes)
    header["size"] = at
    text = json.dumps(header).encode()
    descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.write(struct.pack("<Q", room - 8) + text.ljust(room - 8))
            for linear in linears.values():
                for tensor in linear.tensors:
                    if tensor is not None:
                        _put(out, tensor)
            out.flush()
            os.fsync(descriptor)
        os.replace(temporary, file)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def _put(out: BinaryIO, tensor: Tensor) -> None:
    out.write(tensor.contiguous().numpy().data.cast("B"))
    out.write(bytes(_aligned(tensor.nbytes) - tensor.nbytes))


def _aligned(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED
