"""Bad requests: each is told what is wrong, in the shape of its route, and costs next to nothing."""

from __future__ import annotations

import gzip
import json
import re
import time
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import pytest
from pydantic import ValidationError
from werkzeug.test import TestResponse

from qwen_allinone.errors import InvalidInput
from qwen_allinone.http.body import Body, parse_json
from tests.integration.conftest import Server, StartServer

ROUTES = ("/chat", "/v1/tasks/sentiment")
ENGLISH = {"Accept-Language": "en-GB,en;q=0.9"}
NOT_OBJECTS = {"a list": b"[]", "a number": b"42", "null": b"null", "a string": b'"text"', "true": b"true"}
BROKEN = {
    "nothing": b"",
    "half an object": b'{"text": "a"',
    "single quotes": b"{'text': 'a'}",
    "a form": b"text=a",
    "something behind it": b'{"text": "a"} {"text": "b"}',
    "a newline in a string": b'{"text": "a\nb"}',
    "NaN": b'{"text": "a", "x": NaN}',
    "NaN as text": b'{"text": NaN}',
    "Infinity": b'{"text": -Infinity}',
    "a number beyond floats": b'{"text": 1e400}',
    "one that is far below them": b'{"text": "a", "x": {"y": [-1.5E+999999]}}',
    "one of 400 digits": b'{"text": "a", "x": ' + b"9" * 400 + b".0}",
    "an integer of 5,000 digits": b'{"text": ' + b"9" * 5000 + b"}",
    "lists 100,000 deep": b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "objects 100,000 deep": b'{"text":' * 100_000,
    "lists 200 deep": b'{"text": ' + b"[" * 200 + b"]" * 200 + b"}",
    "brackets in a string": b'{"text": ["[[", ' + b"[" * 200 + b'"]]"' + b"]" * 200 + b"]}",
    "a key twice": b'{"text": "a", "text": "b"}',
    "an inner key twice": b'{"text": {"a": 1, "a": 2}}',
    "invalid UTF-8": b'{"text": "\xff\xfe"}',
    "a surrogate in UTF-8": b'{"text": "\xed\xa0\xbd"}',
    "overlong UTF-8": b'{"text": "\xc0\xae"}',
    "GBK": '{"text": "今天很开心"}'.encode("gbk"),
    "UTF-16": '{"text": "今天很开心"}'.encode("utf-16"),
    "UTF-16 without a mark": '{"text": "今天很开心"}'.encode("utf-16-le"),
    "UTF-32": '{"text": "今天很开心"}'.encode("utf-32"),
    "a byte order mark": '{"text": "今天很开心"}'.encode("utf-8-sig"),
}
NO_TEXT = {
    "no key": b"{}",
    "empty": b'{"text": ""}',
    "blank": b'{"text": " \\t\\r\\n\\u3000\\u00a0"}',
    "zero width": '{"text": "\u200b\u200c\u200d\u2060\ufeff"}'.encode(),
    "controls": b'{"text": "\\u0000\\u0007\\u202e"}',
    "blank letters and patterns": '{"text": "\u2800\u3164\uffa0 \u115f"}'.encode(),
    "soft hyphens": '{"text": "\u00ad\u00ad"}'.encode(),
    "variation selectors": '{"text": "\ufe0f\U000e0100\u034f"}'.encode(),
}
WRONG_TEXT = {
    "a number": b'{"text": 1}',
    "a float": b'{"text": 1.5}',
    "null": b'{"text": null}',
    "a list": b'{"text": ["a"]}',
    "an object": b'{"text": {"a": "b"}}',
    "true": b'{"text": true}',
    "half a surrogate pair": b'{"text": "\\ud83d"}',
    "a pair the wrong way round": b'{"text": "\\ude00\\ud83d"}',
}
WRONG_KEYS = {
    "one more": b'{"text": "a", "txet": "b"}',
    "a lone surrogate": b'{"text": "a", "\\ud83d": 1}',
    "a long one": b'{"text": "a", "' + b"k" * 10_000 + b'": 1}',
    "upper case": b'{"text": "a", "TEXT": "b"}',
}


def named(table: dict[str, Any]) -> Any:
    return pytest.mark.parametrize("body", list(table.values()), ids=list(table))


