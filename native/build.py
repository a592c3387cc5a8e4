"""Builds the native library: `python native/build.py OUT.so [--machine x86_64|aarch64]`. Needs nothing but Python and a compiler.

The compiler is `$QAIO_CC` if set, else zig where the package `ziglang` is installed, else gcc, clang or cc.
"""

from __future__ import annotations

import argparse
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
_AVX2 = ["-mavx2", "-mfma", "-mf16c"]
_AVX512 = [*_AVX2, "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mprefer-vector-width=512"]
# Each instruction set's own flags; `plain` is what every processor of the machine's kind has.
ISAS = {
    "x86_64": {"plain": [], "avx2": _AVX2, "avx512": _AVX512, "avx512vnni": [*_AVX512, "-mavx512vnni"]},
    "aarch64": {"plain": []},
}
# Products and sums may be one instruction; nothing else of floating point is bent.
FLAGS = "-std=c11 -O3 -fPIC -fvisibility=hidden -ffp-contract=fast -Wall -Wextra -Werror -Wno-psabi".split()
GLIBC = "2.17"  # what manylinux2014 promises


def compiler(machine: str) -> list[str] | None:
    """The command that compiles for `machine`; None if there is none."""
    if os.environ.get("QAIO_CC"):
        return shlex.split(os.environ["QAIO_CC"])
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "cc", "-target", f"{machine}-linux-gnu.{GLIBC}"]
    if machine == platform.machine():
        return next(([name] for name in ("gcc", "clang", "cc") if shutil.which(name)), None)
    return None


def build(out: Path, machine: str = platform.machine(), extra: list[str] | None = None) -> None:
    """Compile the sources into the shared library `out`.

    Raises:
        RuntimeError: no compiler, a machine without code, or what the compiler said.
    """
    command = compiler(machine)
    if machine not in ISAS or sys.platform != "linux":
        raise RuntimeError(f"there is no native code for {sys.platform} on {machine}")
    if not command:
        raise RuntimeError("there is no C compiler: install gcc, or the package ziglang")
    flags = [*FLAGS, *(extra or [])]
    with tempfile.TemporaryDirectory() as folder:
        jobs = [(HERE / "library.c", Path(folder, "library.o"), [])]
        jobs += [
            (HERE / "isa.c", Path(folder, f"{isa}.o"), [f"-DISA={isa}", *own]) for isa, own in ISAS[machine].items()
        ]
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda job: _run([*command, *flags, *job[2], "-c", str(job[0]), "-o", str(job[1])]), jobs))
        out.parent.mkdir(parents=True, exist_ok=True)
        fresh = out.with_suffix(".new")  # a process may have the old one mapped
        _run([*command, *(extra or []), "-shared", "-o", str(fresh), *(str(made) for _, made, _ in jobs), "-lm"])
        fresh.replace(out)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command)} failed:\n{done.stderr.strip()}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--machine", default=platform.machine(), choices=sorted(ISAS))
    given = parser.parse_args()
    try:
        build(given.out, given.machine)
    except RuntimeError as error:
        sys.exit(str(error))
