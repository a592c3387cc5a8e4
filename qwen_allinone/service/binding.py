"""The tasks, fitted to one checkpoint: prompts become token ids, results become answers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from qwen_allinone.engine import Classify, Generate, LabelTrie, Result, Sampling
from qwen_allinone.engine.request import Work
from qwen_allinone.errors import TaskFileError
from qwen_allinone.model.checkpoint import Checkpoint
from qwen_allinone.model.tokenizer import Tokenizer
from qwen_allinone.service import calibration
from qwen_allinone.service.answers import Answer
from qwen_allinone.service.history import Remembered, remember, reply_text, takes_late_system
from qwen_allinone.service.inputs import prepare
from qwen_allinone.state import Turn
from qwen_allinone.tasks import Decoding, Registry, Task, items_of, render

log = logging.getLogger(__name__)

# Inputs with nothing to judge: what a prompt answers to them is what it prefers by itself.
_CONTENT_FREE = ("", "N/A", "无")


@dataclass(frozen=True)
class Bound:
    """What running the tasks takes of a checkpoint, made once it is loaded. `context` is in tokens.

    Not the model: a failed request's traceback holds this, and a model must be gone before the next is loaded.
    """

    tokenizer: Tokenizer
    stop_ids: frozenset[int]
    context: int
    late_system: bool
    tries: Mapping[str, LabelTrie]
    temperatures: Mapping[str, float]
    contextual: tuple[Task, ...]
    priors: Mapping[str, calibration.Probabilities] = field(default_factory=dict)

    def prompt(self, task: Task, inputs: Mapping[str, str]) -> list[int]:
        """Token ids of the prompt for inputs that are checked here."""
        return self.tokenizer.encode_rendered(render(task, prepare(task, inputs, self.tokenizer)))

    def conversation(self, task: Task, inputs: Mapping[str, str], history: Sequence[Turn]) -> Remembered:
        """The same after as much of `history` as leaves room for the answer."""
        room = self.context - task.spec.decoding.max_new_tokens
        prepared = prepare(task, inputs, self.tokenizer)
        return remember(task, history, prepared, self.tokenizer, room=room, restate=self.late_system)

    def work(
        self, task: Task, ids: list[int], seed: int | None = None, on_token: Callable[[int], bool | None] | None = None
    ) -> Work:
        """What the engine has to do for the prompt `ids`; `on_token` hears of free text, see Generate."""
        if trie := self.tries.get(task.name):
            return Classify(ids, trie)
        return Generate(ids, _sampling(task.spec.decoding, seed), self.stop_ids, on_token)

    def answer(self, task: Task, result: Result) -> Answer:
        """What the engine's result means."""
        if task.labels:
            return self._label_answer(task, result)
        text, output = reply_text(self.tokenizer, result.ids), task.spec.output
        items = items_of(text, output.max_items) if output.kind == "list" else None
        return Answer(task.name, result, text=text, items=items)

    def untempered(self, answer: Answer) -> calibration.Probabilities:
        """Probabilities of a label task's answer as they are before its temperature."""
        return calibration.calibrated(answer.result.probabilities, self.priors.get(answer.task), 1.0)

    def first_works(self) -> list[Work]:
        """What the engine has to compute before requests, for `learned`: contextual tasks on nothing to judge."""
        works: list[Work] = []
        for task in self.contextual:
            for word in _CONTENT_FREE:
                ids = self.tokenizer.encode_rendered(render(task, dict.fromkeys(task.spec.inputs, word)))
                _check_room(task, len(ids), self.context)
                works.append(self.work(task, ids))
        return works

    def learned(self, results: Sequence[Result]) -> Bound:
        """The same with the results of `first_works` taken into account."""
        each = len(_CONTENT_FREE)
        groups = [results[start : start + each] for start in range(0, len(results), each)]
        priors = {
            task.name: calibration.mean([result.probabilities for result in group])
            for task, group in zip(self.contextual, groups, strict=True)
        }
        return replace(self, priors=priors)

    def _label_answer(self, task: Task, result: Result) -> Answer:
        assert result.label is not None
        prior = self.priors.get(task.name)
        shares = calibration.calibrated(result.probabilities, prior, self.temperatures[task.name])
        # Without a prior the order is the engine's, which goes by tokens where labels share some.
        best = task.spec.output.labels[result.label if prior is None else shares.index(max(shares))]
        probabilities = dict(zip(task.labels, shares, strict=True))
        unknown = task.spec.output.unknown
        if unknown and max(shares) < unknown.below:
            return Answer(task.name, result, label=unknown.name, probabilities=probabilities)
        return Answer(task.name, result, label=best.name, emoji=best.emoji, probabilities=probabilities)


