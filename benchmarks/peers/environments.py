"""A virtual environment for each peer, and the model in the form each peer reads; both made once and kept.

Packages come from wherever pip is told to look (PIP_INDEX_URL and the like). llama.cpp is compiled: minutes.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.process import PeerFailed, run

_LLAMA = "llama-cpp-python==0.3.36"


@dataclass(frozen=True)
class Environment:
    """What is installed, and what of it is taken out again."""

    requirements: tuple[str, ...]
    unwanted: tuple[str, ...] = ()

    @property
    def stamp(self) -> str:
        """Changes when the environment has to."""
        return "\n".join([*self.requirements, *(f"without {name}" for name in self.unwanted)]) + "\n"


ENVIRONMENTS = {
    "hf": Environment(("torch==2.13.0", "transformers==5.23.0")),
    "llama": Environment((_LLAMA,)),
    # The first alone gets an openvino of a later patch, whose library has another name than the one it loads.
    "ov": Environment(("openvino-genai==2026.4.0.0", "openvino-tokenizers==2026.4.0.0", "openvino==2026.4.0")),
    # Converts for the other two. torchvision comes along, is not needed and fails beside a CPU build of torch;
    # llama.cpp's converter imports sentencepiece before it looks whether the model uses it.
    "export": Environment(
        ("torch==2.13.0", "optimum-intel[openvino]==2.2.0", "sentencepiece==0.2.3"), unwanted=("torchvision",)
    ),
}

# A program that runs to its end: command, log, variables to add; raises PeerFailed.
Run = Callable[[Sequence[str], Path, Mapping[str, str]], None]


class Workshop:
    """A folder with environments (`envs`), converted models (`models`) and logs (`logs`)."""

    def __init__(self, folder: Path, run: Run = run) -> None:
        self._folder = folder
        self._run_program = run
        for name in ("envs", "models", "logs"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def log(self, name: str) -> Path:
        """Where a program called `name` writes what it has to say."""
        return self._folder / "logs" / f"{name.replace(':', '-')}.log"

    def python(self, name: str) -> Path:
        """The interpreter of the environment `name`; made if its stamp is absent or speaks of other packages."""
        wanted = ENVIRONMENTS[name]
        folder, stamp = self._folder / "envs" / name, self._folder / "envs" / f"{name}.installed"
        python = folder / "bin" / "python"
        if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted.stamp:
            return python
        stamp.unlink(missing_ok=True)
        self._run(f"{name}-venv", sys.executable, "-m", "venv", str(folder))
        self._run(f"{name}-install", str(python), "-m", "pip", "install", *wanted.requirements)
        if wanted.unwanted:
            self._run(f"{name}-uninstall", str(python), "-m", "pip", "uninstall", "-y", *wanted.unwanted)
        stamp.write_text(wanted.stamp, encoding="utf-8")
        return python

    def converted(self, model: Path, form: str) -> Path:
        """`model` as `gguf-TYPE` (a file) or `openvino-WEIGHTS` (a folder); converted if it is not there yet."""
        target = self._folder / "models" / key_of(model) / form
        if target.exists():
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(target.name + ".partial")
        _remove(partial)
        family, _, weights = form.partition("-")
        if family == "gguf":
            self._to_gguf(model, weights, partial)
        else:
            self._to_openvino(model, weights, partial)
        partial.rename(target)
        return target

    def _to_openvino(self, model: Path, weights: str, target: Path) -> None:
        tool = self.python("export").with_name("optimum-cli")
        task = ("--task", "text-generation-with-past", "--weight-format", weights)
        self._run(f"openvino-{weights}", str(tool), "export", "openvino", "--model", str(model), *task, str(target))

    def _to_gguf(self, model: Path, weights: str, target: Path) -> None:
        python, script = self.python("export"), self._converter()
        options = ("--outtype", weights, "--outfile", str(target))
        self._run(f"gguf-{weights}", str(python), str(script), *options, str(model))

    def _converter(self) -> Path:
        """llama.cpp's own converter, of the version that is measured: only the source package holds it."""
        folder = self._folder / _LLAMA.replace("==", "-")
        script = folder / "convert_hf_to_gguf.py"
        if not script.exists():
            source = self._folder / "source"
            _remove(source)
            options = ("--no-deps", "--no-binary", "llama-cpp-python", "--dest", str(source))
            self._run("llama-source", str(self.python("export")), "-m", "pip", "download", *options, _LLAMA)
            unpack_converter(next(source.glob("*.tar.gz")), folder)
            _remove(source)
        return script

    def _run(self, name: str, *command: str) -> None:
        self._run_program(command, self.log(name), {"HF_HUB_OFFLINE": "1"})


def key_of(model: Path) -> str:
    """A folder name for a checkpoint: its own, and a hash that changes with its place and its files."""
    model = model.resolve()
    files = sorted([*model.glob("*.json"), *model.glob("*.safetensors")])
    seen = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return f"{model.name}-{hashlib.sha256(repr((str(model), seen)).encode()).hexdigest()[:12]}"


def unpack_converter(archive: Path, folder: Path) -> None:
    """Take the converter, its modules and its gguf package out of llama-cpp-python's source archive."""
    partial = folder.with_name(folder.name + ".partial")
    _remove(partial)
    with tarfile.open(archive) as source:
        for member in source:
            _, _, name = member.name.partition("/vendor/llama.cpp/")
            if name == "convert_hf_to_gguf.py" or name.startswith(("conversion/", "gguf-py/gguf/")):
                member.name = name
                source.extract(member, partial, filter="data")
    if not (partial / "convert_hf_to_gguf.py").exists():
        raise PeerFailed(f"{archive.name} holds no convert_hf_to_gguf.py")
    partial.rename(folder)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
