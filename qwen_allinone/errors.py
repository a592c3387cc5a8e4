"""The exception tree. Each error that can reach a client carries its HTTP status and code.

QaioError
├── RequestError                    the caller's request; message of the catalogue (wording/), says what to do
│   ├── InvalidInput        400     wrong type, unknown key, broken JSON, ...
│   │   ├── EmptyInput      400     nothing to work on
│   │   ├── InputTooLong    400     more tokens than the task or the context takes
│   │   │   └── ContextExceeded 400
│   │   └── SessionFull     400     the conversation has all the turns it may have
│   ├── Unauthorized        401     no key or token, or one that does not hold
│   ├── WrongOrigin         403     an upload by a web page of another site
│   ├── UsageForbidden      403     another caller's usage
│   ├── PromptsForbidden    403     trying and saving prompts, for a caller that may not
│   ├── ReloadForbidden     403     only admins may have the service reload
│   ├── PriorityForbidden   403     a request that may not go before others wants to
│   ├── WrongHost           421     asked for under a host name that is not this service's
│   ├── UnknownTask         404
│   ├── UnknownModel        404
│   ├── SessionNotFound     404     no such conversation, or it belongs to another caller
│   ├── MemoryNotFound      404     no such memory, or it is another user's
│   ├── AnswerNotFound      404     no such answer of a label task to give feedback on, or it is another caller's
│   ├── FeedbackOff         404     answers are not kept for feedback here
│   ├── BatchFileNotFound   404     no such file of batches, or it belongs to another caller
│   ├── BatchNotFound       404     no such batch, or it belongs to another caller
│   ├── BatchesOff          404     no batches are worked off here
│   ├── UsageOff            404     usage is not kept here
│   ├── ReloadOff           404     nobody here makes reloads
│   ├── ResponseNotFound    404     no such response, or it belongs to another caller
│   ├── SessionBusy         409     another request answers in this conversation, Retry-After
│   ├── OnceBusy            409     a request with this Idempotency-Key is being answered, Retry-After
│   ├── OnceMismatch        409     this Idempotency-Key was used for another request
│   ├── BatchFileInUse      409     a batch works on this file
│   ├── ReloadRefused       409     the files that it would take are at fault
│   ├── BatchOver           409     this batch has ended and cannot be cancelled
│   ├── TaskTaken           409     a task folder of this name is there already
│   ├── PayloadTooLarge     413
│   ├── UnsupportedMediaType 415
│   ├── OwnerFull           429     this caller's conversations take all the space that one's may
│   ├── BatchesFull         429     this caller has as many batches, lines or bytes of files as one may
│   ├── MemoryFull          429     what is remembered of this caller's users does
│   └── RateLimited         429     this caller's own limit, Retry-After
├── ServiceError                    ours; message of the catalogue
│   ├── ServerBusy          503     queue full, Retry-After
│   ├── NotReady            503     loading or failed to load, Retry-After
│   │   ├── Draining        503     this process is about to end
│   │   └── EngineStuck     503     this process is about to be replaced
│   ├── DeadlineExceeded    504
│   ├── Cancelled           503     given up before it was done
│   ├── StoreUnavailable    503     conversations can be neither read nor kept now, Retry-After
│   │   ├── BatchesUnavailable 503  batches can be neither read nor kept now, Retry-After
│   │   ├── OutboxUnavailable  503  alerts can be neither read nor kept now; no request is told
│   │   ├── MemoryUnavailable 503   memories can be neither read nor kept now, Retry-After
│   │   └── UsageUnavailable 503    usage can be neither read nor kept now, Retry-After
│   ├── FeedbackUnavailable 503     feedback can be neither read nor kept now, Retry-After
│   │   └── OnceUnavailable 503     no Idempotency-Key can be honoured now, Retry-After
│   ├── PromptsUnwritable   503     no task folder can be made where the tasks are
│   ├── OutOfMemory         503     there was no memory for the step this request was part of, Retry-After
│   ├── FormFailed          500     a task's schema takes too much to follow
│   └── EngineFailed        500     the step this request was part of raised
├── DataFileError                   a file of labelled data on the command line, or a result that cannot be written
├── TuningError                     an adapter that cannot be taught or written
└── StartupError                    the operator's; message of the catalogue, says which file or setting to fix
    ├── SettingsError               a QAIO_* name or value
    ├── TaskFileError               a file under prompts/
    ├── AlertsFileError             the file of rules and channels of alerts
    ├── AccessFileError             the file of API keys or the key of JSON web tokens
    └── CheckpointError             the model cannot be found, verified or loaded
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from qwen_allinone.wording import Said, is_it, said


class QaioError(Exception):
    """Root of every error this package raises on purpose."""


class RequestError(QaioError):
    """The request is at fault. `param` names the field, if there is one; `headers` go with the answer.

    `index` is which of several inputs it was, where there are several.
    """

    status = 400
    code = "bad_request"

    def __init__(self, message: str, *, param: str | None = None, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.headers = dict(headers or {})
        self.index: int | None = None


class InvalidInput(RequestError):
    code = "invalid_input"


class EmptyInput(InvalidInput):
    code = "empty_input"

    def __init__(self, *, param: str | None = None) -> None:
        super().__init__(said("empty"), param=param)


class InputTooLong(InvalidInput):
    code = "input_too_long"


class ContextExceeded(InputTooLong):
    """More than the model can hold at once; the code is the one OpenAI's clients know."""

    code = "context_length_exceeded"


