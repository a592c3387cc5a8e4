"""Vectors of texts: what the model makes of each, as directions that can be compared."""

from __future__ import annotations

import math
from collections.abc import Sequence

from qwen_allinone.service.answer_types import Answer, Terms
from qwen_allinone.service.completions import prompt_ids
from qwen_allinone.service.service import Service

# What telemetry calls these answers, which come of no task.
EMBEDDING = "embedding"
# What stands around a text: its meaning is what the model would say next. Measured with benchmarks/embeddings.py.
BEFORE, AFTER = "话：", "\n说的是："


def embed(service: Service, texts: Sequence[str | Sequence[int]], terms: Terms) -> list[Answer]:
    """A result with a `vector` for each text or its token ids; see `unit`.

    Raises:
        EmptyInput, ContextExceeded, InvalidInput: a text is nothing or too long, or ids that are no tokens; `input[3]`
            says which. ServiceError: busy, not ready, too late, failed, given up.
    """
    with service.request(terms) as request:
        codec = request.codec
        before, after = codec.tokenizer.encode(BEFORE), codec.tokenizer.encode(AFTER)
        beside = len(before) + len(after)
        prompts = list[list[int]]()
        for number, text in enumerate(texts):
            with request.piece():
                prompts.append([*before, *prompt_ids(text, codec, f"input[{number}]", beside), *after])
        results = request.embed_all(EMBEDDING, prompts)
        answers = [Answer(EMBEDDING, result, model_id=codec.model_id) for result in results]
        terms.answers.extend(answers)
        return answers


def unit(vector: Sequence[float]) -> list[float]:
    """The same direction, of length 1."""
    length = math.sqrt(sum([part * part for part in vector])) or 1.0
    return [part / length for part in vector]
