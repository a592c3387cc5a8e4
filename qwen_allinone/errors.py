"""The exception tree. Each error that can reach a client carries its HTTP status and code.

QaioError
├── RequestError                    the caller's request; message in Chinese, says what to do
│   ├── InvalidInput        400     wrong type, unknown key, broken JSON, ...
│   │   ├── EmptyInput      400     nothing to work on
│   │   └── InputTooLong    400     more tokens than the task or the context takes
│   ├── UnknownTask         404
│   ├── PayloadTooLarge     413
│   └── UnsupportedMediaType 415
├── ServiceError                    ours; message in Chinese
│   ├── ServerBusy          503     queue full, Retry-After
│   ├── NotReady            503     loading, failed to load, or draining, Retry-After
│   ├── DeadlineExceeded    504
│   ├── Cancelled           503     given up before it was done
│   └── EngineFailed        500     the step this request was part of raised
└── StartupError                    the operator's; message in English, says which file or setting to fix
    ├── SettingsError               a QAIO_* name or value
    ├── TaskFileError               a file under prompts/
    └── CheckpointError             the model cannot be found, verified or loaded
"""

from __future__ import annotations

from pathlib import Path


class QaioError(Exception):
    """Root of every error this package raises on purpose."""


class RequestError(QaioError):
    """The request is at fault. `param` names the field, if there is one."""

    status = 400
    code = "bad_request"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class InvalidInput(RequestError):
    code = "invalid_input"


class EmptyInput(InvalidInput):
    code = "empty_input"

    def __init__(self, *, param: str | None = None) -> None:
        super().__init__("请输入内容", param=param)


class InputTooLong(InvalidInput):
    code = "input_too_long"


class UnknownTask(RequestError):
    status = 404
    code = "unknown_task"

    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__(f"没有名为 {name[:64]!r} 的任务，可用的任务有：{'、'.join(known)}", param="task")


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
