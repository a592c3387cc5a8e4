"""Models that began at one are added up."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from demo.combine import WEIGHTS, combine


def model(folder: Path, weight: list[float]) -> Path:
    folder.mkdir()
    save_file({"w": torch.tensor(weight)}, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / "config.json").write_text("{}", encoding="utf-8")
    return folder


def test_shares_of_what_each_has_learned_are_added(tmp_path: Path) -> None:
    begin = model(tmp_path / "begin", [1.0, 1.0])
    one, two = model(tmp_path / "one", [2.0, 1.0]), model(tmp_path / "two", [1.0, 3.0])
    combine(begin, [(one, 1.0), (two, 0.5)], tmp_path / "out")
    assert load_file(tmp_path / "out" / WEIGHTS)["w"].tolist() == [2.0, 2.0]
    assert (tmp_path / "out" / "config.json").exists()


def test_another_network_is_refused(tmp_path: Path) -> None:
    begin, other = model(tmp_path / "begin", [1.0]), model(tmp_path / "other", [1.0, 2.0])
    with pytest.raises(ValueError, match="other weights"):
        combine(begin, [(other, 1.0)], tmp_path / "out")
