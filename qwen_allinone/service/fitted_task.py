"""One task, fitted to one checkpoint: inputs become a prompt's token ids, results become answers."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from qwen_allinone.engine import LabelTrie, Result, Sampling
from qwen_allinone.errors import TaskFileError
from qwen_allinone.model.tokenizer import Gap, Tokenizer
from qwen_allinone.service.answer_types import Answer
from qwen_allinone.service.detokenizer import reply_text
from qwen_allinone.service.gold_fit import GoldFit
from qwen_allinone.service.input_checks import check_length, prepare
from qwen_allinone.service.label_answer import Probabilities, calibrated, with_label
from qwen_allinone.tasks import MEMORIES, Masking, Task, Variable, items_of, short_hash
from qwen_allinone.wording import said

log = logging.getLogger(__name__)

# Beside other text a text may take a token or two more or less than alone: so near to its limit it is counted alone.
_NEAR = 8

# A prompt is a list of these: token ids that are always the same, and texts with inputs in them, to be encoded whole.
Piece = tuple[int, ...] | tuple[str | Variable, ...]


@dataclass(frozen=True)
class FittedTask:
    """A task with all that its checkpoint's tokens make of it. `fixed`: tokens of the prompt with nothing filled in.

    `prior` is what is taken out of the model's answers, None where they are believed as they are. `fit` is how the task
    does on its gold cases, None where that was not asked. `version` changes with all of it.
    `cacheable`: the same inputs always get the same answer. It holds no model.
    """

    task: Task
    tokenizer: Tokenizer
    context: int
    pieces: tuple[Piece, ...]
    fixed: int
    sampling: Sampling
    trie: LabelTrie | None
    temperature: float
    model_id: str
    version: str
    cacheable: bool
    prior: Probabilities | None = None
    fit: GoldFit | None = None

    @cached_property
    def adapter(self) -> str | None:
        """The name of the adapter that the task is computed with: its own."""
        return self.task.name if self.task.adapter else None

    def with_prior(self, prior: Probabilities | None) -> FittedTask:
        """The same, with `prior` taken out of its answers."""
        return self if prior is None else replace(self, prior=prior, version=short_hash(f"{self.version} {prior}"))

    def with_fit(self, fit: GoldFit) -> FittedTask:
        """The same, answering as `fit` found best. A temperature from `calibrate` goes before the one found there."""
        if fit.prior is None:
            return replace(self, fit=fit)
        temperature = fit.temperature if self.temperature == 1.0 else self.temperature
        return replace(self.with_prior(fit.prior), fit=fit, temperature=temperature)

    def encode(self, inputs: Mapping[str, str]) -> list[int]:
        """Token ids of the prompt with `inputs`, which are taken as they are. Each text is encoded once."""
        return encode_pieces(self.pieces, inputs, self.tokenizer)

    def prompt(self, inputs: Mapping[str, str], known: Mapping[str, str]) -> list[int]:
        """The same for `inputs` that are checked here, and those `known` to be right, as our own label is.

        Raises:
            EmptyInput, InputTooLong, InvalidInput.
        """
        given = {name: prepare(self.task, name, inputs[name]) for name in self.task.spec.given if name not in known}
        ids = encode_pieces(self.pieces, {**given, **known}, self.tokenizer)
        added = len(ids) - self.fixed
        for name, text in given.items():
            if added > self.task.spec.inputs[name].max_tokens - _NEAR:
                check_length(self.task, name, text, self.tokenizer)
        return ids

    def answer(self, result: Result, masking: Masking | None = None) -> Answer:
        """What the engine's result means; `masking` hid numbers that a text is to have again."""
        if self.trie is not None:
            answer = Answer(self.task.name, result, model_id=self.model_id, version=self.version)
            return with_label(answer, self.task, self.prior, self.temperature)
        text, output = reply_text(self.tokenizer, result.ids), self.task.spec.output
        text = masking.restore(text) if masking else text
        answer = Answer(self.task.name, result, text=text, model_id=self.model_id, version=self.version)
        if output.kind == "list":
            return replace(answer, items=items_of(text, output.max_items))
        if output.kind == "json":
            value = _whole_json(text)
            return replace(answer, value=value, is_cut=value is None and text != "null")
        return answer

    def raw_probabilities(self, answer: Answer) -> Probabilities:
        """Probabilities of an answer as they are before the temperature."""
        return calibrated(answer.result.probabilities, self.prior, 1.0)


