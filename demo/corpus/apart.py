"""Keeps the corpus apart from what the model is measured on: the held-out sentences and the gold cases."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml

from qwen_allinone.strict_yaml import StrictLoader

ROOT = Path(__file__).parents[2]
RUN = 8  # characters in a row that may not be shared
LATIN_RUN = 24  # letters in a row, for texts without Chinese: some five words
HAN = re.compile(r"[\u4e00-\u9fff]")


def bare(text: str) -> str:
    """Letters and digits only, so that punctuation cannot hide a copy."""
    return "".join(c for c in unicodedata.normalize("NFKC", text).lower() if c.isalnum())


def measured_sentences(root: Path = ROOT) -> list[str]:
    """Every sentence of demo/heldout and of the tasks' gold cases."""
    sentences = []
    for path in sorted((root / "demo" / "heldout").glob("*.tsv")):
        head, *lines = path.read_text(encoding="utf-8").splitlines()
        place = head.split("\t").index("text")
        sentences += [line.split("\t")[place] for line in lines if line.strip()]
    for path in sorted((root / "demo" / "heldout").glob("*.txt")):
        sentences += [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    for path in sorted((root / "prompts").glob("*/cases.yaml")):
        cases = yaml.load(path.read_text(encoding="utf-8"), Loader=StrictLoader)
        sentences += [case["inputs"]["text"] for case in cases if "text" in case["inputs"]]
    return sentences


def runs(text: str, length: int) -> Iterator[str]:
    """Every `length` characters in a row."""
    return (text[i : i + length] for i in range(len(text) - length + 1))


class Apart:
    """Says whether a text is clear of all `sentences`: equal to none, and sharing no run of 8 characters with any.

    Of English it is 24 letters, since 8 are a word or two.

    A measured sentence shorter than that is an everyday expression; only a text that says nothing else is a copy.
    """

    def __init__(self, sentences: Iterable[str]) -> None:
        bares = [bare(sentence) for sentence in sentences]
        self._whole = frozenset(filter(None, bares))  # a mark or an emoji alone is nobody's
        self._runs = {run for sentence in bares for run in runs(sentence, RUN if HAN.search(sentence) else LATIN_RUN)}

    def clear(self, text: str) -> bool:
        """True if `text` may be trained on."""
        text = bare(text)
        if text in self._whole:
            return False
        return not any(run in self._runs for length in (RUN, LATIN_RUN) for run in runs(text, length))
