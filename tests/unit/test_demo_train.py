"""The trainer's own care, without training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from demo.model import DemoModel, Shape
from demo.train import claim


def test_two_trainings_do_not_write_over_each_other(tmp_path: Path) -> None:
    first = claim(tmp_path / "work", 0)
    with pytest.raises(SystemExit, match="still running: end it first, or give another --work"):
        claim(tmp_path / "work", 0)
    claim(tmp_path / "work", 1).close()
    first.close()
    claim(tmp_path / "work", 0).close()


def test_a_network_with_more_layers_begins_by_saying_what_the_older_one_says() -> None:
    older = DemoModel(Shape(300, 32, 64, 2, 2, 1)).eval()
    newer = DemoModel(Shape(300, 32, 64, 3, 2, 1)).eval()
    newer.begin_at(older)
    prefix, rows = torch.arange(5), torch.arange(5, 25).view(2, 10)
    assert torch.equal(older(prefix, rows), newer(prefix, rows))


def test_a_network_of_other_sizes_is_no_beginning() -> None:
    with pytest.raises(RuntimeError, match="size mismatch"):
        DemoModel(Shape(300, 32, 64, 2, 2, 1)).begin_at(DemoModel(Shape(200, 32, 64, 2, 2, 1)))
