"""Puts what lies beside the package in a checkout into the wheel, where qwen_allinone/shipped_files.py finds it.

Builds the native library (native/) as well. Where that fails, torch's kernels serve.
"""

import runpy
from pathlib import Path
from shutil import copy, copytree

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

SHIPPED = ("prompts", "demo/checkpoint", "demo/MODEL_CARD.md", "gunicorn.conf.py")
LIBRARY = "qwen_allinone/model/native/libqaio.so"
NATIVE = runpy.run_path("native/build.py")


class BuildWithData(build_py):
    """As setuptools builds a package, then its data and its native library."""

    def run(self) -> None:
        super().run()
        root = Path() if self.editable_mode else Path(self.build_lib)
        try:
            NATIVE["build"](root / LIBRARY)
        except (RuntimeError, OSError) as error:
            self.warn(f"no native kernels, torch's will be used: {error}")
        if not self.editable_mode:
            for name in SHIPPED:
                _copy(Path(name), root / "qwen_allinone" / "data" / name)


class WheelForMachine(bdist_wheel):
    """A wheel that holds machine code, but none that depends on the version of Python."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", NATIVE["platform_tag"]() or super().get_tag()[2]


class ForMachine(Distribution):
    """A distribution whose files go where machine code belongs."""

    def has_ext_modules(self) -> bool:
        return True


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        copytree(source, target, dirs_exist_ok=True)
    else:
        copy(source, target)


setup(distclass=ForMachine, cmdclass={"build_py": BuildWithData, "bdist_wheel": WheelForMachine})
