"""A label task meets a model: its own gold cases show how well it does, and what to take out of the model's answers.

Each case costs one pass, before the first request is taken. What was found is kept in a file, by model and prompt, so
that only the first start with a model pays for it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from qwen_allinone.engine import Classify, Compute
from qwen_allinone.errors import RequestError
from qwen_allinone.files import locked_folder, replace_file
from qwen_allinone.service.fitted_task import FittedTask
from qwen_allinone.service.gold_fit import GoldFit, accuracy_of, fit_to_gold
from qwen_allinone.service.label_answer import Probabilities, mean
from qwen_allinone.tasks import Case, Masking, short_hash

log = logging.getLogger(__name__)

# Inputs with nothing to judge: what a prompt answers to them is what it prefers by itself.
CONTENT_FREE = ("", "N/A", "无")
_AT_ONCE = 8  # cases between two looks at the clock
_WORTH_KEEPING_S = 1.0  # what took less is found anew at each start
_MOST_KEPT = 500

How = Literal["gold", "contextual", "off"]
_KEPT = TypeAdapter(dict[str, GoldFit])


@dataclass(frozen=True)
class Fitting:
    """Whether tasks are fitted (`gold`, `contextual` or `off`), the seconds that may take, and where it is kept."""

    how: How = "off"
    seconds: float = 15.0
    file: Path | None = None


UNFITTED = Fitting()


def fit_tasks(
    tasks: Mapping[str, FittedTask],
    plain: Mapping[str, FittedTask],
    cases: Mapping[str, Sequence[Case]],
    fitting: Fitting,
    compute: Compute,
) -> dict[str, FittedTask]:
    """The same tasks, each label task knowing what its prompt prefers and how it does on its gold `cases`.

    `plain` are those of them whose prompt may also be written as a plain text: of the two forms the one is taken whose
    answers to the gold cases are likelier.
    """
    began = time.monotonic()
    meeting = _Meeting(fitting, compute, began + fitting.seconds)
    met, late = dict(tasks), list[str]()
    for name, fitted in tasks.items():
        if fitted.trie is None:
            continue
        forms = [fitted, *([plain[name]] if name in plain and fitting.how != "off" else [])]
        try:
            tried = [meeting.fitted(form, cases[name]) for form in forms]
        except TimeoutError:
            late.append(name)
            met[name] = fitted.with_prior(meeting.prior(fitted))
            continue
        met[name] = min(tried, key=lambda form: form.fit.loss if form.fit else 0.0)
    _tell(met, late, fitting)
    if meeting.fresh and fitting.file and time.monotonic() - began > _WORTH_KEEPING_S:
        _keep(fitting.file, meeting.fresh)
    return met


class _Meeting:
    """Label tasks and a model that has just been loaded. `fresh` is what was found and not kept before, by its key."""

    def __init__(self, fitting: Fitting, compute: Compute, deadline: float) -> None:
        self.fresh: dict[str, GoldFit] = {}
        self._how, self._compute, self._deadline = fitting.how, compute, deadline
        self._kept = _read(fitting.file) if fitting.file and fitting.how != "off" else {}

    def fitted(self, fitted: FittedTask, cases: Sequence[Case]) -> FittedTask:
        """The task with its prior and its fit; raises TimeoutError."""
        prior = self.prior(fitted)
        asked = _askable(fitted, cases) if self._how != "off" else []
        if not asked:
            return fitted.with_prior(prior)
        key = _key(fitted, asked, prior)
        found = self._kept.get(key)
        if found is None or (found.prior and len(found.prior) != len(fitted.task.labels)):
            answers, gold = self._answers(fitted, [ids for ids, _ in asked]), [label for _, label in asked]
            found = fit_to_gold(answers, gold) if prior is None else accuracy_of(answers, gold, prior)
            self.fresh[key] = found
        return fitted.with_fit(found)

    def prior(self, fitted: FittedTask) -> Probabilities | None:
        """What a contextual task answers with nothing to judge; None for the others."""
        if not (fitted.task.spec.output.contextual or self._how == "contextual"):
            return None
        assert fitted.trie is not None, "label tasks have labels"
        prompts = [fitted.encode(dict.fromkeys(fitted.task.spec.inputs, word)) for word in CONTENT_FREE]
        results = self._compute([Classify(prompt, fitted.trie, fitted.adapter) for prompt in prompts])
        return mean([result.probabilities for result in results])

    def _answers(self, fitted: FittedTask, prompts: Sequence[Sequence[int]]) -> list[Probabilities]:
        """Probabilities of the labels after each prompt."""
        assert fitted.trie is not None, "label tasks have labels"
        answers = list[Probabilities]()
        for first in range(0, len(prompts), _AT_ONCE):
            if time.monotonic() > self._deadline:
                raise TimeoutError
            works = [Classify(prompt, fitted.trie, fitted.adapter) for prompt in prompts[first : first + _AT_ONCE]]
            answers += [result.probabilities for result in self._compute(works)]
        return answers


def _askable(fitted: FittedTask, cases: Sequence[Case]) -> list[tuple[list[int], int]]:
    """Prompts and right labels of the cases that the service would take."""
    assert fitted.trie is not None, "label tasks have labels"
    asked = list[tuple[list[int], int]]()
    for case in cases:
        try:
            ids = fitted.prompt(fitted.task.hidden(case.inputs, Masking()), {})
        except RequestError:
            continue
        if len(ids) + fitted.trie.longest <= fitted.context and case.label in fitted.task.labels:
            asked.append((ids, fitted.task.labels.index(case.label)))
    return asked


def _tell(tasks: Mapping[str, FittedTask], late: Sequence[str], fitting: Fitting) -> None:
    """One line of figures, and a warning for each thing that an operator would want to know."""
    found = {name: fitted.fit for name, fitted in tasks.items() if fitted.fit}
    if found:
        shown = (f"{name} {_percent(fit.raw)}{_fitted_to(fit)}" for name, fit in found.items())
        log.info("label tasks on their gold cases: %s", ", ".join(shown))
    for name, fit in found.items():
        if fit.guesses:
            log.warning(
                "%s: %s of its %d gold cases are right, where guessing gets %s: this model does not understand the "
                "prompt; rewrite it or take another model",
                name, _percent(fit.accuracy), fit.cases, _percent(fit.chance),
            )  # fmt: skip
    if late:
        log.warning(
            "%s: not fitted to the model within QAIO_FIT_S=%g; raise it for the next start", ", ".join(late),
            fitting.seconds,
        )  # fmt: skip


def _fitted_to(fit: GoldFit) -> str:
    return "" if fit.prior is None else f" -> {_percent(fit.accuracy)} fitted"


def _percent(share: float) -> str:
    return f"{share:.0%}"


def _key(fitted: FittedTask, cases: Sequence[tuple[list[int], int]], prior: Probabilities | None) -> str:
    """Changes with all that the figures depend on."""
    return short_hash(f"{fitted.model_id} {fitted.task.name} {fitted.task.prompt_hash} {prior} {cases}")


def _read(file: Path) -> dict[str, GoldFit]:
    try:
        return _KEPT.validate_json(file.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError) as error:
        log.warning("%s cannot be used (%s): label tasks are fitted anew", file, type(error).__name__)
        return {}


def _keep(file: Path, fresh: Mapping[str, GoldFit]) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with locked_folder(file.parent):  # another worker may have found other tasks
            kept = {**(_read(file)), **fresh}
            newest = dict(list(kept.items())[-_MOST_KEPT:])
            replace_file(file, _KEPT.dump_json(newest, indent=1))
    except OSError as error:
        log.warning("%s cannot be written (%s): the next start fits again; set QAIO_FIT_FILE", file, error.strerror)