def problem(answer: TestResponse, path: str) -> dict[str, Any]:
    """The error of an answer in the one shape: `message`, `code`, `param`. Fails if it is not as promised."""
    assert answer.content_type == "application/json; charset=utf-8"
    body = json.loads(answer.data)
    if not path.startswith("/v1"):
        assert list(body) == ["error", "code"]
        return {"message": body["error"], "code": body["code"]}
    assert list(body) == ["error"]
    assert list(body["error"]) == ["message", "type", "param", "code"]
    assert body["error"]["type"] == ("server_error" if answer.status_code >= 500 else "invalid_request_error")
    return dict(body["error"])


@pytest.mark.parametrize("path", ROUTES)
@named(NOT_OBJECTS | BROKEN)
def test_a_body_that_is_no_json_object_is_a_400(server: Server, path: str, body: bytes) -> None:
    answer = server.post(path, body)
    assert answer.status_code == 400
    found = problem(answer, path)
    assert found["code"] == "invalid_input"
    assert (
        "请" in found["message"]
        or "不是" in found["message"]
        or "必须" in found["message"]
        or "太深" in found["message"]
    )


@pytest.mark.parametrize("path", [*ROUTES, "/v1/chat/completions"])
@pytest.mark.parametrize("content_type", ["application/json", "application/x-www-form-urlencoded", None])
def test_no_body_at_all_is_told_as_that(server: Server, path: str, content_type: str | None) -> None:
    for headers in ({"Content-Length": "0"}, {}):
        answer = server.client.post(path, content_type=content_type, headers=headers)
        assert answer.status_code == 400
        found = problem(answer, path)
        assert found["code"] == "invalid_input"
        assert found["message"].startswith("没有请求体") and '{"text":' in found["message"]


BEYOND_FLOATS = {
    "a schema's step": (
        "/v1/chat/completions",
        b'{"model": "demo", "messages": [{"role": "user", "content": "a"}], "response_format": {"type": "json_schema",'
        b' "json_schema": {"name": "a", "schema": {"type": "number", "multipleOf": 1e999}}}}',
    ),
    "a schema's bound": (
        "/v1/responses",
        b'{"model": "demo", "input": "a", "text": {"format": {"type": "json_schema", "name": "a", "schema":'
        b' {"type": "string", "x": 1e999}}}}',
    ),
    "an argument of a tool that is shown again": (
        "/v1/responses",
        b'{"model": "demo", "input": "a", "tools": [{"type": "function", "name": "f", "parameters": {"maximum": 1e999}}]}',
    ),
    "a temperature": (
        "/v1/chat/completions",
        b'{"model": "demo", "temperature": 1e999, "messages": [{"role": "user", "content": "a"}]}',
    ),
    "data of a decision": ("/v1/systemone", b'{"model": "demo", "state": {"a": -1e999}, "questions": {}}'),
}


@pytest.mark.parametrize(("path", "body"), list(BEYOND_FLOATS.values()), ids=list(BEYOND_FLOATS))
def test_a_number_beyond_floats_is_refused_wherever_it_stands(server: Server, path: str, body: bytes) -> None:
    answer = server.post(path, body)
    assert answer.status_code == 400
    assert "1e999" in problem(answer, path)["message"]


@pytest.mark.parametrize("number", [b"1.7976931348623157e308", b"-1e308", b"1e-999", b"0.5"])
def test_a_number_that_a_float_holds_is_read(server: Server, number: bytes) -> None:
    answer = server.post("/v1/tasks/sentiment", b'{"text": "a", "x": ' + number + b"}")
    assert answer.status_code == 400 and problem(answer, "/v1")["param"] == "x"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [float("-inf")]])
def test_what_json_cannot_say_is_never_written(server: Server, value: object) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        server.client.application.json.dumps({"x": value})


@pytest.mark.parametrize("path", ROUTES)
@named(NO_TEXT)
def test_no_text_is_asked_for(server: Server, path: str, body: bytes) -> None:
    answer = server.post(path, body)
    assert answer.status_code == 400
    assert problem(answer, path) | {"message": "请输入内容", "code": "empty_input"} == problem(answer, path)