def bind(registry: Registry, checkpoint: Checkpoint) -> tuple[Bound, list[list[int]]]:
    """Fit the tasks to a checkpoint's tokens; returns also the fixed beginnings of their prompts.

    Raises:
        TaskFileError: labels or a prompt that do not go with the checkpoint's tokens or context.
    """
    tokenizer, context = checkpoint.tokenizer, checkpoint.model.context
    tries = {task.name: _label_trie(task, tokenizer) for task in registry if task.labels}
    prefixes = [fixed_prefix(task, tokenizer) for task in registry]
    for task, prefix in zip(registry, prefixes, strict=True):
        _check_room(task, len(prefix), context)
    bound = Bound(
        tokenizer,
        checkpoint.stop_ids,
        context,
        takes_late_system(tokenizer),
        tries,
        temperatures={task.name: _temperature(task, checkpoint.identity) for task in registry},
        contextual=tuple(task for task in registry if task.spec.output.contextual),
    )
    return bound, [prefix for prefix in prefixes if prefix]


def fixed_prefix(task: Task, tokenizer: Tokenizer) -> list[int]:
    """The token ids all prompts of `task` begin with.

    Found by comparing prompts whose inputs differ from the first character, since the tokens at the
    seam depend on the text.
    """
    one, other = (
        tokenizer.encode_rendered(render(task, dict.fromkeys(task.spec.inputs, probe))) for probe in ("中文", "Zq 7")
    )
    length = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return one[:length]


def _temperature(task: Task, model: str) -> float:
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


def _label_trie(task: Task, tokenizer: Tokenizer) -> LabelTrie:
    ids = tuple(tuple(tokenizer.encode(label)) for label in task.labels)
    most = task.spec.decoding.max_new_tokens
    for label, tokens in zip(task.labels, ids, strict=True):
        if len(tokens) > most:
            raise _label_error(task, f"label {label!r} has {len(tokens)} tokens, decoding.max_new_tokens is {most}")
    try:
        return LabelTrie(ids)
    except ValueError as error:
        raise _label_error(task, str(error)) from None


def _check_room(task: Task, fixed: int, context: int) -> None:
    """A prompt that leaves no room for a text would be refused on every request."""
    most = task.spec.decoding.max_new_tokens
    if fixed + most >= context:
        problem = f"has {fixed} fixed tokens and up to {most} of answer, which fill the context of {context}"
        raise TaskFileError(Path(task.name) / "prompt.md", "(body)", problem, "shorten it or raise QAIO_CONTEXT")


def _label_error(task: Task, problem: str) -> TaskFileError:
    return TaskFileError(Path(task.name) / "prompt.md", "output.labels", problem, "choose other label names")


def _sampling(decoding: Decoding, seed: int | None) -> Sampling:
    greedy = decoding.strategy == "greedy"
    return Sampling(
        max_new_tokens=decoding.max_new_tokens,
        temperature=0.0 if greedy else decoding.temperature,
        top_p=decoding.top_p,
        top_k=decoding.top_k,
        repetition_penalty=decoding.repetition_penalty,
        seed=seed,
    )
