"""Where tasks, demo model and Gunicorn's configuration lie: inside an installed package, beside it in a checkout."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_INSIDE = _PACKAGE / "data"  # only in a wheel, see setup.py

SHIPPED = _INSIDE if _INSIDE.is_dir() else _PACKAGE.parent
