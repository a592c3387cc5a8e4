"""An adapter is taught as the service will ask, and read by the service as by PEFT."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
import torch

from qwen_allinone.engine.label_trie import LabelTrie
from qwen_allinone.engine.tuning import Example, Plan, Quality, Tuner
from qwen_allinone.errors import TuningError
from qwen_allinone.model.attention import Chunk
from qwen_allinone.model.config import ModelConfig
from qwen_allinone.model.lora import load_adapter
from qwen_allinone.model.qwen2 import Qwen2
from qwen_allinone.model.weights import WeightReader, fingerprint
from qwen_allinone.tasks.adapter_files import load_adapter_files

pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # which peft uses

TRIE = LabelTrie(((11, 12), (11, 13), (14,)))
START = tuple(range(20, 40))


def labelled(count: int) -> list[Example]:
    """The last token of the prompt decides."""
    chooser = random.Random(0)
    return [
        Example((*START, *chooser.choices(range(50, 60), k=chooser.randint(1, 6)), 60 + number % 3), label)
        for number in range(count)
        for label in [TRIE.labels[number % 3]]
    ]


def tuner(checkpoint: Path, trie: LabelTrie | None, **plan: int | float) -> Tuner:
    return Tuner(checkpoint, "tiny", fingerprint(checkpoint), trie, Plan(**plan))  # type: ignore[arg-type]


def ignore(done: int, rounds: int) -> None:
    assert 0 < done <= rounds


def test_quality_is_that_of_the_labels_probabilities(tiny_checkpoint: Path) -> None:
    from tests.support.reference import label_probabilities

    examples = labelled(6)
    losses = []
    for example in examples:
        shares = label_probabilities(tiny_checkpoint, example.prompt, TRIE.labels)
        losses.append(-math.log(shares[TRIE.labels.index(example.answer)]))
    subject = tuner(tiny_checkpoint, TRIE)
    assert subject.quality(examples).loss == pytest.approx(sum(losses) / 6, abs=1e-4)
    assert float(subject._loss(examples).detach()) == pytest.approx(sum(losses) / 6, abs=1e-4), (
        "it learns what is measured"
    )


def test_what_was_taught_is_served_as_peft_would(tiny_checkpoint: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    examples = labelled(48)
    subject = tuner(tiny_checkpoint, TRIE, epochs=4, learning_rate=1e-2, patience=9)
    found = list(subject.epochs(examples[:36], examples[36:], ignore))
    assert len(found) == 5 and found[-1].beats(found[0])
    assert found[-1].accuracy is not None and found[-1].accuracy > 0.9
    subject.save(tmp_path)
    files, config = load_adapter_files(tmp_path), ModelConfig.load(tiny_checkpoint)
    assert files is not None
    with WeightReader(tiny_checkpoint) as reader:
        model = Qwen2(config, reader, 64)
    model.adapt("task", load_adapter(files, config, fingerprint(tiny_checkpoint), ["whatever"]))
    ids = examples[40].prompt
    logits = model.logits(model.forward([Chunk(0, 0, ids, adapter="task")], model.new_cache(1)))[0]
    base = AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype=torch.float32)
    with torch.no_grad():
        wanted = PeftModel.from_pretrained(base, tmp_path)(input_ids=torch.tensor([ids])).logits[0, -1]
    torch.testing.assert_close(logits, wanted, atol=1e-4, rtol=1e-4)


def test_texts_are_taught_too_and_no_gain_ends_it(tiny_checkpoint: Path) -> None:
    pairs = [Example((*START, 60 + number % 2), (70 + number % 2, 80, 2)) for number in range(16)]
    found = list(tuner(tiny_checkpoint, None, learning_rate=1e-2).epochs(pairs[:12], pairs[12:], ignore))
    assert found[-1].loss < 0.5 * found[0].loss and found[-1].accuracy is None
    still = tuner(tiny_checkpoint, None, learning_rate=1e-30, patience=2, epochs=9)
    assert len(list(still.epochs(pairs[:8], pairs[8:], ignore))) == 3


def test_more_right_goes_before_likelier() -> None:
    assert Quality(0.9, 0.8).beats(Quality(0.1, 0.7)) and Quality(0.1, 0.8).beats(Quality(0.2, 0.8))
    assert not Quality(0.1, 0.7).beats(Quality(0.9, 0.8)) and not Quality(0.1).beats(Quality(0.1))
    assert not Quality(math.nan, 0.9).beats(Quality(0.1, 0.8))


def test_a_folder_that_cannot_be_written_is_told(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TuningError, match="cannot be written"):
        tuner(tiny_checkpoint, TRIE).save(tmp_path / "file")
