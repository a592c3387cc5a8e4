"""Keeps the corpus apart from what the model is measured on: the held-out sentences and the gold cases."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
RUN = 8  # characters in a row that may not be shared


def bare(text: str) -> str:
    """Letters and digits only, so that punctuation cannot hide a copy."""
    return "".join(c for c in unicodedata.normalize("NFKC", text).lower() if c.isalnum())


def measured_sentences(root: Path = ROOT) -> list[str]:
    """Every sentence of demo/heldout and of the tasks' gold cases."""
    sentences = []
    for path in sorted((root / "demo" / "heldout").glob("*.tsv")):
        lines = path.read_text(encoding="utf-8").splitlines()[1:]
        sentences += [line.split("\t", 1)[1] for line in lines if line.strip()]
    for path in sorted((root / "prompts").glob("*/cases.yaml")):
        cases = yaml.safe_load(path.read_text(encoding="utf-8"))
        sentences += [case["inputs"]["text"] for case in cases if "text" in case["inputs"]]
    return sentences


class Apart:
    """Says whether a text is clear of all `sentences`: equal to none, and sharing no run of 8 characters with any.

    A measured sentence shorter than that is an everyday expression; only a text that says nothing else is a copy.
    """

    def __init__(self, sentences: Iterable[str]) -> None:
        bares = [bare(sentence) for sentence in sentences]
        self._whole = frozenset(bares)
        self._runs = {sentence[i : i + RUN] for sentence in bares for i in range(len(sentence) - RUN + 1)}

    def clear(self, text: str) -> bool:
        """True if `text` may be trained on."""
        text = bare(text)
        if text in self._whole:
            return False
        return not any(text[i : i + RUN] in self._runs for i in range(len(text) - RUN + 1))