class SessionFull(InvalidInput):
    code = "session_full"

    def __init__(self, most: int) -> None:
        super().__init__(
            said("session_full", most=most),
            param="session_id",
        )


class Unauthorized(RequestError):
    status = 401
    code = "unauthorized"

    def __init__(self, *, given: bool) -> None:
        """`given`: something was shown, but it does not hold."""
        if given:
            message, reason = said("key_wrong"), ', error="invalid_token"'
        else:
            message, reason = said("key_missing"), ""
        super().__init__(message, headers={"WWW-Authenticate": f'Bearer realm="qwen-allinone"{reason}'})


class RateLimited(RequestError):
    """More than the caller may have in this window; `retry_after` in seconds."""

    status = 429
    code = "rate_limited"

    def __init__(self, message: str, *, retry_after: int) -> None:
        message = said("wait", message=message, retry_after=retry_after)
        super().__init__(message, headers={"Retry-After": str(retry_after)})


class OwnerFull(RequestError):
    status = 429
    code = "sessions_full"

    def __init__(self, most_mb: int) -> None:
        super().__init__(said("sessions_full", most_mb=most_mb))


class MemoryNotFound(RequestError):
    status = 404
    code = "memory_not_found"

    def __init__(self) -> None:
        super().__init__(said("memory_not_found"), param="id")


class MemoryFull(RequestError):
    status = 429
    code = "memory_full"

    def __init__(self, most_mb: int) -> None:
        super().__init__(said("memory_full", most_mb=most_mb))


class WrongOrigin(RequestError):
    status = 403
    code = "wrong_origin"

    def __init__(self, origin: str) -> None:
        super().__init__(said("wrong_origin", origin=origin[:64]))


class WrongHost(RequestError):
    status = 421
    code = "wrong_host"

    def __init__(self, name: str) -> None:
        super().__init__(said("wrong_host", name=name[:64]))


class UnknownTask(RequestError):
    status = 404
    code = "unknown_task"

    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__(said("unknown_task", name=name[:64], asked=is_it(name, known), known=known), param="task")


class UnknownModel(RequestError):
    status = 404
    code = "model_not_found"

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(said("unknown_model", name=name[:64], there=list(map(repr, known))), param="model")


class SessionNotFound(RequestError):
    status = 404
    code = "session_not_found"

    def __init__(self) -> None:
        message = said("session_not_found")
        super().__init__(message, param="session_id")


class AnswerNotFound(RequestError):
    status = 404
    code = "answer_not_found"

    def __init__(self) -> None:
        message = said("answer_not_found")
        super().__init__(message, param="request_id")


class FeedbackOff(RequestError):
    status = 404
    code = "feedback_off"

    def __init__(self) -> None:
        super().__init__(said("feedback_off"))


