"""A checkpoint is found, verified and loaded, or refused with the ways out (the hub: tests/integration/test_hub.py)."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
from tokenizers import Tokenizer as FastTokenizer

from qwen_allinone.errors import CheckpointError
from qwen_allinone.model import checkpoint, hub
from qwen_allinone.model.checkpoint import find, load, stop_ids
from qwen_allinone.model.tokenizer import Tokenizer
from tests.support.checkpoints import write_checkpoint


def test_a_local_folder_is_loaded_whole(tiny_checkpoint: Path) -> None:
    loaded = load(str(tiny_checkpoint), "main", "fp32", 128)
    assert (loaded.name, loaded.folder) == (str(tiny_checkpoint), tiny_checkpoint)
    assert loaded.model.context == 128
    assert loaded.tokenizer.decode(loaded.tokenizer.encode("你好")) == "你好"


def test_a_reply_ends_at_the_end_of_a_turn_as_well_as_of_the_text(tiny_checkpoint: Path) -> None:
    """config.json names <|endoftext|> alone, as the base model's does: a chat would run on."""
    tokenizer = Tokenizer.load(tiny_checkpoint)
    ends = {tokenizer.control_id("<|endoftext|>"), tokenizer.control_id("<|im_end|>")}
    assert len(ends) == 2 and load(str(tiny_checkpoint), "main", "fp32", 64).stop_ids == ends


def test_a_tokenizer_without_an_end_is_refused(tmp_path: Path, tiny_checkpoint: Path) -> None:
    text = (tiny_checkpoint / "tokenizer.json").read_text(encoding="utf-8")
    renamed = text.replace("<|endoftext|>", "<|pad|>").replace("<|im_end|>", "<|end|>")
    (tmp_path / "tokenizer.json").write_text(renamed, encoding="utf-8")
    with pytest.raises(CheckpointError, match="neither <|endoftext|> nor <|im_end|>"):
        stop_ids(tmp_path, Tokenizer.load(tmp_path))


def test_tokens_that_were_added_beyond_the_model_are_not_known(tmp_path: Path, tiny_checkpoint: Path) -> None:
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "model")
    fast = FastTokenizer.from_file(str(folder / "tokenizer.json"))
    size = fast.get_vocab_size()
    fast.add_tokens(["<added>"])
    fast.save(str(folder / "tokenizer.json"))
    loaded = load(str(folder), "main", "fp32", 64)
    assert loaded.tokenizer.ids == frozenset(range(size))


@pytest.mark.parametrize("beyond", ["ends", "texts"])
def test_a_tokenizer_of_another_model_is_refused(beyond: str, tmp_path: Path, tiny_checkpoint: Path) -> None:
    fast = FastTokenizer.from_file(str(tiny_checkpoint / "tokenizer.json"))
    texts = fast.get_vocab_size(with_added_tokens=False)
    folder = write_checkpoint(tmp_path / "model", vocab_size=texts if beyond == "ends" else texts - 1)
    with pytest.raises(CheckpointError, match="tokens that the model has not"):
        load(str(folder), "main", "fp32", 64)


def test_a_context_beyond_the_models_is_cut_with_a_warning(
    tiny_checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        loaded = load(str(tiny_checkpoint), "main", "fp32", 4096)
    assert loaded.model.context == 512
    assert "QAIO_CONTEXT=4096" in caplog.text and "512" in caplog.text


@pytest.mark.parametrize("name", ["/no/such/folder", "./nothing", "~/no/such/folder", "a/b/c", "../x"])
def test_what_is_written_like_a_path_is_looked_for_on_disk_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_hub(*_: object, **__: object) -> None:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(hub, "snapshot_download", no_hub)
    with pytest.raises(CheckpointError, match="does not exist.*Three ways out"):
        find(name, "main")


def test_a_folder_beats_a_hub_id_of_the_same_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checkpoint(tmp_path / "Qwen" / "Small")
    monkeypatch.chdir(tmp_path)
    assert find("Qwen/Small", "main") == Path("Qwen/Small")


def test_the_demo_is_a_name_of_its_own(demo_checkpoint: Path) -> None:
    assert find("demo", "main") == demo_checkpoint


def test_a_demo_that_was_not_trained_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "DEMO_FOLDER", tmp_path / "demo")
    with pytest.raises(CheckpointError, match="does not exist"):
        find("demo", "main")


@pytest.mark.parametrize("name", ["bad id", "--x", "a..b", "x" * 200])
def test_a_name_that_is_no_hub_id_is_refused_without_a_call(name: str) -> None:
    with pytest.raises(CheckpointError, match="neither a folder nor a valid hub id"):
        find(name, "main")


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_file_that_is_missing_is_named(tmp_path: Path, tiny_checkpoint: Path, file: str) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(tiny_checkpoint, folder)
    (folder / file).unlink()
    with pytest.raises(CheckpointError) as caught:
        load(str(folder), "main", "fp32", 64)
    assert file in str(caught.value) and str(caught.value).count("Three ways out") == 1


def test_every_way_out_is_one_an_operator_can_take() -> None:
    text = str(CheckpointError("the model is not there."))
    assert text.startswith("the model is not there. Three ways out: (1)")
    for hint in ("HF_HOME", "HF_HUB_OFFLINE=1", "local folder", "QAIO_MODEL=demo"):
        assert hint in text
