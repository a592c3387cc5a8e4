"""How well memories are found, and used: one table, printed.

    python -m benchmarks.recall [--model demo] [--data benchmarks/recall.tsv] [--replies demo/heldout/memory.tsv]

`--data`: a line a memory: whose it is, the memory, and what its user says when it matters, in other words. For each of
these texts: is the memory among the five (three, first) that the service would tell a reply, of all of that user's? By
vectors alone, by words alone, by both as shipped; and by the mean of the states of the text's tokens, which the service
does not use, to compare with. `--replies`: a line a case: memories, a text, whether they matter to it (1) or not (0),
and a word that a reply which uses them has. The reply is drawn as the service draws it, so runs differ by some cases.
"""

from __future__ import annotations

import argparse
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from qwen_allinone.bootstrap import build_service
from qwen_allinone.model import checkpoint
from qwen_allinone.model.attention import Chunk
from qwen_allinone.service import Service, Terms
from qwen_allinone.service.recall import COMMON, by_words, recalled, vector_of
from qwen_allinone.settings import Settings
from qwen_allinone.state import Statement
from qwen_allinone.state.likeness import likest

_AMONG = (1, 3, 5)


@dataclass(frozen=True)
class Asked:
    """A text, its user's memories with a vector of each, and the place of the one that matters to it among them."""

    text: str
    memories: list[Statement]
    vectors: list[bytes]
    place: int


Rank = Callable[[Asked], Sequence[int]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--data", type=Path, default=Path("benchmarks/recall.tsv"))
    parser.add_argument("--replies", type=Path, default=Path("demo/heldout/memory.tsv"))
    given = parser.parse_args()
    service = build_service(Settings.load(os.environ | {"QAIO_MODEL": given.model, "QAIO_FIT": "off"}))
    service.engine.wait_until_settled()

    def meaning(text: str) -> bytes:
        with service.request(Terms()) as request:
            return vector_of(request, text)

    asked = read(given.data, meaning)
    texts = {case.text: meaning(case.text) for case in asked}
    mean = mean_of_states(given.model)
    averaged = read(given.data, mean)
    print(f"{len(asked)} texts, {len({id(case.memories) for case in asked})} users; the right memory is found")
    show("vectors alone", asked, lambda case: likest(case.vectors, texts[case.text]))
    show("words alone", asked, lambda case: by_words(case.memories, case.text, COMMON))
    show("both, as shipped", asked, lambda case: both(case, texts[case.text]))
    show("mean of states alone", averaged, lambda case: likest(case.vectors, mean(case.text)))
    report_replies(service, given.replies)
    service.engine.stop()


def read(file: Path, vector: Callable[[str], bytes]) -> list[Asked]:
    """The cases in `file`, with vectors of their memories."""
    rows = [line.split("\t") for line in file.read_text(encoding="utf-8").splitlines()[1:]]
    users = defaultdict[str, list[Statement]](list)
    vectors = defaultdict[str, list[bytes]](list)
    places = []
    for user, fact, _ in rows:
        places.append(len(users[user]))
        users[user].append(Statement(fact, fact))
        vectors[user].append(vector(fact))
    both = zip(rows, places, strict=True)
    return [Asked(text, users[user], vectors[user], place) for (user, _, text), place in both]


def mean_of_states(name: str) -> Callable[[str], bytes]:
    """The mean of a text's hidden states, with nothing around it."""
    loaded = checkpoint.load(name, "main", "fp32", 1024)
    cache = loaded.model.new_cache(1)

    def vector(text: str) -> bytes:
        chunk = Chunk(0, 0, loaded.tokenizer.encode(text))
        chunk.wanted = range(len(chunk.tokens))
        mean = loaded.model.forward([chunk], cache).mean(dim=0)
        return bytes(torch.nn.functional.normalize(mean, dim=0).numpy().astype(np.float16).tobytes())

    return vector


def both(case: Asked, vector: bytes) -> list[int]:
    """The places of what the service would tell a reply."""
    found = recalled(case.memories, case.text, likest(case.vectors, vector))
    return [case.memories.index(memory) for memory in found]


def show(name: str, asked: Sequence[Asked], rank: Rank) -> None:
    """One row: in how many cases the memory is among the first so many."""
    ranks = [(list(rank(case)), case.place) for case in asked]
    shares = [sum(place in found[:most] for found, place in ranks) / len(ranks) for most in _AMONG]
    figures = ", ".join(f"among {most}: {share:6.1%}" for most, share in zip(_AMONG, shares, strict=True))
    print(f"{name:22} {figures}")


def report_replies(service: Service, file: Path) -> None:
    """Whether replies use what matters, and leave the rest alone."""
    used, spared = list[bool](), list[bool]()
    for line in file.read_text(encoding="utf-8").splitlines()[1:]:
        known, text, matters, word = (line.split("\t") + [""])[:4]
        told = [Statement(fact, fact) for fact in known.split("；")]
        reply = service.chat(text, remind=lambda *_, told=told: told).reply.text
        if matters == "1":
            used.append(word in reply)
        else:
            spared.append(not any(pair in reply and pair not in text for pair in _pairs(known.replace("用户", ""))))
    print(f"replies use memories that matter: {sum(used)} of {len(used)}; ", end="")
    print(f"leave alone those that do not: {sum(spared)} of {len(spared)}")


def _pairs(text: str) -> set[str]:
    return {pair for start in range(len(text) - 1) if (pair := text[start : start + 2]).isalnum()}


if __name__ == "__main__":
    main()
