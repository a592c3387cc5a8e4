"""Builds the native library: `python native/build.py OUT.so`, or its checks: `python native/build.py --check OUT`.
Needs nothing but Python and a compiler.

The compiler is `$QAIO_CC` if set, else zig where the package `ziglang` is installed, else gcc, clang or cc.
`QAIO_MACHINE=aarch64` (or `x86_64`) builds for another machine than this, which zig can.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
_AVX512 = ["-march=x86-64-v4", "-mprefer-vector-width=512"]
# Each instruction set's own flags; `plain` is what every processor of the machine's kind has.
ISAS = {
    "x86_64": {
        "plain": [],
        "avx2": ["-march=x86-64-v3"],
        "avx512": _AVX512,
        "avx512vnni": [*_AVX512, "-mavx512vnni"],
        "amx": [*_AVX512, "-mavx512vnni", "-mamx-tile", "-mamx-int8"],
    },
    "aarch64": {"neon": []},
}
# Products and sums may be one instruction; nothing else of floating point is bent.
FLAGS = ["-std=c11", "-O3", "-fPIC", "-fvisibility=hidden", "-ffp-contract=fast"]
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wno-psabi"]
GLIBC = "2.17"  # what manylinux2014 promises


def machine() -> str:
    """The kind of processor that is built for."""
    return os.environ.get("QAIO_MACHINE") or platform.machine()


def compiler() -> list[str] | None:
    """The command that compiles for `machine()`; None if there is none."""
    if os.environ.get("QAIO_CC"):
        return shlex.split(os.environ["QAIO_CC"])
    if _has_zig():
        return [sys.executable, "-m", "ziglang", "cc", "-target", f"{machine()}-linux-gnu.{GLIBC}"]
    if machine() == platform.machine():
        return next(([name] for name in ("gcc", "clang", "cc") if shutil.which(name)), None)
    return None


def platform_tag() -> str | None:
    """The tag of a wheel with this library (PEP 600), None if it is only known to run on systems like this one."""
    if sys.platform == "linux" and _has_zig() and not os.environ.get("QAIO_CC"):
        return f"manylinux_{GLIBC.replace('.', '_')}_{machine()}"
    return None


def build(out: Path, *extra: str, check: bool = False) -> None:
    """Compile the sources into the shared library `out`, or into the program `check`.

    `extra`: more flags for the compiler.

    Raises:
        RuntimeError: no compiler, a machine without code, or what the compiler said.
    """
    if machine() not in ISAS or sys.platform != "linux":
        raise RuntimeError(f"there is no native code for {sys.platform} on {machine()}")
    command = compiler()
    if not command:
        raise RuntimeError("there is no C compiler: install gcc, or the package ziglang")
    flags = [*FLAGS, *WARNINGS, *extra]
    with tempfile.TemporaryDirectory() as folder:
        jobs = [
            (HERE / f"{name}.c", Path(folder, f"{name}.o"), [])
            for name in (["library", "check"] if check else ["library"])
        ]
        for isa, own in ISAS[machine()].items():
            jobs.append((HERE / "isa.c", Path(folder, f"{isa}.o"), [f"-DISA={isa}", *map(_spelled, own)]))
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda job: _run([*command, *flags, *job[2], "-c", str(job[0]), "-o", str(job[1])]), jobs))
        out.parent.mkdir(parents=True, exist_ok=True)
        fresh = out.with_suffix(".new")  # a process may have the old one mapped
        kind = ["-pthread"] if check else ["-shared", "-s"]
        _run([*command, *extra, *kind, "-o", str(fresh), *(str(made) for _, made, _ in jobs), "-lm"])
        fresh.replace(out)


def _spelled(flag: str) -> str:
    """zig writes processors' names in its own way."""
    return flag.replace("x86-64-v", "x86_64_v") if _has_zig() and not os.environ.get("QAIO_CC") else flag


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command)} failed:\n{done.stderr.strip()}")


def _has_zig() -> bool:
    return importlib.util.find_spec("ziglang") is not None


if __name__ == "__main__":
    check, *files = sys.argv[1:] if "--check" in sys.argv[1:2] else ["", *sys.argv[1:]]
    if len(files) != 1:
        sys.exit(__doc__)
    try:
        build(Path(files[0]), check=bool(check))
    except RuntimeError as error:
        sys.exit(str(error))
