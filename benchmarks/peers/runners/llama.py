"""llama.cpp through the C interface that llama-cpp-python wraps. Mode: the type of the GGUF file's weights."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.peers.runners.protocol import LENGTH, SEQUENCES, Prompts, median_ms, serve


class LlamaCpp:
    """One context for all measurements; the library's defaults but for threads, sizes and number of sequences."""

    def __init__(self, model: Path, mode: str, threads: int) -> None:
        # By name: these are installed in the runner's environment, which mypy does not see.
        self._lib, self._numpy = import_module("llama_cpp"), import_module("numpy")
        self._lib.llama_backend_init()
        self._model = self._lib.llama_model_load_from_file(str(model).encode(), self._lib.llama_model_default_params())
        if not self._model:
            raise RuntimeError(f"llama.cpp cannot load {model}")
        self._context = self._lib.llama_init_from_model(self._model, self._parameters(threads))
        if not self._context:
            raise RuntimeError("llama.cpp cannot make a context")
        self._batch = self._lib.llama_batch_init(LENGTH, 0, 1)
        self._vocabulary = self._lib.llama_vocab_n_tokens(self._lib.llama_model_get_vocab(self._model))
        self._prompts = Prompts(self._vocabulary)

    def decode_ms(self, batch: int, context: int, steps: int) -> float:
        self._clear()
        sequences = range(batch)
        last = [self._prefill(sequence, context) for sequence in sequences]
        position = context

        def step() -> None:
            nonlocal position
            self._decode([(last[sequence], position, sequence, True) for sequence in sequences])
            last[:] = [self._likeliest(row) for row in sequences]
            position += 1

        step()
        return median_ms(step, steps)

    def prefill_ms(self, tokens: int, repeats: int) -> float:
        def prompt() -> None:
            self._clear()
            self._prefill(0, tokens)

        return median_ms(prompt, repeats)

    def _parameters(self, threads: int) -> Any:
        parameters = self._lib.llama_context_default_params()
        parameters.n_ctx = SEQUENCES * LENGTH
        parameters.n_seq_max = SEQUENCES
        parameters.n_outputs_max = SEQUENCES  # else room for the logits of a whole prompt
        parameters.n_threads = parameters.n_threads_batch = threads
        parameters.kv_unified = False  # the sequences share nothing: each attends to its own cells only
        return parameters

    def _clear(self) -> None:
        self._lib.llama_memory_clear(self._lib.llama_get_memory(self._context), False)

    def _prefill(self, sequence: int, tokens: int) -> int:
        """Compute a new prompt of one sequence; its first token."""
        prompt = self._prompts.one(tokens)
        self._decode([(token, place, sequence, place == tokens - 1) for place, token in enumerate(prompt)])
        return self._likeliest(-1)

    def _decode(self, rows: Sequence[tuple[int, int, int, bool]]) -> None:
        """One pass over rows of token, position, sequence and whether logits are wanted."""
        batch = self._batch
        batch.n_tokens = len(rows)
        for row, (token, position, sequence, wanted) in enumerate(rows):
            batch.token[row], batch.pos[row], batch.logits[row] = token, position, wanted
            batch.n_seq_id[row], batch.seq_id[row][0] = 1, sequence
        status = self._lib.llama_decode(self._context, batch)
        if status:
            raise RuntimeError(f"llama_decode returned {status}")

    def _likeliest(self, row: int) -> int:
        logits = self._lib.llama_get_logits_ith(self._context, row)
        return int(self._numpy.ctypeslib.as_array(logits, (self._vocabulary,)).argmax())


if __name__ == "__main__":
    serve(LlamaCpp)