def _whole_json(text: str) -> Any:
    """The value; None where there is none that JSON can say again: the text was cut, or a number is too large."""
    try:
        return json.loads(text, parse_float=_finite)
    except (ValueError, RecursionError):
        return None


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{number} is too large")
    return value


def is_cacheable(task: Task) -> bool:
    """Whether the same inputs always get the same answer."""
    return task.spec.decoding.strategy == "greedy"


def encode_pieces(pieces: tuple[Piece, ...], inputs: Mapping[str, str], tokenizer: Tokenizer) -> list[int]:
    """Token ids of a prompt that was cut by `cut_prompt`."""
    ids: list[int] = []
    filled = {MEMORIES: "", **inputs}  # where nothing is remembered there are none
    for piece in pieces:
        if isinstance(piece[0], int):
            ids += piece
        else:
            ids += tokenizer.encode("".join([p if isinstance(p, str) else filled[p.name] for p in piece]))
    return ids


def cut_prompt(task: Task, tokenizer: Tokenizer) -> tuple[Piece, ...]:
    """The prompt of `task` around its inputs. Tokens are cut at control tokens only: a piece between two of them that
    has an input in it is encoded whole."""
    if not task.is_chat:
        return (tuple(task.messages[0].parts),)
    pieces: list[Piece] = []
    for part in tokenizer.layout(tuple(str(message.role) for message in task.messages)):
        if not isinstance(part, Gap):
            pieces.append(part)
            continue
        texts: list[str | Variable] = []
        for text in part.parts:
            texts += task.messages[text].parts if isinstance(text, int) else [text]
        if any(isinstance(text, Variable) for text in texts):
            pieces.append(tuple(texts))
        else:
            pieces.append(tuple(tokenizer.encode("".join(map(str, texts)))))
    return tuple(piece for piece in pieces if piece)


def temperature(task: Task, model: str) -> float:
    """What was fitted for this task, this prompt and this model; else 1."""
    fitted = task.calibration
    if fitted is None:
        return 1.0
    for what, was, now in (("prompt", fitted.prompt, task.prompt_hash), ("model", fitted.model, model)):
        if was != now:
            log.warning(
                "%s: calibration.yaml is not used: it was fitted on another %s (%s, not %s); calibrate again",
                task.name, what, was, now,
            )  # fmt: skip
            return 1.0
    return fitted.temperature


def label_trie(task: Task, tokenizer: Tokenizer) -> LabelTrie | None:
    """The tokens of the labels; None for a task without.

    Raises:
        TaskFileError: a label has more tokens than may be decoded, or labels cannot be told apart by their tokens.
    """
    if not task.labels:
        return None
    lead = " " if blank_before_label(task) else ""
    ids = tuple(tuple(tokenizer.encode(lead + label)) for label in task.labels)
    most = task.spec.decoding.max_new_tokens
    for label, tokens in zip(task.labels, ids, strict=True):
        if len(tokens) > most:
            raise _label_error(task, f"label {label!r} has {len(tokens)} tokens, decoding.max_new_tokens is {most}")
    try:
        return LabelTrie(ids)
    except ValueError as error:
        raise _label_error(task, str(error)) from None


def blank_before_label(task: Task) -> bool:
    """Whether a plain prompt's examples have a blank between what it ends with and a label: then an answer has it too.

    Most tokenizers have other tokens for a word behind a blank.
    """
    if task.is_chat or not isinstance(task.messages[0].parts[-1], str):
        return False
    text = "".join(part if isinstance(part, str) else "\n" for part in task.messages[0].parts)
    end = text.rpartition("\n")[2]
    return any(f"{end} {label}" in text for label in task.labels)


def sampling(task: Task) -> Sampling:
    """How the engine is to choose the tokens of free text."""
    decoding = task.spec.decoding
    return Sampling(
        max_new_tokens=decoding.max_new_tokens,
        temperature=0.0 if decoding.strategy == "greedy" else decoding.temperature,
        top_p=decoding.top_p,
        top_k=decoding.top_k,
        min_p=decoding.min_p,
        repetition_penalty=decoding.repetition_penalty,
    )


def _label_error(task: Task, problem: str) -> TaskFileError:
    return TaskFileError(Path(task.name) / "prompt.md", "output.labels", problem, said("choose_other_label_names"))
