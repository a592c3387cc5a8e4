"""The build backend: setuptools', with a compiler among its requirements where the machine has none."""

from __future__ import annotations

import shutil
import sys
from typing import Any

from setuptools import build_meta as _setuptools
from setuptools.build_meta import *  # noqa: F403  (the hooks that stay as they are)

ZIG = "ziglang==0.15.2"  # a C compiler in a wheel


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """What building needs beside setuptools."""
    return _setuptools.get_requires_for_build_wheel(config_settings) + _compiler()


def get_requires_for_build_editable(config_settings: Any = None) -> list[str]:
    """The same for an editable install."""
    return _setuptools.get_requires_for_build_editable(config_settings) + _compiler()


def _compiler() -> list[str]:
    found = sys.platform != "linux" or any(shutil.which(name) for name in ("gcc", "clang", "cc"))
    return [] if found else [ZIG]
