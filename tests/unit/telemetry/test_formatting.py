"""One record is one line that no input can break, forge or make tell what it should not."""

from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_allinone.telemetry.formatting import escape, line_formatter, to_json
from qwen_allinone.telemetry.logs import begin_request, end_request

FORGED = 'x\n{"level": "critical", "event": "forged"}\r\n2031-01-01T00:00:00.000Z CRITICAL [1] root: forged'
SECRET = "hunter2"
NASTY = [
    FORGED,
    "\x1b[2J\x1b[31mred",
    "\x9b31m",  # the one-byte CSI
    "\x00\x07\x08\x7f",
    "\u202egnirts\u2066\u200f",  # bidi overrides, isolates and marks
    "\u2028\u2029\x85\x0b\x0c",  # what str.splitlines and browsers take for line ends
    "\ud83d",  # half a surrogate pair
    "\U000e0041\ufeff",  # tags and a byte order mark
]


class Lines:
    """A logger whose lines are kept."""

    def __init__(self, *, as_json: bool, show_text: bool = False) -> None:
        self._stream = io.StringIO()
        self._handler = logging.StreamHandler(self._stream)
        self._handler.setFormatter(line_formatter(as_json=as_json, show_text=show_text))
        self.logger = logging.Logger("qwen_allinone.test", logging.DEBUG)
        self.logger.addHandler(self._handler)

    def named(self, name: str) -> logging.Logger:
        logger = logging.Logger(name, logging.DEBUG)
        logger.addHandler(self._handler)
        return logger

    @property
    def text(self) -> str:
        return self._stream.getvalue()

    @property
    def last(self) -> str:
        """The only line there is, checked to be one for every reader."""
        line, end = self.text[:-1], self.text[-1:]
        assert end == "\n" and line.isprintable(), ascii(self.text)
        assert line.splitlines() == [line]
        return line


@pytest.fixture(params=[True, False], ids=["json", "text"])
def lines(request: pytest.FixtureRequest) -> Iterator[Lines]:
    yield Lines(as_json=request.param)
    end_request()


@pytest.mark.parametrize("nasty", NASTY, ids=ascii)
def test_a_message_stays_in_its_line(lines: Lines, nasty: str) -> None:
    lines.logger.warning("got %s", nasty)
    assert "got" in lines.last


@pytest.mark.parametrize("nasty", NASTY, ids=ascii)
def test_a_field_stays_in_its_line(lines: Lines, nasty: str) -> None:
    lines.logger.info("request", extra={"route": nasty, "inputs": {nasty: [nasty]}})
    assert "route" in lines.last


@pytest.mark.parametrize("nasty", NASTY, ids=ascii)
def test_json_gives_back_what_was_said(nasty: str) -> None:
    lines = Lines(as_json=True)
    lines.logger.info("%s", nasty, extra={"route": nasty})
    parsed = json.loads(lines.last)
    assert (parsed["event"], parsed["route"]) == (nasty, nasty)


@given(st.text(alphabet=st.characters(codec=None, exclude_categories=[])))
def test_escaped_json_is_printable_and_means_the_same(text: str) -> None:
    line = to_json({"text": text})
    assert line.isprintable()
    assert json.loads(line) == {"text": text}


def test_chinese_and_emoji_stay_readable() -> None:
    assert escape("今天很开心😄，ok") == "今天很开心😄，ok"


def test_a_json_line_has_the_fields_of_every_line_first() -> None:
    lines = Lines(as_json=True)
    lines.logger.warning("low on %s", "disk", extra={"left_mb": 3})
    parsed = json.loads(lines.last)
    assert list(parsed) == ["timestamp", "level", "logger", "pid", "event", "left_mb"]
    assert (parsed["level"], parsed["event"], parsed["left_mb"]) == ("warning", "low on disk", 3)
    assert parsed["timestamp"].endswith("Z") and len(parsed["timestamp"]) == len("2026-01-01T00:00:00.000Z")


def test_a_text_line_reads_as_text() -> None:
    lines = Lines(as_json=False)
    lines.logger.warning("low", extra={"left": 3, "why": "a b", "none": None})
    assert lines.last.split(" ", 1)[1].split("] ", 1)[1] == 'qwen_allinone.test: low left=3 why="a b" none=None'


def plant(logger: logging.Logger) -> None:
    """An exception with a cause and a context, all of whose messages quote somebody."""
    try:
        try:
            int(SECRET + FORGED)
        except ValueError as error:
            raise RuntimeError(SECRET + FORGED) from error
    except RuntimeError:
        logger.exception("it failed")


def test_an_exception_is_one_field_of_one_line(lines: Lines) -> None:
    plant(lines.logger)
    assert "it failed" in lines.last
    for word in ("Traceback", "ValueError", "RuntimeError", "test_formatting.py", "direct cause"):
        assert word in lines.last


def test_an_exception_s_words_are_told_outside_of_requests_where_nobody_s_text_can_be_in_them() -> None:
    lines = Lines(as_json=True)
    plant(lines.logger)
    parsed = json.loads(lines.last)
    assert "hunter2" in parsed["exception"]
    assert parsed["level"] == "error" and parsed["event"] == "it failed"


def test_an_exception_s_words_are_left_out_within_a_request(lines: Lines) -> None:
    begin_request("abc-1")
    plant(lines.logger)
    assert "abc-1" in lines.last
    for word in ("RuntimeError", "ValueError", "message left out", "in plant"):
        assert word in lines.last
    assert "hunter2" not in lines.last


def test_an_exception_s_words_are_left_out_on_the_threads_of_a_server(lines: Lines) -> None:
    thread = threading.Thread(target=plant, args=(lines.logger,), name="ThreadPoolExecutor-0_0")
    thread.start()
    thread.join()
    assert "RuntimeError" in lines.last
    assert "hunter2" not in lines.last


def test_an_exception_s_words_are_told_within_a_request_if_text_may_be_logged() -> None:
    lines = Lines(as_json=True, show_text=True)
    begin_request("abc-1")
    plant(lines.logger)
    end_request()
    assert "hunter2" in lines.last


def test_an_exception_that_causes_itself_ends() -> None:
    lines = Lines(as_json=True)
    begin_request("abc-1")
    one, other = ValueError("a"), ValueError("b")
    one.__cause__, other.__cause__ = other, one
    lines.logger.error("odd", exc_info=one)
    end_request()
    assert lines.last.count("ValueError") == 2


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("Invalid request from ip=::1: Invalid HTTP request line: 'GET /?q=hunter2 HTTX'", "Invalid HTTP request line"),
        ("Invalid request from ip=10.0.0.9: Invalid HTTP Header: 'Authorization hunter2'", "ip=10.0.0.9"),
        ("Invalid request from ip=10.0.0.9: Obsolete line folding is unacceptable: 'X: hunter2'", "Obsolete"),
        ("Error handling request POST /chat?key=hunter2", "Error handling request"),
        ("Ignored premature client disconnection. No more data after: b'hunter2\\n'", "Ignored premature"),
    ],
)  # fmt: skip
def test_gunicorn_s_quotes_of_a_request_are_cut(lines: Lines, said: str, kept: str) -> None:
    lines.named("gunicorn.error").warning(said)
    assert kept in lines.last
    assert "hunter2" not in lines.last


def test_gunicorn_s_other_lines_are_whole(lines: Lines) -> None:
    lines.named("gunicorn.error").info("Booting worker with pid: %s", 7)
    assert "Booting worker with pid: 7" in lines.last
