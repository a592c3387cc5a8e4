"""The trainer's own care, without training."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo.train import claim


def test_two_trainings_do_not_write_over_each_other(tmp_path: Path) -> None:
    first = claim(tmp_path / "work", 0)
    with pytest.raises(SystemExit, match="still running: end it first, or give another --work"):
        claim(tmp_path / "work", 0)
    claim(tmp_path / "work", 1).close()
    first.close()
    claim(tmp_path / "work", 0).close()
