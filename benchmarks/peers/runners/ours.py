"""This project's engine, through `benchmarks.engine`. Mode: the weights; `torch-` before them: torch's kernels."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from benchmarks.peers.runners.protocol import serve

_LENGTH = 512  # room for what Bench asks for


class Ours:
    """The engine's own steps, driven without its thread."""

    def __init__(self, model: Path, mode: str, threads: int) -> None:
        import torch

        from benchmarks import engine
        from qwen_allinone.model import checkpoint
        from qwen_allinone.model.linear import Kernels, Weights

        torch.set_num_threads(threads)
        self._context = engine.CONTEXT
        weights = cast(Weights, mode.removeprefix("torch-"))
        kernels: Kernels = "auto" if weights == mode else "torch"
        self._bench = engine.Bench(checkpoint.load(str(model), "main", weights, _LENGTH, kernels).model)

    def decode_ms(self, batch: int, context: int, steps: int) -> float:
        if context != self._context:
            raise ValueError(f"benchmarks.engine measures at a context of {self._context}, asked for {context}")
        return self._bench.decode_ms(batch, steps)

    def prefill_ms(self, tokens: int, repeats: int) -> float:
        return self._bench.prefill_ms(tokens, repeats)


if __name__ == "__main__":
    serve(Ours)
