"""What the desk asks of a model for each row: the engine in this process, or a running service; equal answers."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from qwen_allinone.desk.drafts import repeats_itself
from qwen_allinone.desk.journal import Answers
from qwen_allinone.errors import DataFileError, NotReady, RequestError, ServiceError
from qwen_allinone.patience import RemoteService, patiently
from qwen_allinone.wording import said

if TYPE_CHECKING:
    from qwen_allinone.service import Answer, Service

SENTIMENT, INTENT, KEYWORDS, CARE, SUGGEST = "sentiment", "intent", "keywords", "care", "suggest"
TASKS = (SENTIMENT, INTENT, KEYWORDS, CARE, SUGGEST)
POSITIVE, NEGATIVE, COMPLAINT = "正面", "负面", "投诉"
HELP, ANGRY = "求助", "强烈负面"
ALARMS = (HELP, COMPLAINT, ANGRY)  # the gravest first
SURE = 0.95  # from this probability on a negative label is an alarm, unless somebody says otherwise

_PAUSES_S = (1, 5, 15)
_CUT = "length"  # the finish_reason of what was cut off
# No task takes so many; told here, because a request may be refused for its size before it is looked at.
_MOST_CHARACTERS = 20_000

T = TypeVar("T")


class Refused(Exception):
    """A row that the model does not take; the message, in Chinese, says why."""


@dataclass(frozen=True)
class Gold:
    """How a label task does on its gold cases; `accuracy` is a share of 1."""

    cases: int
    accuracy: float


@dataclass(frozen=True)
class TaskInfo:
    labels: tuple[str, ...]
    gold: Gold | None


@dataclass(frozen=True)
class Said:
    """The answer of a task: a label and how likely it is, or items, or text. `is_cut`: at the length limit."""

    label: str = ""
    probability: float = 0.0
    items: tuple[str, ...] = ()
    text: str = ""
    is_cut: bool = False


@dataclass(frozen=True)
class ModelInfo:
    """What a model is called, the tasks it knows, and, where that is known, which weights and prompts it is made of."""

    model: str
    tasks: Mapping[str, TaskInfo]
    made_of: str = field(default="", kw_only=True)


@dataclass(frozen=True)
class Clerk(ModelInfo):
    """Answers one task about one text. `ask` raises Refused where the text is at fault, and ServiceError, OSError or
    HTTPException where something else is."""

    ask: Callable[[str, Mapping[str, str]], Said]


def in_process(service: Service, model: str) -> Clerk:
    """The engine of this process. `model` is what it is called."""
    from qwen_allinone.service import CacheUse, Terms  # here: whoever asks a running service needs no torch

    fits = service.gold_fits()

    def about(name: str) -> TaskInfo:
        fit = fits.get(name)
        return TaskInfo(service.registry.get(name).labels, Gold(fit.cases, round(fit.accuracy, 4)) if fit else None)

    def ask(task: str, inputs: Mapping[str, str]) -> Said:
        try:
            return _said(patiently(lambda: service.run(task, inputs, Terms(cache=CacheUse()))))
        except RequestError as error:
            raise Refused(str(error)) from None

    made_of = f"{service.codec.model_id}, prompts {service.registry.version}"
    return Clerk(model, {task.name: about(task.name) for task in service.registry}, ask, made_of=made_of)


def over_http(remote: RemoteService) -> Clerk:
    """A running service.

    Raises:
        DataFileError: it does not answer as one, or does not take the key.
    """
    try:
        response = remote.ask("GET", "/v1/tasks")
        if response.status != 200:
            raise _stopped(response.status, response.body)
        about = json.loads(response.body)["tasks"]
        tasks = {entry["name"]: TaskInfo(tuple(entry["labels"]), _gold(entry.get("gold"))) for entry in about}
    except (OSError, http.client.HTTPException) as error:
        raise DataFileError(said("url_silent", name=type(error).__name__, error=error)) from None
    except (ValueError, KeyError, TypeError):
        raise DataFileError(said("url_is_no_service")) from None

    def ask(task: str, inputs: Mapping[str, str]) -> Said:
        response = remote.ask("POST", f"/v1/tasks/{quote(task)}", {**inputs, "detail": True})
        if response.status in (400, 413, 422):
            raise Refused(_message(response.body))
        if response.status >= 500:
            raise ServiceError(f"{response.status}: {_message(response.body)}")
        if response.status != 200:
            raise _stopped(response.status, response.body)
        return _read(response.body)

    return Clerk(response.model, tasks, ask)


def check(about: ModelInfo, wanted: Sequence[str]) -> tuple[str, ...]:
    """The tasks of `wanted` that there are.

    Raises:
        DataFileError: the one that all depends on is not there, or is not what it is here.
    """
    sentiment = about.tasks.get(SENTIMENT)
    if sentiment is None or not {POSITIVE, NEGATIVE} <= set(sentiment.labels):
        raise DataFileError(said("sentiment_needed", sentiment=SENTIMENT, positive=POSITIVE, negative=NEGATIVE))
    return tuple(name for name in wanted if name in about.tasks)


def answer(clerk: Clerk, tasks: Sequence[str], text: str, sure: float, given_up: Event, problem: str = "") -> Answers:
    """All that is asked about one text. A negative label is an alarm from the probability `sure` on. With a `problem`
    there is no text and nothing is asked.

    Raises:
        DataFileError: the model does not answer, though it was asked several times.
    """

    def ask(task: str, **inputs: str) -> Said:
        if task not in tasks:
            return Said()
        return _stubbornly(lambda: clerk.ask(task, inputs), given_up)

    if problem:
        return Answers(problem=problem)
    if not text:
        return Answers(problem="内容为空")
    if len(text) > _MOST_CHARACTERS:
        return Answers(problem=f"有 {len(text)} 个字，太长了，请缩短或分成几条")
    try:
        sentiment, intent, care = (ask(task, text=text) for task in (SENTIMENT, INTENT, CARE))
        keywords = ask(KEYWORDS, text=text).items
        is_complaint = intent.label == COMPLAINT
        needs_help = bool(care.label) and care.label == clerk.tasks[CARE].labels[0]
        fired = {
            HELP: needs_help,
            COMPLAINT: is_complaint,
            ANGRY: sentiment.label == NEGATIVE and sentiment.probability >= sure,
        }
        draft = Said()
        if is_complaint and not needs_help:  # where somebody may be in danger a person answers, not a shop's phrase
            draft = ask(SUGGEST, text=text, label=sentiment.label, intent=intent.label)
    except Refused as error:
        return Answers(problem=str(error))
    dropped = draft.is_cut or repeats_itself(draft.text)
    return Answers(
        sentiment.label,
        sentiment.probability,
        intent.label,
        intent.probability,
        keywords,
        tuple(name for name in ALARMS if fired[name]),
        "" if dropped else draft.text,
        care=care.label,
        care_probability=care.probability,
        draft_dropped=dropped,
    )


def _stubbornly(ask: Callable[[], T], given_up: Event) -> T:
    """Ask again, after pauses, where the service and not the text was at fault."""
    for pause in (*_PAUSES_S, None):
        try:
            if not given_up.is_set():
                return ask()
        except (ServiceError, OSError, http.client.HTTPException) as error:
            if pause is None or isinstance(error, NotReady):
                raise DataFileError(said("model_silent", value=error or type(error).__name__)) from None
            given_up.wait(pause)
    raise DataFileError(said("given_up"))


def _said(answer: Answer) -> Said:
    probability = round((answer.probabilities or {}).get(answer.label or "", 0.0), 4)
    text = "" if answer.label else answer.text
    return Said(answer.label or "", probability, answer.items or (), text, answer.result.finish_reason == _CUT)


def _read(raw: bytes) -> Said:
    try:
        body = json.loads(raw)
        label = body.get("label", "")
        probability = body["detail"]["probabilities"].get(label, 0.0) if label else 0.0
        items, text = tuple(body.get("items", ())), str(body.get("text") or "")
        return Said(label, round(float(probability), 4), items, text, is_cut(body))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ServiceError(said("answer_wrong")) from None


def is_cut(body: Mapping[str, Any]) -> bool:
    """Whether what a service answered, with its details, ends at the length limit."""
    return bool((body.get("detail") or {}).get("finish_reason") == _CUT)


def _message(raw: bytes) -> str:
    """What the service says of the error."""
    try:
        said: Any = json.loads(raw)["error"]
        return str(said["message"] if isinstance(said, dict) else said)
    except (ValueError, KeyError, TypeError):
        return raw[:200].decode(errors="replace")


def _stopped(status: int, raw: bytes) -> DataFileError:
    told = "it does not take the key; give one with --key" if status == 401 else _message(raw)
    return DataFileError(said("url_refuses", status=status, told=told))


def _gold(entry: Mapping[str, Any] | None) -> Gold | None:
    return Gold(int(entry["cases"]), float(entry["accuracy"])) if entry else None
