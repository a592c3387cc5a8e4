"""What tells one checkpoint from another."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from qwen_allinone.model.weights import fingerprint
from tests.support.checkpoints import write_checkpoint


def test_copies_are_the_same_and_another_training_of_the_same_shape_is_not(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))
    other = write_checkpoint(tmp_path / "other", seed=2)
    assert fingerprint(copy) == fingerprint(tiny_checkpoint) != fingerprint(other)
    assert (other / "config.json").read_bytes() == (copy / "config.json").read_bytes()
    assert (other / "model.safetensors").stat().st_size == (copy / "model.safetensors").stat().st_size


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_what_stands_beside_the_weights_counts(tiny_checkpoint: Path, tmp_path: Path, file: str) -> None:
    copy = Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))
    with (copy / file).open("a") as out:
        out.write(" ")
    assert fingerprint(copy) != fingerprint(tiny_checkpoint)
