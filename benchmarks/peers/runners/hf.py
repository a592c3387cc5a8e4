"""transformers `generate`. Mode: fp32."""

from __future__ import annotations

import statistics
import time
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.peers.runners.protocol import Prompts, median_ms, serve


class Transformers:
    """Greedy generation with the library's defaults."""

    def __init__(self, model: Path, mode: str, threads: int) -> None:
        if mode != "fp32":
            raise ValueError(f"mode {mode}: only fp32 is measured")
        # By name: these are installed in the runner's environment, which mypy does not see.
        self._torch, self._transformers = import_module("torch"), import_module("transformers")
        self._torch.set_num_threads(threads)
        load = self._transformers.AutoModelForCausalLM.from_pretrained
        self._model = load(str(model), dtype=self._torch.float32).eval()
        self._prompts = Prompts(self._model.config.vocab_size)

    def decode_ms(self, batch: int, context: int, steps: int) -> float:
        """Time between tokens of one call: two calls of different lengths would differ by their prefills' noise too."""
        watch = _Stopwatch()
        self._generate(self._prompts.many(batch, context), steps + 2, [watch])
        intervals = [later - earlier for earlier, later in pairwise(watch.times)]
        return statistics.median(intervals[1:]) * 1e3  # the first step grows the cache

    def prefill_ms(self, tokens: int, repeats: int) -> float:
        return median_ms(lambda: self._generate([self._prompts.one(tokens)], 1, []), repeats)

    def _generate(self, prompts: list[list[int]], tokens: int, processors: list[Any]) -> None:
        ids = self._torch.tensor(prompts)
        self._model.generate(
            input_ids=ids,
            attention_mask=self._torch.ones_like(ids),
            do_sample=False,
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            pad_token_id=0,
            logits_processor=self._transformers.LogitsProcessorList(processors),
        )


class _Stopwatch:
    """A logits processor that changes nothing and notes when it was asked, seconds."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, ids: Any, scores: Any) -> Any:
        self.times.append(time.perf_counter())
        return scores


if __name__ == "__main__":
    serve(Transformers)
