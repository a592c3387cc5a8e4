"""The exception tree. Each error that can reach a client carries its HTTP status and code.

QaioError
├── RequestError                    the caller's request; message in Chinese, says what to do
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
├── ServiceError                    ours; message in Chinese
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
└── StartupError                    the operator's; message in English, says which file or setting to fix
    ├── SettingsError               a QAIO_* name or value
    ├── TaskFileError               a file under prompts/
    ├── AlertsFileError             the file of rules and channels of alerts
    ├── AccessFileError             the file of API keys or the key of JSON web tokens
    └── CheckpointError             the model cannot be found, verified or loaded
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from qwen_allinone.did_you_mean import nearest


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
        super().__init__("请输入内容", param=param)


class InputTooLong(InvalidInput):
    code = "input_too_long"


class ContextExceeded(InputTooLong):
    """More than the model can hold at once; the code is the one OpenAI's clients know."""

    code = "context_length_exceeded"


class SessionFull(InvalidInput):
    code = "session_full"

    def __init__(self, most: int) -> None:
        super().__init__(
            f"这个会话已有 {most} 轮，达到上限（每个会话最多 {most} 轮），"
            '请用 "session": true 开始新的会话，旧会话仍可读取',
            param="session_id",
        )


class Unauthorized(RequestError):
    status = 401
    code = "unauthorized"

    def __init__(self, *, given: bool) -> None:
        """`given`: something was shown, but it does not hold."""
        if given:
            message, reason = "密钥无效或已过期，请检查密钥，或向管理员索取新的", ', error="invalid_token"'
        else:
            message, reason = "需要密钥，请放在请求头 Authorization: Bearer <密钥> 或 X-API-Key 中", ""
        super().__init__(message, headers={"WWW-Authenticate": f'Bearer realm="qwen-allinone"{reason}'})


class RateLimited(RequestError):
    """More than the caller may have in this window; `retry_after` in seconds."""

    status = 429
    code = "rate_limited"

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(f"{message}，请在 {retry_after} 秒后再试", headers={"Retry-After": str(retry_after)})


class OwnerFull(RequestError):
    status = 429
    code = "sessions_full"

    def __init__(self, most_mb: int) -> None:
        super().__init__(
            f"这个密钥的会话和回复已占满它的 {most_mb} MB，请删除不再需要的"
            "（DELETE /v1/sessions/<id>、DELETE /v1/responses/<id>），或等它们过期"
        )


class MemoryNotFound(RequestError):
    status = 404
    code = "memory_not_found"

    def __init__(self) -> None:
        super().__init__("没有这条记忆，它可能已过期、被删除或属于别的用户", param="id")


class MemoryFull(RequestError):
    status = 429
    code = "memory_full"

    def __init__(self, most_mb: int) -> None:
        super().__init__(
            f"这个密钥的用户的记忆已占满它的 {most_mb} MB，请删除不再需要的记忆（DELETE /v1/memory/<user>），"
            '或等它们过期；带 "memory": false 的对话不受影响'
        )


class WrongOrigin(RequestError):
    status = 403
    code = "wrong_origin"

    def __init__(self, origin: str) -> None:
        way = "请由管理者把这个网站写进 QAIO_CORS_ORIGINS"
        super().__init__(f"网站 {origin[:64]!r} 的网页不能在这里上传文件：{way}")


class WrongHost(RequestError):
    status = 421
    code = "wrong_host"

    def __init__(self, name: str) -> None:
        way = "请用 IP 地址或 localhost，或由管理者把这个名字写进 QAIO_ALLOWED_HOSTS"
        super().__init__(f"本服务不以主机名 {name[:64]!r} 应答：{way}")


class UnknownTask(RequestError):
    status = 404
    code = "unknown_task"

    def __init__(self, name: str, known: list[str]) -> None:
        meant = nearest(name, known)
        asked = f"是不是 {meant!r}？" if meant else ""
        super().__init__(f"没有名为 {name[:64]!r} 的任务，{asked}可用的任务有：{'、'.join(known)}", param="task")


class UnknownModel(RequestError):
    status = 404
    code = "model_not_found"

    def __init__(self, name: str, known: Sequence[str]) -> None:
        there = "、".join(map(repr, known))
        super().__init__(f"没有名为 {name[:64]!r} 的模型，这里的模型是 {there}", param="model")


class SessionNotFound(RequestError):
    status = 404
    code = "session_not_found"

    def __init__(self) -> None:
        message = '没有这个会话，它可能已过期、被删除或不属于当前密钥，请用 "session": true 开始新的会话'
        super().__init__(message, param="session_id")