@pytest.mark.parametrize(
    "body", [NO_TEXT[name] for name in ("empty", "blank", "zero width", "blank letters and patterns")]
)
def test_no_text_is_asked_for_by_tasks_that_do_not_clean_it_too(server: Server, body: bytes) -> None:
    answer = server.post("/v1/tasks/chat", json.loads(body) | {"sentiment": "正面"})
    assert answer.status_code == 400
    assert problem(answer, "/v1")["code"] == "empty_input"


@pytest.mark.parametrize("path", ROUTES)
@named(WRONG_TEXT)
def test_a_text_that_is_no_text_is_a_400_that_names_the_field(server: Server, path: str, body: bytes) -> None:
    answer = server.post(path, body)
    assert answer.status_code == 400
    found = problem(answer, path)
    assert found["code"] == "invalid_input"
    assert found["message"].startswith("text ")
    assert found.get("param", "text") == "text"


@pytest.mark.parametrize("path", ROUTES)
@named(WRONG_KEYS)
def test_an_unknown_field_is_a_400(server: Server, path: str, body: bytes) -> None:
    answer = server.post(path, body)
    assert answer.status_code == 400
    assert problem(answer, path)["code"] == "invalid_input"
    assert len(answer.data) < 1000


def test_a_missing_input_that_is_not_the_text_is_named(server: Server) -> None:
    answer = server.post("/v1/tasks/chat", {"text": "你好"})
    assert answer.status_code == 400
    found = problem(answer, "/v1")
    assert (found["param"], found["code"]) == ("sentiment", "invalid_input")
    assert "sentiment" in found["message"]


@pytest.mark.parametrize(
    ("path", "body", "meant"),
    [
        ("/chat", {"text": "好", "steam": True}, "stream"),
        ("/v1/tasks/sentiment", {"txt": "好"}, "text"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "contents": "好"}]}, "content"),
    ],
)
def test_a_slip_in_a_fields_name_is_told(server: Server, path: str, body: dict[str, Any], meant: str) -> None:
    answer = server.post(path, body)
    assert answer.status_code == 400
    assert f"是不是想写 {meant}？" in answer.text


OF_OTHERS = {
    "a bound of labels": ("/v1/tasks/summary", {"text": "好", "below": 0.5}, "only label tasks take it"),
    "a bound of labels, of a list": ("/v1/tasks/keywords", {"text": "好", "below": 0.5}, "only label tasks take it"),
    "an input": ("/v1/tasks/summary", {"text": "好", "sentiment": "正面"}, "the tasks that take it: chat"),
    "one that nobody takes": (
        "/v1/tasks/summary",
        {"text": "好", "weather": 1},
        "compare the names of fields with /docs",
    ),
    "another route's": ("/chat", {"text": "好", "below": 0.5}, "compare the names of fields with /docs"),
}


@pytest.mark.parametrize(("path", "body", "told"), OF_OTHERS.values(), ids=list(OF_OTHERS))
def test_a_field_of_other_tasks_is_told_as_theirs(server: Server, path: str, body: dict[str, Any], told: str) -> None:
    answer = server.client.post(path, json=body, headers=ENGLISH)
    field = list(body)[-1]
    assert answer.status_code == 400
    assert problem(answer, path)["message"] == f"the field {field} is not supported, {told}"


LACKING = {
    "the text has another name here": (
        "/v1/decisions",
        {"model": "demo", "text": "好", "questions": [{"type": "predicate", "instructions": "a"}]},
        "the field text is not supported, required here and missing: input",
    ),
    "several": (
        "/v1/decisions",
        {"text": "好"},
        "the field text is not supported, required here and missing: model, input, questions",
    ),
    "an inner one": (
        "/v1/decisions",
        {"model": "demo", "input": "好", "questions": [{"type": "predicate", "ask": "a"}]},
        "the field questions[0].ask is not supported, required here and missing: questions[0].instructions",
    ),
    "a name that stands elsewhere in the body": (
        "/v1/chat/completions",
        {"model": "demo", "content": "好"},
        "the field content is not supported, required here and missing: messages",
    ),
    "of a task": (
        "/v1/tasks/sentiment",
        {"review": "好"},
        "the field review is not supported, required here and missing: text",
    ),
    "nothing": (
        "/v1/tasks/sentiment",
        {"text": "好", "review": "好"},
        "the field review is not supported, compare the names of fields with /docs",
    ),
}