class MemoryOff(RequestError):
    status = 404
    code = "memory_off"

    def __init__(self) -> None:
        super().__init__(said("memory_off"))


class UsageOff(RequestError):
    status = 404
    code = "usage_off"

    def __init__(self) -> None:
        super().__init__(said("usage_off"))


class UsageForbidden(RequestError):
    status = 403
    code = "usage_forbidden"

    def __init__(self) -> None:
        super().__init__(said("usage_forbidden"), param="key")


class PromptsForbidden(RequestError):
    status = 403
    code = "prompts_forbidden"

    def __init__(self) -> None:
        super().__init__(said("prompts_forbidden"))


class TaskTaken(RequestError):
    status = 409
    code = "task_taken"

    def __init__(self, name: str) -> None:
        super().__init__(said("task_taken", name=name), param="name")


class ReloadForbidden(RequestError):
    status = 403
    code = "reload_forbidden"

    def __init__(self) -> None:
        super().__init__(said("reload_forbidden"))


class ReloadOff(RequestError):
    status = 404
    code = "reload_off"

    def __init__(self) -> None:
        super().__init__(said("reload_off"))


class ReloadRefused(RequestError):
    """`problem`: what is wrong and how to mend it."""

    status = 409
    code = "reload_refused"

    def __init__(self, problem: str) -> None:
        super().__init__(said("reload_refused", problem=problem))


class PriorityForbidden(RequestError):
    status = 403
    code = "priority_forbidden"

    def __init__(self) -> None:
        super().__init__(said("priority_forbidden"), param="X-Priority")


class ResponseNotFound(RequestError):
    status = 404
    code = "response_not_found"

    def __init__(self, *, param: str | None = None) -> None:
        super().__init__(said("response_not_found"), param=param)


class BatchFileNotFound(RequestError):
    status = 404
    code = "file_not_found"

    def __init__(self) -> None:
        super().__init__(said("file_not_found"), param="file_id")


class BatchNotFound(RequestError):
    status = 404
    code = "batch_not_found"

    def __init__(self) -> None:
        super().__init__(said("batch_not_found"), param="batch_id")


class BatchesOff(RequestError):
    status = 404
    code = "batches_off"

    def __init__(self) -> None:
        super().__init__(said("batches_off"))


class BatchFileInUse(RequestError):
    status = 409
    code = "file_in_use"

    def __init__(self, batch: str) -> None:
        super().__init__(said("file_in_use", batch=batch))


class BatchOver(RequestError):
    status = 409
    code = "batch_over"

    def __init__(self, status: str) -> None:
        super().__init__(said("batch_over", status=status))


class BatchesFull(RequestError):
    status = 429
    code = "batches_full"


class SessionBusy(RequestError):
    """`retry_after` in seconds: by then the other request has been answered, or has lost its hold."""

    status = 409
    code = "session_busy"

    def __init__(self, *, retry_after: int = 2) -> None:
        message = said("session_busy", retry_after=retry_after)
        super().__init__(message, param="session_id", headers={"Retry-After": str(retry_after)})


class OnceBusy(RequestError):
    status = 409
    code = "idempotency_busy"

    def __init__(self) -> None:
        message = said("once_busy")
        super().__init__(message, param="Idempotency-Key", headers={"Retry-After": "2"})


class OnceMismatch(RequestError):
    status = 409
    code = "idempotency_mismatch"

    def __init__(self) -> None:
        message = said("once_mismatch")
        # What OpenAI's clients look at: to send the same again is no help.
        super().__init__(message, param="Idempotency-Key", headers={"X-Should-Retry": "false"})


class PayloadTooLarge(RequestError):
    status = 413
    code = "payload_too_large"


class UnsupportedMediaType(RequestError):
    status = 415
    code = "unsupported_media_type"


class ServiceError(QaioError):
    """The service is at fault or busy. `retry_after` is in seconds, None when a retry is no help."""

    status = 500
    code = "internal_error"
    retry_after: int | None = None
    message: str = said("internal_error")

    def __init__(self, message: str | None = None, *, retry_after: int | None = None) -> None:
        if message is not None:
            self.message = message
        super().__init__(self.message)
        if retry_after is not None:
            self.retry_after = retry_after