class AnswerNotFound(RequestError):
    status = 404
    code = "answer_not_found"

    def __init__(self) -> None:
        message = (
            "没有这个请求的标签回答：request_id 是那个回答的响应头 X-Request-Id；回答保留一天，而且只属于当时的密钥；"
            "同一个任务在一次请求里问了几次的，不能更正"
        )
        super().__init__(message, param="request_id")


class FeedbackOff(RequestError):
    status = 404
    code = "feedback_off"

    def __init__(self) -> None:
        super().__init__("这里没有保存回答供更正，请管理者设置 QAIO_FEEDBACK_FILE")


class UsageOff(RequestError):
    status = 404
    code = "usage_off"

    def __init__(self) -> None:
        super().__init__("这里不保存用量，请管理者设置 QAIO_USAGE_DAYS")


class UsageForbidden(RequestError):
    status = 403
    code = "usage_forbidden"

    def __init__(self) -> None:
        super().__init__("这个密钥只能看自己的用量，请去掉 key，或由管理者把它写进 QAIO_ADMINS", param="key")


class PromptsForbidden(RequestError):
    status = 403
    code = "prompts_forbidden"

    def __init__(self) -> None:
        super().__init__("这个密钥不能试改提示词，请换一个，或由管理者把它写进 QAIO_ADMINS")


class TaskTaken(RequestError):
    status = 409
    code = "task_taken"

    def __init__(self, name: str) -> None:
        super().__init__(f"已经有名为 {name} 的任务文件夹，请换一个名字", param="name")


class ReloadForbidden(RequestError):
    status = 403
    code = "reload_forbidden"

    def __init__(self) -> None:
        super().__init__(
            "只有管理者可以让服务重新加载，请把这个密钥的名称写进 QAIO_ADMINS，没有密钥时先设置 QAIO_API_KEYS_FILE"
        )


class ReloadOff(RequestError):
    status = 404
    code = "reload_off"

    def __init__(self) -> None:
        super().__init__("这个服务不能通过接口重新加载，请检查 QAIO_PROMPTS_KEPT 可写且不与其他服务共用，或重启服务")


class ReloadRefused(RequestError):
    """`problem`: what is wrong and how to mend it."""

    status = 409
    code = "reload_refused"

    def __init__(self, problem: str) -> None:
        super().__init__(f"没有重新加载，原来的继续使用，请先改正：{problem}")


class PriorityForbidden(RequestError):
    status = 403
    code = "priority_forbidden"

    def __init__(self) -> None:
        way = "请去掉 X-Priority，或由管理者把密钥写进 QAIO_PRIORITY_KEYS"
        super().__init__(f"这个请求无权排到别人前面：{way}", param="X-Priority")


class ResponseNotFound(RequestError):
    status = 404
    code = "response_not_found"

    def __init__(self, *, param: str | None = None) -> None:
        super().__init__("没有这个回复，它可能已过期、被删除、没有保存（store: false）或不属于当前密钥", param=param)


class BatchFileNotFound(RequestError):
    status = 404
    code = "file_not_found"

    def __init__(self) -> None:
        super().__init__("没有这个文件，它可能已过期、被删除或不属于当前密钥", param="file_id")


class BatchNotFound(RequestError):
    status = 404
    code = "batch_not_found"

    def __init__(self) -> None:
        super().__init__("没有这个批处理，它可能早已结束、被忘记或不属于当前密钥", param="batch_id")


class BatchesOff(RequestError):
    status = 404
    code = "batches_off"

    def __init__(self) -> None:
        super().__init__("这里不做批处理，请管理者设置 QAIO_BATCH_AT_ONCE")


class BatchFileInUse(RequestError):
    status = 409
    code = "file_in_use"

    def __init__(self, batch: str) -> None:
        super().__init__(f"批处理 {batch} 正在用这个文件，请等它做完，或先取消它（POST /v1/batches/{batch}/cancel）")


class BatchOver(RequestError):
    status = 409
    code = "batch_over"

    def __init__(self, status: str) -> None:
        super().__init__(f"这个批处理已经结束（{status}），不能再取消")


class BatchesFull(RequestError):
    status = 429
    code = "batches_full"


class SessionBusy(RequestError):
    """`retry_after` in seconds: by then the other request has been answered, or has lost its hold."""

    status = 409
    code = "session_busy"

    def __init__(self, *, retry_after: int = 2) -> None:
        message = f"这个会话正在处理另一个请求，请等它完成，在 {retry_after} 秒后再试"
        super().__init__(message, param="session_id", headers={"Retry-After": str(retry_after)})


