"""POST /v1/feedback: people say whether the answer of a label task was right, and what would have been.

What may be corrected is kept where QAIO_FEEDBACK_FILE says; without it nothing is.
"""

from __future__ import annotations

from collections import Counter
from typing import Annotated

from flask import Response, jsonify
from flask_openapi import OpenAPI
from pydantic import BaseModel, Field, StringConstraints

from qwen_allinone.errors import AnswerNotFound, FeedbackOff, InvalidInput
from qwen_allinone.http.backend import Backend
from qwen_allinone.http.body import Body
from qwen_allinone.http.error_answers import NestedErrorBody, error_responses
from qwen_allinone.http.request_state import RequestState, state
from qwen_allinone.http.request_state import current as current_state
from qwen_allinone.state import Corrections, LabelAnswer, now
from qwen_allinone.tasks import CARE
from qwen_allinone.telemetry import Telemetry
from qwen_allinone.wording import is_it, said


class FeedbackRequest(Body):
    """Which answer, and what is right: either `ok` or `label`."""

    request_id: Annotated[str, StringConstraints(min_length=1, max_length=128)] = Field(
        description="那个回答的响应头 X-Request-Id"
    )
    task: Annotated[str, StringConstraints(max_length=64)] | None = Field(
        None, description="任务名；那个请求里有几个标签任务时才需要"
    )
    label: Annotated[str, StringConstraints(max_length=64)] | None = Field(None, description="正确的标签")
    ok: bool | None = Field(None, description="true：回答是对的")
    note: Annotated[str, StringConstraints(max_length=1000)] = Field("", description="备注")


class FeedbackKept(BaseModel):
    """What is kept."""

    request_id: str
    task: str
    answered: str
    label: str
    was_right: bool


def register(app: OpenAPI, backend: Backend, telemetry: Telemetry) -> None:
    """Add the route, and have answers kept until then."""
    corrections = backend.corrections

    @app.post(
        "/v1/feedback",
        summary="标签任务的回答对不对，正确的标签是什么",
        responses={200: FeedbackKept, **error_responses(NestedErrorBody, 400, 404, 413, 415, 500, 503)},
    )
    def feedback(body: FeedbackRequest) -> Response:
        if corrections is None:
            raise FeedbackOff()
        answer = _meant(corrections.tasks_of(state.caller, body.request_id), body.task)
        task = backend.service.registry.get(answer.task)
        label = _right_label(body, answer, task.labels)
        kept = corrections.correct(state.caller, answer, label, body.note)
        if kept.is_first:
            telemetry.metrics.count_feedback(answer.task, right=kept.was_right)
        shown = FeedbackKept(
            request_id=answer.request_id,
            task=answer.task,
            answered=answer.label,
            label=label,
            was_right=kept.was_right,
        )
        return jsonify(shown.model_dump())

    if corrections is not None:

        @app.after_request
        def keep_answers(response: Response) -> Response:
            if response.is_streamed:  # its answers are there when it has been sent
                asked = current_state()
                response.call_on_close(lambda: _keep(corrections, asked))
            else:
                _keep(corrections, current_state())
            return response


def _keep(corrections: Corrections, asked: RequestState) -> None:
    """Keep the request's answers of label tasks, but for tasks that it asked several times: which one is meant?"""
    times = Counter(answer.task for answer in asked.answers)
    for answer in asked.answers:
        if answer.label is None or answer.inputs is None or times[answer.task] > 1:
            continue
        likely = (answer.probabilities or {}).get(answer.label)
        corrections.remember(
            asked.caller,
            LabelAnswer(asked.id, answer.task, answer.inputs, answer.label, likely, answer.version, now()),
        )


def _meant(answers: dict[str, LabelAnswer], task: str | None) -> LabelAnswer:
    if not answers:
        raise AnswerNotFound()
    shown = [name for name in answers if name != CARE]  # a chat asks that one too, and seldom shows what it said
    if task is None and len(shown or answers) == 1:
        return answers[(shown or list(answers))[0]]
    if task is None:
        raise InvalidInput(said("which_task", answers=answers), param="task")
    if task not in answers:
        raise InvalidInput(said("task_not_asked", task=task, asked=is_it(task, answers), answers=answers), param="task")
    return answers[task]


def _right_label(body: FeedbackRequest, answer: LabelAnswer, labels: tuple[str, ...]) -> str:
    if (body.label is None) == (body.ok is None) or body.ok is False:
        raise InvalidInput(said("ok_or_label"), param="label")
    label = answer.label if body.label is None else body.label
    if label not in labels:
        way = said("there_are_labels", labels=labels)
        if body.label is None:
            raise InvalidInput(said("answer_no_label", label=label, way=way), param="label")
        raise InvalidInput(
            said("unknown_label", task=answer.task, label=label, asked=is_it(label, labels), way=way), param="label"
        )
    return label