@pytest.mark.parametrize(("path", "body", "told"), LACKING.values(), ids=list(LACKING))
def test_beside_an_unknown_field_those_that_are_missing_are_told(
    server: Server, path: str, body: dict[str, Any], told: str
) -> None:
    answer = server.client.post(path, json=body, headers=ENGLISH)
    assert answer.status_code == 400
    assert problem(answer, path)["message"] == told


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonx",
        "json",
    ],
)
def test_a_content_type_that_is_not_json_is_a_415(server: Server, path: str, content_type: str | None) -> None:
    answer = server.client.post(path, data='{"text": "今天很开心"}'.encode(), content_type=content_type)
    assert answer.status_code == 415
    found = problem(answer, path)
    assert found["code"] == "unsupported_media_type"
    assert "application/json" in found["message"]


@pytest.mark.parametrize("path", ROUTES)
def test_a_body_over_the_cap_is_a_413_that_names_the_cap(start_server: StartServer, path: str) -> None:
    server = start_server(QAIO_MAX_BODY_BYTES="2048")
    fits = json.dumps({"text": "a"}).encode().ljust(2048)
    assert server.post(path, fits).status_code == 200
    answer = server.post(path, fits + b" ")
    assert answer.status_code == 413
    found = problem(answer, path)
    assert found["code"] == "payload_too_large"
    assert "2048" in found["message"]


def post_chunked(server: Server, body: Any) -> TestResponse:
    """As Gunicorn hands over a chunked body: no length, and an input that ends by itself."""
    overrides = {"wsgi.input": body, "wsgi.input_terminated": True}
    return server.client.post("/chat", content_type="application/json", environ_overrides=overrides)


def test_a_chunked_body_is_measured_to_the_byte(start_server: StartServer) -> None:
    server = start_server(QAIO_MAX_BODY_BYTES="2048")
    fits = json.dumps({"text": "a"}).encode().ljust(2048)
    assert post_chunked(server, BytesIO(fits)).status_code == 200
    answer = post_chunked(server, BytesIO(fits + b" "))
    assert (answer.status_code, answer.get_json()["code"]) == (413, "payload_too_large")


def test_a_chunked_body_of_no_byte_is_no_body(server: Server) -> None:
    answer = post_chunked(server, BytesIO(b""))
    assert answer.status_code == 400 and "没有请求体" in answer.get_json()["error"]


@pytest.mark.parametrize("error", [ValueError, OSError, RuntimeError])
def test_a_body_that_breaks_off_is_a_400(
    server: Server, caplog: pytest.LogCaptureFixture, error: type[Exception]
) -> None:
    class Broken(BytesIO):
        def read(self, *_: Any) -> bytes:
            raise error("Invalid chunk size: b'zz'")

        readinto = readline = read  # type: ignore[assignment]

    answer = post_chunked(server, Broken())
    assert (answer.status_code, answer.get_json()["code"]) == (400, "invalid_input")
    assert "完整" in answer.get_json()["error"]
    assert "Traceback" not in caplog.text


def test_a_length_that_is_only_claimed_is_refused_before_a_byte_is_read(server: Server) -> None:
    class Unread:
        def read(self, *_: int) -> bytes:
            raise AssertionError("the body was read")

        readline = read

    overrides = {"wsgi.input": Unread(), "CONTENT_LENGTH": str(10**12)}
    answer = server.client.post("/chat", content_type="application/json", environ_overrides=overrides)
    assert answer.status_code == 413


COSTLY = {
    "a million letters": "a" * 1_000_000,
    "300,000 different characters": "".join(chr(0x4E00 + i % 20_000) for i in range(300_000)),
    "10,000 combining marks": "a" + "\u0301" * 10_000,
    "marks in the costliest order": "a" + "\u0301\u0323" * 8_000,
    "10,000 joiners": "👩" + "\u200d" * 10_000,
    "ligatures that normalise to 18 letters each": "\ufdfa" * 16_000,
    "one mark of punctuation": "!" * 16_000,
    "blanks and line breaks": " \n" * 8_000 + "a",
}