class OnceBusy(RequestError):
    status = 409
    code = "idempotency_busy"

    def __init__(self) -> None:
        message = "带有这个 Idempotency-Key 的请求正在处理，请在 2 秒后再试，届时得到同一个回答"
        super().__init__(message, param="Idempotency-Key", headers={"Retry-After": "2"})


class OnceMismatch(RequestError):
    status = 409
    code = "idempotency_mismatch"

    def __init__(self) -> None:
        message = "这个 Idempotency-Key 已用于另一个请求，不同的请求请用不同的键"
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
    message = "服务内部出错，请稍后再试"

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
    message = "当前请求太多，请稍后再试"


class NotReady(ServiceError):
    status = 503
    code = "not_ready"
    retry_after = 5
    message = "模型尚未就绪，请稍后再试"


class Draining(NotReady):
    code = "draining"
    message = "服务正在停止，请稍后再试"


class EngineStuck(NotReady):
    code = "engine_stuck"
    retry_after = 10
    message = "模型计算卡住，服务正在自动恢复，请稍后再试"


class StoreUnavailable(ServiceError):
    status = 503
    code = "sessions_unavailable"
    retry_after = 5
    message = (
        "会话记录暂时无法读写，已保存的内容不受影响，请稍后再试；"
        "不带会话的请求不受影响，/v1/responses 请带 store: false"
    )


class OnceUnavailable(StoreUnavailable):
    code = "idempotency_unavailable"
    message = "暂时无法保证同一请求只回答一次，请稍后再试；不带 Idempotency-Key 的请求不受影响"


class BatchesUnavailable(StoreUnavailable):
    code = "batches_unavailable"
    message = "批处理和它的文件暂时无法读写，已保存的内容不受影响，请稍后再试；别的请求不受影响"


class OutboxUnavailable(StoreUnavailable):
    """No request asks for it: the sending of alerts waits."""

    code = "alerts_unavailable"
    message = "报警暂时无法读写，已保存的内容不受影响；请求不受影响"


class MemoryUnavailable(StoreUnavailable):
    code = "memory_unavailable"
    message = '记忆暂时无法读写，已保存的内容不受影响，请稍后再试；带 "memory": false 的请求不受影响'


class UsageUnavailable(StoreUnavailable):
    code = "usage_unavailable"
    message = "用量暂时无法读写，已保存的内容不受影响，请稍后再试；别的请求不受影响"


class FeedbackUnavailable(ServiceError):
    status = 503
    code = "feedback_unavailable"
    retry_after = 5
    message = "更正暂时无法读写，请稍后再试；别的请求不受影响"


class PromptsUnwritable(ServiceError):
    status = 503
    code = "prompts_unwritable"
    message = "任务文件夹里写不进新的文件夹，请管理者让服务能够写入 QAIO_PROMPTS"


class OutOfMemory(ServiceError):
    status = 503
    code = "out_of_memory"
    retry_after = 5
    message = "内存不足，暂时无法处理，请稍后再试或缩短输入"


class DeadlineExceeded(ServiceError):
    status = 504
    code = "deadline_exceeded"
    message = "处理超时，请缩短输入或稍后再试"


class Cancelled(ServiceError):
    status = 503
    code = "cancelled"
    retry_after = 2
    message = "请求已被取消"


class EngineFailed(ServiceError):
    code = "engine_failed"
    message = "模型计算出错，请重试"


class FormFailed(ServiceError):
    code = "form_failed"
    message = "这个任务的 schema 太复杂，无法逐字遵守，请管理员化简 schema"


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
        super().__init__(f"{file}: {key}: {problem}. Fix: {fix}")
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
        at = f", line {line}" if line else ""
        super().__init__(f"{file}{at}: {key}: {problem}. Fix: {fix}")
        self.line = line


class AccessFileError(StartupError):
    """A file that says who may call is missing or broken."""


WAYS_OUT = (
    "Three ways out: (1) on a machine with network, download the model once and start with that cache "
    "(HF_HOME=/path/to/cache HF_HUB_OFFLINE=1); (2) point QAIO_MODEL at a local folder with config.json, "
    "tokenizer.json and *.safetensors; (3) try the service on the embedded model with QAIO_MODEL=demo."
)


class CheckpointError(StartupError):
    """The model cannot be found, verified or loaded; the message ends with the three ways out."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"{problem.rstrip('.')}. {WAYS_OUT}")
        self.problem = problem
