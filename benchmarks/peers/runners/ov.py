"""OpenVINO GenAI's continuous batching. Mode: the weights, and `-kv32` for keys and values in f32 too."""

from __future__ import annotations

import itertools
import json
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.peers.runners.protocol import LENGTH, SEQUENCES, Prompts, median_ms, serve

_BLOCK = 32  # tokens of a block of keys and values on a CPU


class OpenVino:
    """The library's defaults but for threads, arithmetic in f32 and, if asked for, the type of keys and values."""

    def __init__(self, model: Path, mode: str, threads: int) -> None:
        # By name: these are installed in the runner's environment, which mypy does not see.
        self._openvino, self._numpy = import_module("openvino"), import_module("numpy")
        self._genai = import_module("openvino_genai")
        scheduler = self._genai.SchedulerConfig()
        # Sequences grow while others wait for their prompts: two blocks more than LENGTH tokens take.
        scheduler.num_kv_blocks = SEQUENCES * (LENGTH // _BLOCK + 2)
        scheduler.enable_prefix_caching = False
        properties: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
        if mode.endswith("-kv32"):
            properties["KV_CACHE_PRECISION"] = "f32"
        self._pipeline = self._genai.ContinuousBatchingPipeline(str(model), scheduler, "CPU", properties)
        self._numbers = itertools.count()
        self._prompts = Prompts(json.loads((model / "config.json").read_text(encoding="utf-8"))["vocab_size"])

    def decode_ms(self, batch: int, context: int, steps: int) -> float:
        # The first request begins to decode while the last still waits for its prompt's turn.
        tokens = steps + 2 * batch + 2
        requests = [self._submit(prompt, tokens) for prompt in self._prompts.many(batch, context)]
        while not all(request.can_read() for request in requests):  # each has its first token
            self._pipeline.step()
        self._pipeline.step()
        ms = median_ms(self._pipeline.step, steps)
        if any(request.get_status() != self._genai.GenerationStatus.RUNNING for request in requests):
            raise RuntimeError("a request ended while steps were timed")
        for request in requests:
            request.cancel()
        self._finish()
        return ms

    def prefill_ms(self, tokens: int, repeats: int) -> float:
        def prompt() -> None:
            request = self._submit(self._prompts.one(tokens), 1)
            self._finish()
            if not request.can_read():
                raise RuntimeError("the prompt gave no token")

        return median_ms(prompt, repeats)

    def _submit(self, prompt: list[int], tokens: int) -> Any:
        """Queue a request of exactly `tokens` new tokens; it lives as long as what is returned."""
        config = self._genai.GenerationConfig()
        config.max_new_tokens, config.ignore_eos, config.do_sample = tokens, True, False
        ids = self._openvino.Tensor(self._numpy.array([prompt], dtype=self._numpy.int64))
        return self._pipeline.add_request(next(self._numbers), ids, config)

    def _finish(self) -> None:
        while self._pipeline.has_non_finished_requests():
            self._pipeline.step()


if __name__ == "__main__":
    serve(OpenVino)