@pytest.mark.parametrize("path", [*ROUTES, "/v1/tasks/chat"])
@named(COSTLY)
def test_a_text_made_to_cost_time_is_answered_within_a_second(server: Server, path: str, body: str) -> None:
    inputs = {"text": body} | ({"sentiment": "正面"} if path.endswith("chat") and path != "/chat" else {})
    raw = json.dumps(inputs, ensure_ascii=False).encode()
    began = time.thread_time()  # of this thread, which does all but the model's part; the machine may be busy
    answer = server.post(path, raw)
    assert time.thread_time() - began < 1.0
    assert answer.status_code in (200, 400)
    if len(body) >= 300_000:
        assert problem(answer, path)["code"] == "input_too_long"


@pytest.mark.parametrize("path", ROUTES)
def test_a_text_of_too_many_tokens_is_a_400_that_names_both_numbers(server: Server, path: str) -> None:
    answer = server.post(path, {"text": "".join(f"{number}，" for number in range(2_000))})
    assert answer.status_code == 400
    found = problem(answer, path)
    assert found["code"] == "input_too_long"
    assert "1024" in found["message"] and "token" in found["message"]


def test_a_text_over_the_cap_does_not_come_back_in_the_answer(server: Server) -> None:
    assert len(server.post("/chat", {"text": "秘密" * 20_000}).data) < 500


@pytest.mark.parametrize(
    "path", ["/nowhere", "/chat/", "/v2/tasks", "/v1/nowhere", "/v1", "/v1/", "/.env", "/static/../app.py"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_address_that_does_not_exist_is_a_404(server: Server, path: str, method: str) -> None:
    answer = server.client.open(path, method=method)
    assert answer.status_code == 404
    assert problem(answer, path)["code"] == "not_found"


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/v1/task/sentiment", "/v1/tasks/sentiment"),
        ("/tasks/sentiment", "/v1/tasks/sentiment"),
        ("/v1/chat", "/chat"),
        ("/Chat/", "/chat"),
        ("/v1/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/chat/completion", "/v1/chat/completions"),
        ("/v1/embedding", "/v1/embeddings"),
        ("/heath", "/health"),
    ],
)
def test_the_nearest_address_is_told(server: Server, path: str, meant: str) -> None:
    answer = server.post(path, {"text": "a"})
    assert answer.status_code == 404
    assert f"是不是 '{meant}'？" in problem(answer, path)["message"]


@pytest.mark.parametrize("path", ["/nowhere", "/v1", "/v1/", "/v1/moderations", "/wp-login.php", "/" + "秘密" * 2_000])
def test_no_address_is_told_where_none_is_like_it_and_the_path_does_not_come_back(server: Server, path: str) -> None:
    assert problem(server.client.get(path), path)["message"] == "没有这个地址，接口说明见 /docs"


@pytest.mark.parametrize(
    "path", ["/v1/" + "tasks/sentiment" * 4_000, "/a" + "/chat" * 10_000, "/v1/" + "etainoshr/" * 6_000]
)
def test_a_path_made_to_cost_time_is_answered_at_once(server: Server, path: str) -> None:
    began = time.thread_time()
    answer = server.client.get(path)
    assert time.thread_time() - began < 0.5
    assert answer.status_code == 404 and len(answer.data) < 400


@pytest.mark.parametrize("name", ["nothing", "Sentiment", "任务", "sentiment%00", "a" * 500])
def test_an_unknown_task_is_a_404_that_lists_the_tasks(server: Server, name: str) -> None:
    answer = server.post(f"/v1/tasks/{name}", {"text": "a"})
    assert answer.status_code == 404
    found = problem(answer, "/v1")
    assert (found["code"], found["param"]) == ("unknown_task", "task")
    assert all(task.name in found["message"] for task in server.service.registry)
    assert len(found["message"]) < 300


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/chat", "POST"),
        ("PUT", "/chat", "POST"),
        ("DELETE", "/v1/tasks", "GET"),
        ("POST", "/v1/tasks", "GET"),
        ("GET", "/v1/tasks/sentiment", "POST"),
        ("PATCH", "/v1/tasks/sentiment", "POST"),
        ("POST", "/health", "GET"),
        ("POST", "/livez", "GET"),
        ("POST", "/openapi.json", "GET"),
        ("POST", "/", "GET"),
    ],
)
def test_another_method_is_a_405_that_names_those_allowed(server: Server, method: str, path: str, allowed: str) -> None:
    answer = server.client.open(path, method=method)
    assert answer.status_code == 405
    assert allowed in answer.headers["Allow"].replace(" ", "").split(",")
    assert method not in answer.headers["Allow"].replace(" ", "").split(",")
    found = problem(answer, path)
    assert found["code"] == "method_not_allowed"
    named = found["message"].rpartition("：")[2].split("、")
    assert named == sorted(answer.headers["Allow"].replace(" ", "").split(","))


