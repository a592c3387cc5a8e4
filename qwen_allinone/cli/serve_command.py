"""`qwen-allinone serve`."""

from __future__ import annotations

import os
import sys

from qwen_allinone.cli.terminal import load_settings
from qwen_allinone.shipped_files import SHIPPED


def serve() -> None:
    """Start Gunicorn with gunicorn.conf.py and the QAIO_* settings."""
    load_settings()
    command = [sys.executable, "-m", "gunicorn", "-c", str(SHIPPED / "gunicorn.conf.py")]
    os.execv(sys.executable, command)
