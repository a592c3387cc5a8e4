"""Loads the native library and calls it: the C interface (native/qaio.h) with ctypes.

It computes with the threads of torch's own OpenMP library, so that no second pool fights for the cores.
"""

from __future__ import annotations

import ctypes
import logging
import os
import threading
from collections.abc import Callable
from ctypes import CFUNCTYPE, POINTER, c_char_p, c_float, c_int, c_int32, c_size_t, c_void_p
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

FILE = Path(__file__).with_name("libqaio.so")
INTERFACE = 2  # of qaio.h
PANEL = 32  # outputs whose weights lie together
RANK_CHUNK, RANK_BLOCK = 64, 16  # how an adapter's numbers lie together
MOST_PARTS = 3  # that one of them computes side by side
EXACT, INT8 = 0, 1
PLAIN = "plain"  # the code for any processor

log = logging.getLogger(__name__)


class CLinear(ctypes.Structure):
    """`Linear` of qaio.h."""

    _fields_ = (
        ("kind", c_int32),
        ("n", c_int32),
        ("k", c_int32),
        ("unused", c_int32),
        ("weights", c_void_p),
        ("scales", c_void_p),
        ("bias", c_void_p),
    )


class CLayer(ctypes.Structure):
    """`Layer` of qaio.h."""

    _fields_ = (
        ("qkv", CLinear),
        ("out", CLinear),
        ("gate_up", CLinear),
        ("down", CLinear),
        ("attention_norm", c_void_p),
        ("mlp_norm", c_void_p),
        ("head_norms", c_void_p),
    )


class CModel(ctypes.Structure):
    """`Model` of qaio.h."""

    _fields_ = (
        ("layers", c_int32),
        ("hidden", c_int32),
        ("heads", c_int32),
        ("kv_heads", c_int32),
        ("head_dim", c_int32),
        ("inner", c_int32),
        ("epsilon", c_float),
        ("unused", c_int32),
        ("layer", POINTER(CLayer)),
        ("rotations", c_void_p),
    )


class CCache(ctypes.Structure):
    """`Cache` of qaio.h."""

    _fields_ = (
        ("blocks", c_int32),
        ("keys_are_half", c_int32),
        ("values_are_half", c_int32),
        ("unused", c_int32),
        ("keys", POINTER(c_void_p)),
        ("values", POINTER(c_void_p)),
    )


class CPart(ctypes.Structure):
    """`Part` of qaio.h."""

    _fields_ = (("begin", c_int32), ("end", c_int32), ("first", c_int32), ("ranks", c_int32), ("up", c_void_p))


class CLowRank(ctypes.Structure):
    """`LowRank` of qaio.h."""

    _fields_ = (("ranks", c_int32), ("parts", c_int32), ("down", c_void_p), ("part", CPart * MOST_PARTS))


class CSpan(ctypes.Structure):
    """`Span` of qaio.h."""

    _fields_ = (("first", c_int32), ("end", c_int32), ("updates", POINTER(CLowRank)))


class CBatch(ctypes.Structure):
    """`Batch` of qaio.h."""

    _fields_ = (
        ("rows", c_int32),
        ("ranks", c_int32),
        ("spans", c_int32),
        ("unused", c_int32),
        ("slots", POINTER(c_int32)),
        ("indexes", POINTER(c_int32)),
        ("ends", POINTER(c_int32)),
        ("positions", POINTER(c_int32)),
        ("visible", POINTER(c_void_p)),
        ("span", POINTER(CSpan)),
        ("x", c_void_p),
    )


class CIsa(ctypes.Structure):
    """`Isa` of qaio.h."""

    _fields_ = (
        ("name", c_char_p),
        ("has_fast_int8", c_int32),
        ("unused", c_int32),
        ("linear", CFUNCTYPE(None, POINTER(CLinear), c_void_p, c_void_p, c_int, c_void_p)),
        ("linear_scratch", CFUNCTYPE(c_size_t, POINTER(CLinear), c_int)),
        ("step", CFUNCTYPE(None, POINTER(CModel), POINTER(CCache), POINTER(CBatch), c_void_p)),
        ("step_scratch", CFUNCTYPE(c_size_t, POINTER(CModel), POINTER(CCache), c_int, c_int)),
    )


