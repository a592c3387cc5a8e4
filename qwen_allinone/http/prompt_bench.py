"""/v1/prompts: read a task's prompt, try a changed one on its gold cases, save it as a new task folder.

Only with QAIO_PROMPT_EDIT=1; where keys are asked for, for those of QAIO_ADMINS alone. What is served stays as it is: a
new folder is taken by the next reload.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

from flask import Response, jsonify
from flask_openapi import OpenAPI
from pydantic import BaseModel, Field

from qwen_allinone.errors import InvalidInput, PromptsForbidden, PromptsUnwritable, ServerBusy, TaskFileError
from qwen_allinone.http.backend import Backend
from qwen_allinone.http.body import Body
from qwen_allinone.http.error_answers import NestedErrorBody, error_responses, in_asked_language
from qwen_allinone.http.request_state import state
from qwen_allinone.http.request_terms import needs_engine, parameters, terms
from qwen_allinone.service import Outcome, Tried, try_task
from qwen_allinone.tasks import PROMPT, Case, read_changed, save_as
from qwen_allinone.wording import message_of, said

log = logging.getLogger(__name__)

_LONGEST = 100_000


class TaskPath(BaseModel):
    """Which task."""

    task: str


class PromptInfo(BaseModel):
    """The prompt that is served."""

    task: str
    prompt: str = Field(description="prompt.md")
    cases: int = Field(description="Gold cases that it can be tried on")


class PromptTrial(Body):
    """A changed prompt."""

    prompt: str = Field(max_length=_LONGEST, description="整个 prompt.md")


class NewTask(PromptTrial):
    """A folder to be made."""

    name: str = Field(max_length=40, description="新任务的名字：a-z、0-9 和 _，以字母开头", examples=["sentiment_shop"])


class Share(BaseModel):
    """How a prompt does on the gold cases."""

    accuracy: float = Field(description="Of 1; of a fitted label task, each case answered by a fit to the others")
    fitted: bool = Field(description="Whether what the prompt prefers is taken out of the answers")


class CaseAnswer(BaseModel):
    """One answer to a gold case."""

    answer: str
    problem: str = Field(description="What is wrong with it; empty: nothing")


class CaseResult(BaseModel):
    """A gold case under both prompts."""

    inputs: dict[str, str]
    expected: str
    before: CaseAnswer | None
    now: CaseAnswer


class TrialResult(BaseModel):
    """What came of a changed prompt."""

    task: str
    before: Share | None = Field(description="Of the prompt that is served; null where its inputs or kind are others")
    now: Share
    results: list[CaseResult] = Field(description="In the order of cases.yaml")


class TaskSaved(BaseModel):
    """The folder is there, and is not served yet."""

    task: str
    next: str = Field(description="What makes it served")


def register(app: OpenAPI, backend: Backend) -> None:
    """Add the routes to `app`, if prompts may be edited."""
    bench = backend.prompt_bench
    if bench is None:
        return
    service, trying = backend.service, threading.Lock()
    errors = error_responses(NestedErrorBody, 400, 403, 404, 500, 503)
    body_errors = error_responses(NestedErrorBody, 413, 415)

    def folder_of(task: str) -> Path:
        if bench.editors is not None and state.caller not in bench.editors:
            raise PromptsForbidden()
        return bench.in_force / service.registry.get(task).name

    @app.get("/v1/prompts/<task>", summary="任务的提示词", responses={200: PromptInfo, **errors})
    def read_prompt(path: TaskPath) -> Response:
        text = (folder_of(path.task) / PROMPT).read_text("utf-8-sig")
        shown = PromptInfo(task=path.task, prompt=text, cases=len(service.registry.cases(path.task)))
        return jsonify(shown.model_dump())

    @app.post(
        "/v1/prompts/<task>/trial",
        summary="用标准用例试一个改过的提示词",
        responses={200: TrialResult, **errors, **body_errors, **error_responses(NestedErrorBody, 504)},
        openapi_extensions=parameters(),
    )
    @needs_engine
    def try_prompt(path: TaskPath, body: PromptTrial) -> Response:
        folder = folder_of(path.task)
        if not trying.acquire(blocking=False):  # one takes slots enough
            raise ServerBusy(said("trial_busy"))
        try:
            task, cases = read_changed(folder, body.prompt)
            if not cases:
                raise InvalidInput(said("trial_cases", task=path.task))
            trial = try_task(service, task, cases, bench.how, terms(backend))
        except TaskFileError as error:
            raise _wrong_prompt(error) from None
        finally:
            trying.release()
        before = trial.before.outcomes if trial.before else (None,) * len(cases)
        results = [_result(*of_case) for of_case in zip(cases, before, trial.now.outcomes, strict=True)]
        shown = TrialResult(task=path.task, before=_share(trial.before), now=_share(trial.now), results=results)
        return jsonify(shown.model_dump())

    @app.post(
        "/v1/prompts/<task>/save",
        summary="把改过的提示词存成一个新任务文件夹",
        responses={200: TaskSaved, **errors, **body_errors, **error_responses(NestedErrorBody, 409)},
    )
    def save_prompt(path: TaskPath, body: NewTask) -> Response:
        folder = folder_of(path.task)
        try:
            task = save_as(folder, body.prompt, bench.prompts, body.name)
        except TaskFileError as error:
            raise _wrong_prompt(error) from None
        except OSError as error:
            log.warning("%s: no folder can be made there: %s", bench.prompts, error)
            raise PromptsUnwritable() from None
        log.info("prompts: %s made of %s by %s", task.name, path.task, state.caller or "nobody by name")
        return jsonify(TaskSaved(task=task.name, next="qwen-allinone prompts reload").model_dump())


def _wrong_prompt(error: TaskFileError) -> InvalidInput:
    """What is wrong stands in the words of who checks task folders, as on the command line."""
    told = said("task_unusable", error=message_of(error))
    return InvalidInput(told, param="name" if error.key == "folder name" else "prompt")


def _share(tried: Tried | None) -> Any:
    return Share(accuracy=round(tried.accuracy, 4), fitted=tried.fitted) if tried else None


def _result(case: Case, before: Outcome | None, now: Outcome) -> CaseResult:
    return CaseResult(
        inputs=dict(case.inputs),
        expected=_expected(case),
        before=_answer(before) if before else None,
        now=_answer(now),
    )


def _answer(outcome: Outcome) -> CaseAnswer:
    return CaseAnswer(answer=outcome.answer, problem=in_asked_language(outcome.problem))


def _expected(case: Case) -> str:
    """In one line."""
    if case.label is not None:
        return case.label
    parts = [
        said("expects_any", words="、".join(case.any)) if case.any else "",
        said("expects_all", words="、".join(case.all)) if case.all else "",
        said("expects_none", words="、".join(case.none)) if case.none else "",
        said("expects_short", most=case.max_chars) if case.max_chars else "",
        "，".join(f"{name}={value}" for name, value in case.fields.items()),
    ]
    return "；".join(in_asked_language(part) for part in parts if part)
