"""Which answers end their connection: those to requests of whose body much is unread."""

from __future__ import annotations

from io import BytesIO
from types import SimpleNamespace
from typing import Any

import pytest

from qwen_allinone.serving.early_answers import closing_if_unread


class Start:
    """What Gunicorn hands an app: a bound method of its response."""

    def __init__(self) -> None:
        self.closed = False

    def force_close(self) -> None:
        self.closed = True

    def respond(self, status: str, headers: list[tuple[str, str]]) -> str:
        return status


def closes(reader: Any, *, replaced: bool = False) -> bool:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if replaced:
            environ["wsgi.input"] = BytesIO(b"")
        assert start_response("200 OK", []) == "200 OK"
        return []

    start = Start()
    closing_if_unread(app)({"wsgi.input": SimpleNamespace(reader=reader)}, start.respond)
    return start.closed


@pytest.mark.parametrize(("length", "expected"), [(0, False), (1000, False), (1_000_000, True)])
@pytest.mark.parametrize("replaced", [False, True])
def test_a_large_rest_of_a_body_of_known_length_closes(length: int, expected: bool, replaced: bool) -> None:
    assert closes(SimpleNamespace(length=length), replaced=replaced) is expected


@pytest.mark.parametrize(("parser", "expected"), [(object(), True), (None, False)])
def test_a_chunked_body_that_was_not_read_to_its_end_closes(parser: object, expected: bool) -> None:
    assert closes(SimpleNamespace(parser=parser)) is expected
