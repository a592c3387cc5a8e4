"""A changed prompt is tried: the gold cases of its task under the old and the new one, on the model that serves.

Nothing of it is published: other requests are answered by the old prompt all the while.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from qwen_allinone.engine import Classify, Generate, Result, Work
from qwen_allinone.errors import InputTooLong, RequestError
from qwen_allinone.service.answer_types import Answer, Terms
from qwen_allinone.service.codec import Codec, fit_task
from qwen_allinone.service.fitted_task import FittedTask
from qwen_allinone.service.fitting import Fitting, How, fit_tasks
from qwen_allinone.service.judging import Outcome, judge
from qwen_allinone.service.request import Request
from qwen_allinone.service.service import Service
from qwen_allinone.tasks import Case, Masking, Task
from qwen_allinone.wording import said

TRIAL = "trial"  # what telemetry calls the answers: no task of users


@dataclass(frozen=True)
class Tried:
    """How one prompt does on the gold cases. `accuracy` is a share of 1; of a label task that was fitted to the model
    (`fitted`) each case is answered by a fit to the others, so it may differ from the share of right `outcomes`."""

    outcomes: tuple[Outcome, ...]
    accuracy: float
    fitted: bool


@dataclass(frozen=True)
class Trial:
    """The gold cases under both prompts, in the same order. `before`: None where the old prompt cannot be asked them,
    since its inputs or its kind are others."""

    before: Tried | None
    now: Tried


def try_task(service: Service, task: Task, cases: Sequence[Case], how: How, terms: Terms | None = None) -> Trial:
    """Try `task`, which has the name of one that is served, on `cases`, as one request. `how` label tasks are fitted.

    Raises:
        TaskFileError: the prompt does not go with the model's tokens. ServiceError: busy, not ready, too late, failed.
    """
    with service.request(terms or Terms()) as request:
        codec = request.codec
        old = codec.tasks[task.name]
        new = _fitted(request, codec, replace(task, calibration=None), cases, how)
        alike = set(old.task.spec.given) == set(task.spec.given) and old.task.spec.output.kind == task.spec.output.kind
        return Trial(_tried(request, old, cases) if alike else None, _tried(request, new, cases))


def _fitted(request: Request, codec: Codec, task: Task, cases: Sequence[Case], how: How) -> FittedTask:
    """In the model's tokens, and fitted to it as at a start."""

    def in_tokens(one: Task) -> FittedTask:
        return fit_task(one, codec.tokenizer, codec.context, "", codec.model_id)

    key = f"{task.name} ({TRIAL})"  # in the log
    plain = task.as_plain
    forms: Mapping[str, FittedTask] = {key: in_tokens(plain)} if plain else {}
    # There is no limit of its own: the request has one.
    fitting = Fitting(how, float("inf"))
    return fit_tasks({key: in_tokens(task)}, forms, {key: cases}, fitting, partial(_computed, request))[key]


def _tried(request: Request, fitted: FittedTask, cases: Sequence[Case]) -> Tried:
    works, asked, outcomes = list[Work](), dict[int, Masking](), dict[int, Outcome]()
    for number, case in enumerate(cases):
        masking = Masking()
        try:
            works.append(_work(request.codec, fitted, case, masking))
            asked[number] = masking
        except RequestError as error:
            outcomes[number] = Outcome(case, "", error.message)
    for (number, masking), result in zip(asked.items(), _computed(request, works), strict=True):
        outcomes[number] = judge(cases[number], fitted.answer(result, masking))
    ordered = tuple(outcomes[number] for number in range(len(cases)))
    right = sum(outcome.passed for outcome in ordered) / len(ordered) if ordered else 0.0
    fit = fitted.fit
    return Tried(ordered, fit.accuracy if fit else right, fit is not None and fit.prior is not None)


def _work(codec: Codec, fitted: FittedTask, case: Case, masking: Masking) -> Work:
    """Raises RequestError: the service would not take the case."""
    ids = fitted.prompt(fitted.task.hidden(case.inputs, masking), {})
    work: Work
    if fitted.trie is not None:
        work = Classify(ids, fitted.trie, fitted.adapter)
    else:
        form = codec.forms.begin(fitted.task.grammar) if fitted.task.grammar else None
        work = Generate(ids, replace(fitted.sampling, seed=0), codec.stop_ids, None, form, fitted.adapter)
    if work.most_tokens > codec.context:  # one case is not to end the others
        raise InputTooLong(said("trial_context", context=codec.context))
    return work


def _computed(request: Request, works: Sequence[Work]) -> list[Result]:
    results = request.compute(TRIAL, works)
    request.terms.answers.extend([Answer(TRIAL, result, model_id=request.codec.model_id) for result in results])
    return results
