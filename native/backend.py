"""The build backend: setuptools', with a C compiler among its requirements where the machine has none."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

from setuptools import build_meta as _setuptools
from setuptools.build_meta import *  # noqa: F403  (the hooks that stay as they are)

_REQUIREMENTS = Path(__file__).with_name("requirements.txt")


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """What building needs beside setuptools."""
    return _setuptools.get_requires_for_build_wheel(config_settings) + _compiler()


def get_requires_for_build_editable(config_settings: Any = None) -> list[str]:
    """The same for an editable install."""
    return _setuptools.get_requires_for_build_editable(config_settings) + _compiler()


def _compiler() -> list[str]:
    """zig, which also builds for other machines (QAIO_MACHINE), unless there is a compiler of the system's."""
    there = any(shutil.which(name) for name in ("gcc", "clang", "cc"))
    if sys.platform != "linux" or (there and not os.environ.get("QAIO_MACHINE")):
        return []
    lines = _REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    return [line.split()[0] for line in lines if "==" in line]