class Library:
    """The library with the best code that this processor has, or with that of the instruction set `isa`.

    One call at a time computes; others wait.
    """

    def __init__(self, file: Path = FILE, isa: str | None = None) -> None:
        """Raises OSError: no such file, not for this machine, built from other sources, or no OpenMP library of torch's
        to lend its threads."""
        self._c = _declared(ctypes.CDLL(str(file)))
        found = self._c.qaio_isa(isa.encode() if isa else None)
        if not found:
            raise OSError(f"this processor does not have {isa}")
        self._isa = found.contents
        self._openmp = _openmp()
        self.isa: str = self._isa.name.decode()
        self.has_fast_int8 = bool(self._isa.has_fast_int8)
        self._calling = threading.Lock()
        self._scratch = torch.empty(0, dtype=torch.uint8)

    def linear(self, linear: CLinear, x: Tensor, y: Tensor) -> None:
        """y [rows, n] = x [rows, k] W^T + b; both are contiguous float32."""
        rows = x.shape[0]
        with self._calling:
            self._gather()
            scratch = self._room(self._isa.linear_scratch(linear, rows))
            self._isa.linear(linear, x.data_ptr(), y.data_ptr(), rows, scratch)

    def step(self, model: CModel, cache: CCache, batch: CBatch) -> None:
        """The layers of `model` over tokens of some sequences; `batch.x` is changed in place."""
        with self._calling:
            self._gather()
            scratch = self._room(self._isa.step_scratch(model, cache, batch.rows, batch.ranks))
            self._isa.step(model, cache, batch, scratch)

    def _gather(self) -> None:
        """Tell the team how many threads this one may use: how much scratch is needed depends on it."""
        self._c.qaio_team(*self._openmp, torch.get_num_threads())

    def _room(self, size: int) -> int:
        """The address of at least `size` bytes."""
        if len(self._scratch) < size:
            self._scratch = torch.empty(size, dtype=torch.uint8)
        return self._scratch.data_ptr()


@cache
def library() -> Library | None:
    """The library, if it is there and computes what it should; else None, with a line in the log that says why."""
    try:
        loaded = Library()
    except OSError as error:
        log.warning("no native kernels, torch's are used: %s", error)
        return None
    if loaded.isa == PLAIN:
        log.info("no native kernels for this processor, torch's are used")
        return None
    return loaded


def isas(file: Path = FILE) -> list[str]:
    """The instruction sets that the library has code for, best first."""
    c = _declared(ctypes.CDLL(str(file)))
    names: list[str] = []
    while name := c.qaio_name(len(names)):
        names.append(name.decode())
    return names


def _declared(c: ctypes.CDLL) -> ctypes.CDLL:
    if not hasattr(c, "qaio_interface") or c.qaio_interface() != INTERFACE:
        raise OSError("libqaio.so was built from other sources than these: install the package again")
    c.qaio_name.argtypes, c.qaio_name.restype = [c_int], c_char_p
    c.qaio_isa.argtypes, c.qaio_isa.restype = [c_char_p], POINTER(CIsa)
    c.qaio_team.argtypes, c.qaio_team.restype = [c_void_p, c_void_p, c_int], None
    return c


def _openmp() -> tuple[int | None, int | None]:
    """The addresses of GOMP_parallel and omp_get_num_threads in the OpenMP library that torch has loaded."""
    with open("/proc/self/maps", encoding="utf-8") as maps:
        files = {line.split(maxsplit=5)[5].strip() for line in maps if "libgomp" in line}
    torchs = os.path.dirname(torch.__file__)
    for file in sorted(files, key=lambda file: not file.startswith(torchs)):
        loaded = ctypes.CDLL(file)
        return tuple(_address(loaded.__getattr__(name)) for name in ("GOMP_parallel", "omp_get_num_threads"))  # type: ignore[return-value]
    raise OSError("torch has loaded no libgomp")


def _address(function: Callable[..., object]) -> int | None:
    return ctypes.cast(function, c_void_p).value  # type: ignore[arg-type]