class ServerBusy(ServiceError):
    status = 503
    code = "server_busy"
    retry_after = 2
    message = said("server_busy")


class NotReady(ServiceError):
    status = 503
    code = "not_ready"
    retry_after = 5
    message = said("not_ready")


class Draining(NotReady):
    code = "draining"
    message = said("draining")


class EngineStuck(NotReady):
    code = "engine_stuck"
    retry_after = 10
    message = said("engine_stuck")


class StoreUnavailable(ServiceError):
    status = 503
    code = "sessions_unavailable"
    retry_after = 5
    message = said("sessions_unavailable")


class OnceUnavailable(StoreUnavailable):
    code = "idempotency_unavailable"
    message = said("once_unavailable")


class BatchesUnavailable(StoreUnavailable):
    code = "batches_unavailable"
    message = said("batches_unavailable")


class OutboxUnavailable(StoreUnavailable):
    """No request asks for it: the sending of alerts waits."""

    code = "alerts_unavailable"
    message = said("outbox_unavailable")


class MemoryUnavailable(StoreUnavailable):
    code = "memory_unavailable"
    message = said("memory_unavailable")


class UsageUnavailable(StoreUnavailable):
    code = "usage_unavailable"
    message = said("usage_unavailable")


class FeedbackUnavailable(ServiceError):
    status = 503
    code = "feedback_unavailable"
    retry_after = 5
    message = said("feedback_unavailable")


class PromptsUnwritable(ServiceError):
    status = 503
    code = "prompts_unwritable"
    message = said("prompts_unwritable")


class OutOfMemory(ServiceError):
    status = 503
    code = "out_of_memory"
    retry_after = 5
    message = said("out_of_memory")


class DeadlineExceeded(ServiceError):
    status = 504
    code = "deadline_exceeded"
    message = said("deadline_exceeded")


class Cancelled(ServiceError):
    status = 503
    code = "cancelled"
    retry_after = 2
    message = said("cancelled")


class EngineFailed(ServiceError):
    code = "engine_failed"
    message = said("engine_failed")


class FormFailed(ServiceError):
    code = "form_failed"
    message = said("form_failed")


class DataFileError(QaioError):
    """A file of labelled data that cannot be used, or a file of results that cannot be written; says what to do."""


class TuningError(QaioError):
    """An adapter cannot be taught or written; says what to do."""


class StartupError(QaioError):
    """Something an operator must fix before the service can run."""


class SettingsError(StartupError):
    """A QAIO_* variable that is unknown or has an impossible value."""


class TaskFileError(StartupError):
    """A task file that does not say what it must.

    Rendered as `FILE: KEY: problem. Fix: what to write instead.`
    """

    def __init__(self, file: Path, key: str, problem: str, fix: str) -> None:
        super().__init__(said("task_file", file=str(file), key=key, problem=problem, fix=fix))
        self.file = file
        self.key = key
        self.problem = problem
        self.fix = fix

    def below(self, folder: Path) -> TaskFileError:
        """The same, its file told as seen from `folder`."""
        return TaskFileError(self.file.relative_to(folder), self.key, self.problem, self.fix)


class AlertsFileError(StartupError):
    """The file of alerts does not say what it must.

    Rendered as `FILE, line N: KEY: problem. Fix: what to write instead.`
    """

    def __init__(self, file: Path, line: int | None, key: str, problem: str, fix: str) -> None:
        told = {"file": str(file), "key": key, "problem": problem, "fix": fix}
        super().__init__(said("line_of_alerts", line=line, **told) if line else said("task_file", **told))
        self.line = line


class AccessFileError(StartupError):
    """A file that says who may call is missing or broken."""


WAYS_OUT = said("ways_out")


class CheckpointError(StartupError):
    """The model cannot be found, verified or loaded; the message ends with the three ways out."""

    def __init__(self, problem: str) -> None:
        message = problem if isinstance(problem, Said) else problem.rstrip(".")
        super().__init__(said("checkpoint", problem=message, ways_out=WAYS_OUT))
        self.problem = problem
