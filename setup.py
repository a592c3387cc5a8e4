"""Puts what lies beside the package in a checkout into the wheel, where qwen_allinone/shipped_files.py finds it."""

from pathlib import Path
from shutil import copy, copytree

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = ("prompts", "demo/checkpoint", "demo/MODEL_CARD.md", "gunicorn.conf.py")


class BuildWithData(build_py):
    """As setuptools builds a package, and then its data."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for name in SHIPPED:
                _copy(Path(name), Path(self.build_lib, "qwen_allinone", "data", name))


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        copytree(source, target, dirs_exist_ok=True)
    else:
        copy(source, target)


setup(cmdclass={"build_py": BuildWithData})
