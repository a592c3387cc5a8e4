"""What all runners share: JSON lines on stdin and stdout, prompts and timing.

    {"do": "decode", "batch": 4, "context": 200, "steps": 24}  ->  {"ms": median of a step}
    {"do": "prefill", "tokens": 256, "repeats": 3}              ->  {"ms": median of a prompt up to its first token}
    {"do": "quit"}

The first line a runner writes is {"ready": true}. Standard library only: this runs in every peer's environment.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TextIO

SEQUENCES = 16  # the largest batch
LENGTH = 256  # tokens of one sequence, prompt and reply, that a runner has room for


class Engine(Protocol):
    """What a runner measures."""

    def decode_ms(self, batch: int, context: int, steps: int) -> float:
        """Median of one greedy step of `batch` sequences that each have `context` tokens behind them."""

    def prefill_ms(self, tokens: int, repeats: int) -> float:
        """Median of a prompt of `tokens` new tokens up to its first token."""


def serve(load: Callable[[Path, str, int], Engine]) -> None:
    """Load the model with `load(model, mode, threads)` and answer requests until told to quit."""
    answers = _take_stdout()
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True, help="what the engine loads: a folder or a file")
    parser.add_argument("--mode", required=True, help="weights, and what else the engine is told")
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    engine = load(arguments.model, arguments.mode, arguments.threads)
    _say(answers, {"ready": True})
    for line in sys.stdin:
        match json.loads(line):
            case {"do": "decode", "batch": batch, "context": context, "steps": steps}:
                _say(answers, {"ms": engine.decode_ms(batch, context, steps)})
            case {"do": "prefill", "tokens": tokens, "repeats": repeats}:
                _say(answers, {"ms": engine.prefill_ms(tokens, repeats)})
            case {"do": "quit"}:
                return
            case other:
                raise ValueError(f"unknown request {other}")


def median_ms(action: Callable[[], object], repeats: int) -> float:
    """Median duration of `action`."""
    return statistics.median(_seconds(action) for _ in range(repeats)) * 1e3


class Prompts:
    """Random token ids; the same from run to run, but no two prompts alike, so that no cache helps."""

    def __init__(self, vocabulary: int) -> None:
        self._random = random.Random(0)
        self._ids = range(min(1000, vocabulary // 2), vocabulary)  # the first are bytes and punctuation

    def one(self, tokens: int) -> list[int]:
        return self._random.choices(self._ids, k=tokens)

    def many(self, count: int, tokens: int) -> list[list[int]]:
        return [self.one(tokens) for _ in range(count)]


def _take_stdout() -> TextIO:
    """The real stdout, for answers only; what libraries print goes to stderr from now on."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def _say(answers: TextIO, message: dict[str, object]) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()


def _seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began