def test_after_all_that_the_server_answers_as_before(server: Server) -> None:
    for body in (NOT_OBJECTS | BROKEN | NO_TEXT | WRONG_TEXT | WRONG_KEYS).values():
        assert server.post("/chat", body).status_code == 400
    assert server.post("/chat", {"text": "今天很开心"}).status_code == 200
    assert (server.service.engine.running, server.service.engine.waiting) == (0, 0)


HALF_PAIRS = {
    "/chat": {"text": "a\ud83d", "session": True},
    "/v1/tasks/sentiment": {"text": "\ude00\ud83d"},
    "/v1/analyze": {"text": "a", "tasks": ["\ud83d"]},
    "/v1/route": {"text": "\ud83d"},
    "/v1/classify": {"model": "demo", "input": ["a", "\udfff"], "task": "sentiment"},
    "/v1/chat/completions": {"model": "demo", "messages": [{"role": "user", "content": "a"}], "stop": ["\ud800"]},
    "/v1/decisions": {"model": "demo", "input": "a", "questions": [{"type": "boolean", "text": "\ud83d"}]},
}


@pytest.mark.parametrize("path", HALF_PAIRS)
def test_half_a_surrogate_pair_anywhere_is_a_400_on_every_route(server: Server, path: str) -> None:
    for body in (HALF_PAIRS[path], {"\ud83d": 1}, {"text": "a", "user": {"deep": [["\ud83d"]]}}):
        answer = server.post(path, json.dumps(body).encode())
        assert answer.status_code == 400, answer.data
        assert "代理字符" in problem(answer, path)["message"]
    deep = b'{"text": ' + b"[" * 100 + b'"\\ud83d\\ude00"' + b", 1" * 19_000 + b"]" * 100 + b"}"
    began = time.thread_time()
    assert server.post(path, deep).status_code == 400
    assert time.thread_time() - began < 2.0


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "br", "gzip, identity", "zstd\u00e9"])
def test_a_compressed_body_is_a_415_that_names_the_encoding(server: Server, path: str, encoding: str) -> None:
    body, headers = gzip.compress(b'{"text": "a"}'), {"Content-Encoding": encoding.encode("latin-1").decode("latin-1")}
    answer = server.client.post(path, data=body, content_type="application/json", headers=headers)
    assert answer.status_code == 415
    found = problem(answer, path)
    assert found["code"] == "unsupported_media_type"
    assert encoding.lower()[:4] in found["message"] and "Content-Encoding" in found["message"]


@pytest.mark.parametrize("path", ROUTES)
def test_an_encoding_that_changes_nothing_is_no_obstacle(server: Server, path: str) -> None:
    answer = server.client.post(path, json={"text": "今天很开心"}, headers={"Content-Encoding": "identity"})
    assert answer.status_code == 200


@pytest.mark.parametrize("path", ["/chat", "/v1/tasks", "/health", "/openapi.json", "/nowhere"])
def test_json_says_that_it_is_utf_8(server: Server, path: str) -> None:
    assert server.client.get(path).content_type == "application/json; charset=utf-8"


COSTLY = {
    "70,000 unknown keys": b'{"text": "a"' + b"".join(b', "k%05d": 1' % number for number in range(70_000)) + b"}",
    "200,000 empty objects": b'{"text": [{}' + b", {}" * 200_000 + b"]}",
    "lists in lists": b'{"text": [[1]' + b", [1]" * 100_000 + b"]}",
    "quotes and commas": b'{"text": ["\\","' + b', ",\\"["' * 80_000 + b"]}",
}


@pytest.mark.parametrize("body", COSTLY.values(), ids=COSTLY)
def test_a_body_of_very_many_values_is_refused_before_it_is_parsed(
    body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json, "loads", lambda *args, **kwargs: pytest.fail("it was parsed"))
    with pytest.raises(InvalidInput, match="20000"):
        parse_json(body)


