"""One way for all lines: Gunicorn's, ours, the libraries' and Python's warnings go to stderr in one format."""

from __future__ import annotations

import logging
import logging.config
import os
import select
import sys
import threading
from typing import Any

from structlog.contextvars import bind_contextvars, clear_contextvars

from qwen_allinone.settings import Settings
from qwen_allinone.telemetry.formatting import line_formatter
from qwen_allinone.telemetry.line_writer import LineWriter
from qwen_allinone.telemetry.trace_parent import TraceParent

_STDERR = 2
_CHATTY = ("httpx", "httpcore", "filelock", "urllib3")
# What Gunicorn says at every start and is always the same; where it listens and when a worker is ready is enough.
_ALWAYS_SAID = ("Starting gunicorn", "Using worker:", "Control socket")


def config(settings: Settings) -> dict[str, Any]:
    """For `logging.config.dictConfig`, and so for Gunicorn's `logconfig_dict`."""
    level = settings.log_level.upper()
    formatter = {"()": line_formatter, "as_json": as_json(settings.log_format), "show_text": settings.log_text}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": formatter},
        "filters": {"news": {"()": lambda: _is_news}},
        "handlers": {"stderr": {"()": StderrHandler, "formatter": "line"}},
        "root": {"level": level, "handlers": ["stderr"]},
        "loggers": {
            "gunicorn.error": {"level": level, "handlers": [], "filters": ["news"], "propagate": True},
            # We write a line a request ourselves, with more in it and less of the client's.
            "gunicorn.access": {"level": "CRITICAL", "handlers": [], "propagate": False},
            "huggingface_hub": {"handlers": [], "propagate": True},
            **{name: {"level": "WARNING"} for name in _CHATTY},
        },
    }


def _is_news(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(_ALWAYS_SAID)


def configure(settings: Settings) -> None:
    """Set this process's logging up; doing it again changes nothing."""
    logging.config.dictConfig(config(settings))
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread


def as_json(log_format: str) -> bool:
    """`auto` is text for a person at a terminal and JSON for whatever else reads stderr."""
    if log_format == "auto":
        return not (sys.__stderr__ and not sys.__stderr__.closed and sys.__stderr__.isatty())
    return log_format == "json"


def lost_lines() -> int:
    """Lines of this process that could not be written."""
    return _lines.lost


def begin_request(request_id: str, trace: TraceParent | None = None) -> None:
    """From here on this thread's lines carry `request_id` and what is known of the caller's trace, and tell no messages
    of exceptions."""
    clear_contextvars()
    bind_contextvars(request_id=request_id, **(trace.fields() if trace else {}))


def end_request() -> None:
    """This thread's lines belong to no request any more."""
    clear_contextvars()


class StderrHandler(logging.Handler):
    """Formats in the caller's thread, writes in another. Never raises: a lost line is counted."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record).encode("utf-8", "backslashreplace") + b"\n"
        except Exception:  # arguments that do not fit the message, an argument whose str() raises
            _lines.count_lost()
            return
        _lines.put(line)

    def flush(self) -> None:
        """At the end of the process: wait for the lines on their way, but not for a reader that never comes."""
        _lines.flush()


class _Stderr:
    """File descriptor 2, written to by one thread."""

    def __init__(self) -> None:
        self._torn = False

    def __call__(self, line: bytes) -> None:
        """Write all of `line`; raises OSError if stderr is closed, full or broken."""
        if sys.__stderr__ is None:  # closed before Python started: 2 may be any file or socket by now
            raise OSError("there is no stderr")
        whole = b"\n" + line if self._torn else line  # the next line begins on its own
        rest = memoryview(whole)
        try:
            while rest:
                rest = rest[self._write_some(rest) :]
        finally:
            if len(rest) < len(whole):
                self._torn = len(rest) > 0

    @staticmethod
    def _write_some(part: memoryview) -> int:
        try:
            return os.write(_STDERR, part)
        except BlockingIOError:  # somebody made it non-blocking: then waiting is up to us
            poll = select.poll()
            poll.register(_STDERR, select.POLLOUT)
            poll.poll(1000)
            return 0


def _uncaught(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    logging.getLogger(__name__).critical("uncaught exception", exc_info=(kind, error, trace))


def _uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
        name = args.thread.name if args.thread else "?"
        trace = (args.exc_type, args.exc_value, args.exc_traceback)
        logging.getLogger(__name__).critical("uncaught exception in thread %s", name, exc_info=trace)


_lines = LineWriter("log", _Stderr())
