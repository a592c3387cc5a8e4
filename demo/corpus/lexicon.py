"""The word lists as typed, frozen data: one `Domain` for each file in domains/, one `General` for the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from qwen_allinone.strict_yaml import StrictLoader

HERE = Path(__file__).parent
POSITIVE, NEGATIVE = "正面", "负面"
LABELS = (POSITIVE, NEGATIVE)
Phrases = tuple[str, ...]


def opposite(label: str) -> str:
    """The other label."""
    return NEGATIVE if label == POSITIVE else POSITIVE


@dataclass(frozen=True)
class Aspect:
    """Interchangeable nouns and the predicates, by label, that may follow any of them."""

    names: Phrases
    predicates: Mapping[str, Phrases]


@dataclass(frozen=True)
class Pair:
    """A hand-written text with its label and a reply that answers exactly that text."""

    text: str
    label: str
    reply: str


@dataclass(frozen=True)
class Written:
    """A hand-written text. `subject` says which others it may stand beside: the file's name up to the underscore."""

    subject: str
    text: str
    label: str


@dataclass(frozen=True)
class Domain:
    """Everything known about one subject, such as hotels."""

    name: str
    topics: Phrases
    openers: Phrases
    aspects: tuple[Aspect, ...]
    clauses: Mapping[str, Phrases]  # whole clauses that carry a label on their own
    tricky: Mapping[str, Phrases]  # clauses whose words point the other way: softened praise, regret, irony
    neutral: Phrases
    reply_open: Mapping[str, Phrases]
    reply_follow: Mapping[str, Phrases]
    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class General:
    """Lists that fit every subject. `both` holds the *_pos / *_neg lists by stem, then label."""

    both: Mapping[str, Mapping[str, Phrases]]
    plain: Mapping[str, Phrases]
    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class Lexicon:
    """All word lists, and whole texts written by hand."""

    domains: tuple[Domain, ...]
    general: General
    written: tuple[Written, ...]

    @classmethod
    def load(cls, folder: Path = HERE) -> Lexicon:
        """Read domains/*.yaml and written/*.tsv, and merge every other *.yaml of `folder` into the general lists."""
        domains = tuple(_domain(_read(path)) for path in sorted((folder / "domains").glob("*.yaml")))
        merged: dict[str, list[Any]] = {}
        for path in sorted(folder.glob("*.yaml")):
            for key, entries in _read(path).items():
                merged.setdefault(key, []).extend(entries)
        written = [line for path in sorted((folder / "written").glob("*.tsv")) for line in _lines(path)]
        return cls(domains, _general(merged), tuple(written))


def _lines(path: Path) -> list[Written]:
    """Each line of a file of labelled texts."""
    subject = path.stem.split("_")[0]
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    assert all(len(row) == 2 and row[0] in LABELS for row in rows), path
    return [Written(subject, text, label) for label, text in rows]


def _read(path: Path) -> dict[str, Any]:
    data = yaml.load(path.read_text(encoding="utf-8"), Loader=StrictLoader)
    assert isinstance(data, dict), path
    return data


def _phrases(entries: list[Any]) -> Phrases:
    """Order kept, repetitions dropped: a phrase listed twice would weigh twice."""
    return tuple(dict.fromkeys(str(entry).strip().rstrip("。") for entry in entries if str(entry).strip()))


def _sentences(entries: list[Any]) -> Phrases:
    """Like `_phrases`, for full sentences, which keep their final punctuation."""
    return tuple(dict.fromkeys(str(entry).strip() for entry in entries if str(entry).strip()))


def _by_label(data: dict[str, Any], pos: str = "pos", neg: str = "neg") -> dict[str, Phrases]:
    return {POSITIVE: _phrases(data[pos]), NEGATIVE: _phrases(data[neg])}


def _pairs(entries: list[Any]) -> tuple[Pair, ...]:
    return tuple(Pair(str(entry["text"]), entry["label"], str(entry["reply"])) for entry in entries)


def _domain(data: dict[str, Any]) -> Domain:
    replies = data["replies"]
    return Domain(
        name=data["domain"],
        topics=_phrases(data["topics"]),
        openers=_phrases(data["openers"]),
        aspects=tuple(Aspect(_phrases(entry["names"]), _by_label(entry)) for entry in data["aspects"]),
        clauses=_by_label(data),
        tricky={POSITIVE: _phrases(data["softened"]), NEGATIVE: _phrases(data["regret"] + data["sarcasm"])},
        neutral=_phrases(data["neutral"]),
        reply_open={POSITIVE: _sentences(replies["pos_open"]), NEGATIVE: _sentences(replies["neg_open"])},
        reply_follow={POSITIVE: _sentences(replies["pos_follow"]), NEGATIVE: _sentences(replies["neg_follow"])},
        pairs=_pairs(data["pairs"]),
    )


def _general(data: dict[str, Any]) -> General:
    pairs = _pairs(data.pop("pairs"))
    data["tricky_pos"] = data.pop("not_bad_pos")
    data["tricky_neg"] = data.pop("not_good_neg") + data.pop("sarcasm_neg")
    both: dict[str, dict[str, Phrases]] = {}
    plain: dict[str, Phrases] = {}
    for key, entries in data.items():
        if key.startswith("reply_") and key != "reply_close":
            _, polarity, part = key.split("_")
            both.setdefault(f"reply_{part}", {})[_label(polarity)] = _sentences(entries)
        elif key.endswith(("_pos", "_neg")):
            stem, _, polarity = key.rpartition("_")
            both.setdefault(stem, {})[_label(polarity)] = _phrases(entries)
        else:
            plain[key] = _phrases(entries)
    return General(both, plain, pairs)


def _label(polarity: str) -> str:
    return POSITIVE if polarity == "pos" else NEGATIVE