def test_a_text_is_no_count_of_values() -> None:
    text = ",[{" * 100_000 + '\\",'
    assert parse_json(json.dumps({"text": text}).encode()) == {"text": text}
    assert len(parse_json(b"[" + b"1," * 19_998 + b"1]")) == 19_999


def _bodies(model: type[Body]) -> Iterator[type[Body]]:
    for body in model.__subclasses__():
        yield body
        yield from _bodies(body)


def test_no_list_is_complained_of_item_by_item(server: Server) -> None:
    seen = 0
    for model in _bodies(Body):
        for field in model.model_fields:
            for wrong in (7, {}, None, [], {"type": "message"}):
                try:
                    model.model_validate({field: [wrong] * 5_000})
                except ValidationError as error:
                    seen += 1
                    assert error.error_count() < 50, (model.__name__, field, wrong)
    assert seen > 100


def test_an_object_of_too_many_keys_is_refused_before_each_is_complained_of(server: Server) -> None:
    body = {"text": "好"} | {f"k{number}": 1 for number in range(3000)}
    answer = server.post("/chat", body)
    assert answer.status_code == 400 and "键太多" in answer.get_json()["error"]


# Errors of every kind: of the body, of its fields, of pydantic's and our own validators, of the service, of Flask.
TOLD: dict[str, tuple[str, bytes, str]] = {
    "no JSON": ("/chat", b"{", "the body is not valid JSON, check quotes, commas and brackets"),
    "no text": ("/chat", b"{}", "give a text, there is nothing to work on"),
    "a field": ("/chat", b'{"text": "a", "sesion": true}', "the field sesion is not supported, did you mean session?"),
    "a type": ("/chat", b'{"text": 1}', "text must be a string"),
    "a task": ("/v1/tasks/sentimnt", b'{"text": "a"}', "there is no task named 'sentimnt'; did you mean 'sentiment'?"),
    "a role": (
        "/v1/chat/completions",
        b'{"model": "demo", "messages": [{"role": "robot", "content": "a"}]}',
        "messages[0].role must be 'system', 'developer', 'user' or 'assistant'",
    ),
    "a part": (
        "/v1/chat/completions",
        b'{"model": "demo", "messages": [{"role": "user", "content": [{"type": "image_url"}]}]}',
        "messages[0].content part 1 is an image (image_url), and this model reads text only",
    ),
    "too long": ("/v1/tasks/sentiment", b'{"text": "' + b"a " * 40_000 + b'"}', "text is too long"),
    "no address": ("/nowhere", b"{}", "there is nothing at this address, see /docs for what there is"),
    "a mistyped address": (
        "/v1/task/sentiment", b"{}",
        "there is nothing at this address, did you mean '/v1/tasks/sentiment'? see /docs for what there is",
    ),
    "no method": ("/livez", b"{}", "this address does not take that method, it takes: GET, HEAD, OPTIONS"),
    "others' field": ("/v1/tasks/summary", b'{"text": "a", "below": 1}', "the field below is not supported, only label tasks"),
    "another's name": ("/v1/decisions", b'{"model": "demo", "text": "a"}', "the field text is not supported, required here"),
}  # fmt: skip


@pytest.mark.parametrize(("path", "body", "told"), TOLD.values(), ids=list(TOLD))
def test_who_prefers_english_is_told_in_english(server: Server, path: str, body: bytes, told: str) -> None:
    def ask(**headers: str) -> tuple[int, dict[str, Any]]:
        answer = server.client.post(path, data=body, content_type="application/json", headers=headers)
        error = answer.get_json()["error"]
        return answer.status_code, error if isinstance(error, dict) else answer.get_json() | {"message": error}

    status, error = ask(**ENGLISH)
    assert error["message"].startswith(told)
    assert not re.search("[\u4e00-\u9fff]", error["message"])
    # Nothing else depends on it, and who says nothing is told in Chinese.
    plain_status, plain = ask()
    assert (plain_status, plain["code"], plain.get("param")) == (status, error["code"], error.get("param"))
    assert re.search("[\u4e00-\u9fff]", plain["message"])
    assert ask(**{"Accept-Language": "zh-CN,zh;q=0.9,en;q=0.8"}) == (plain_status, plain)
