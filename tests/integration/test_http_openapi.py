"""The API's own description: true, complete, valid, and readable without the internet."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urljoin

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from qwen_allinone import __version__
from tests.integration.conftest import Server

STREAMS = {("POST", path, "200") for path in ("/chat", "/v1/chat/completions", "/v1/completions", "/v1/responses")}
OTHER_CONTENT = {("/metrics", "200"): "text/plain", ("/v1/files/{file_id}/content", "200"): "application/jsonl"}
UNDOCUMENTED = {"/openapi.json", "/v1/tasks/<name>"}  # the document itself; what answers for tasks there are none of


@pytest.fixture(scope="module")
def document(server: Server) -> dict[str, Any]:
    answer = server.client.get("/openapi.json")
    assert (answer.status_code, answer.content_type) == (200, "application/json; charset=utf-8")
    return dict(answer.get_json())


def references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (text for key, text in value.items() if key == "$ref")
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from references(item)


def operations(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(m.upper(), path): op for path, item in document["paths"].items() for m, op in item.items()}


def test_the_document_is_valid_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")
    assert document["info"]["version"] == __version__
    validate(document)  # raises with the place of the mistake


def test_every_reference_leads_somewhere_and_every_schema_is_used(document: dict[str, Any]) -> None:
    found = set(references(document))
    assert found == {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}


def test_every_route_is_documented_and_nothing_else(server: Server, document: dict[str, Any]) -> None:
    routes = {
        (method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in server.app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if rule.rule not in UNDOCUMENTED and not rule.rule.startswith("/docs")
    }
    assert set(operations(document)) == routes
    assert {f"/v1/tasks/{task.name}" for task in server.service.registry} <= set(document["paths"])


def test_every_operation_has_a_summary_an_id_of_its_own_and_says_what_its_answers_are(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for operation in operations(document).values()]
    assert len(ids) == len(set(ids))
    for (method, path), operation in operations(document).items():
        assert operation["summary"]
        for status, answer in operation["responses"].items():
            expected = [OTHER_CONTENT.get((path, status), "application/json")]
            if (method, path, status) in STREAMS:
                expected.append("text/event-stream")
            assert list(answer["content"]) == expected


def test_the_list_of_tasks_and_the_document_say_the_same_of_the_inputs(
    server: Server, document: dict[str, Any]
) -> None:
    for task in server.client.get("/v1/tasks").get_json()["tasks"]:
        operation = document["paths"][f"/v1/tasks/{task['name']}"]["post"]
        reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        schema = document["components"]["schemas"][reference.rsplit("/", 1)[-1]]
        assert schema["required"] == list(task["inputs"])
        assert list(schema["properties"]) == [*task["inputs"], *(["below"] if task["labels"] else []), "detail"]
        assert schema["additionalProperties"] is False
        assert operation["summary"] == task["description"]


DECISION = json.dumps(
    {
        "model": "demo",
        "input": [{"role": "user", "content": "a"}],
        "questions": [
            {"type": "predicate", "instructions": "a"},
            {"type": "choice", "name": "b", "instructions": "a", "choices": [{"value": True}, {"value": "c"}]},
            {"type": "score", "instructions": "a", "levels": [{"label": "a"}, {"label": "b", "description": "c"}]},
        ],
    }
).encode()
ANSWERS = [
    ("POST", "/chat", b'{"text": "\xe5\xbe\x88\xe5\xbc\x80\xe5\xbf\x83"}', 200),
    ("POST", "/chat", b"{}", 400),
    ("POST", "/chat", b'{"text": "a", "x": 1}', 400),
    ("POST", "/chat", b" " * 1_048_577, 413),
    ("POST", "/v1/tasks/sentiment", b'{"text": "ok"}', 200),
    ("POST", "/v1/tasks/sentiment", b"[]", 400),
    ("POST", "/v1/tasks/sentiment", b" " * 1_048_577, 413),
    ("POST", "/v1/tasks/chat", b'{"text": "ok", "sentiment": "ok"}', 200),
    (
        "POST",
        "/v1/chat/completions",
        b'{"model": "demo", "messages": [{"role": "user", "content": "a"}], "max_tokens": 2}',
        200,
    ),
    ("POST", "/v1/chat/completions", b'{"model": "demo"}', 400),
    ("POST", "/v1/chat/completions", b'{"model": "a", "messages": [{"role": "user", "content": "a"}]}', 404),
    ("POST", "/v1/chat/completions", b" " * 1_048_577, 413),
    ("POST", "/v1/completions", b'{"model": "demo", "prompt": "a", "logprobs": 1}', 200),
    ("POST", "/v1/completions", b'{"model": "demo", "prompt": ["a", [1]]}', 400),
    ("POST", "/tokenize", b'{"prompt": "a"}', 200),
    ("POST", "/tokenize", b"{}", 400),
    ("POST", "/detokenize", b'{"tokens": [5]}', 200),
    ("POST", "/v1/classify", b'{"model": "demo", "input": ["a", "b"]}', 200),
    ("POST", "/v1/classify", b'{"model": "demo", "input": []}', 400),
    ("POST", "/v1/classify", b'{"model": "demo", "input": "a", "task": "none"}', 404),
    ("POST", "/v1/decisions", DECISION, 200),
    ("POST", "/v1/decisions", b'{"model": "demo", "input": "a", "questions": []}', 400),
    (
        "POST",
        "/v1/systemone",
        json.dumps({"model": "demo", "state": "a", "questions": {"q": {"type": "noul", "instructions": "a"}}}).encode(),
        200,
    ),
    ("POST", "/v1/systemone", b'{"model": "demo", "state": "a", "questions": {}}', 400),
    ("GET", "/v1/models", None, 200),
    ("GET", "/v1/models/{model}", None, 404),
    ("POST", "/v1/tasks/keywords", b'{"text": "ok"}', 200),
    ("POST", "/v1/route", b'{"text": "ok"}', 200),
    ("POST", "/v1/route", b"{}", 400),
    ("POST", "/v1/analyze", b'{"text": "ok", "tasks": ["sentiment", "keywords", "summary"]}', 200),
    ("POST", "/v1/analyze", b'{"text": "ok", "tasks": []}', 400),
    ("POST", "/v1/analyze", b'{"text": "ok", "tasks": ["none"]}', 404),
    ("GET", "/v1/tasks", None, 200),
    ("GET", "/livez", None, 200),
    ("GET", "/readyz", None, 200),
    ("GET", "/health", None, 200),
]


@pytest.mark.parametrize(("method", "path", "body", "status"), ANSWERS, ids=lambda value: str(value)[:24])
def test_what_is_answered_is_what_is_documented(
    server: Server, document: dict[str, Any], method: str, path: str, body: bytes | None, status: int
) -> None:
    answer = server.client.open(path, method=method, data=body, content_type="application/json" if body else None)
    assert answer.status_code == status
    assert_documented(document, method, path, status, answer.get_json())


def test_an_answer_for_a_wrong_content_type_is_documented(server: Server, document: dict[str, Any]) -> None:
    for path in ("/chat", "/v1/tasks/sentiment"):
        answer = server.client.post(path, data="a")
        assert_documented(document, "POST", path, 415, answer.get_json())


def assert_documented(document: dict[str, Any], method: str, path: str, status: int, body: object) -> None:
    schema = operations(document)[method, path]["responses"][str(status)]["content"]["application/json"]["schema"]
    whole = schema | {"components": document["components"]}
    Draft202012Validator(whole).validate(body)
    schemas = document["components"]["schemas"]
    top = schemas[schema["$ref"].rsplit("/", 1)[-1]]
    kinds = [schemas[kind["$ref"].rsplit("/", 1)[-1]] for kind in top["anyOf"]] if "anyOf" in top else [top]
    assert isinstance(body, dict) and any(set(body) <= set(kind["properties"]) for kind in kinds)


def test_the_page_for_people_and_all_it_loads_come_from_this_server(server: Server) -> None:
    page = server.client.get("/docs", follow_redirects=True)
    assert (page.status_code, page.mimetype) == (200, "text/html")
    html = page.get_data(as_text=True)
    loaded = re.findall(r"""(?:src|href)\s*=\s*["']([^"']+)["']""", html)
    assert any(".js" in address for address in loaded) and any(".css" in address for address in loaded)
    for address in loaded:
        assert not re.match(r"(?:[a-z]+:)?//", address), f"{address} is not on this server"
        part = server.client.get(urljoin(page.request.path, address))
        assert part.status_code == 200 and part.data, address
        part.close()
    assert not re.search(r"""(?:import|fetch|@import)\s*\(?\s*["']?(?:https?:)?//""", html)


def test_the_page_reads_the_same_document(server: Server, document: dict[str, Any]) -> None:
    page = server.client.get("/docs", follow_redirects=True)
    address = re.search(r'new URL\("([^"]+)", window\.location\.href\)', page.get_data(as_text=True))
    assert address
    answer = server.client.get(urljoin(page.request.path, address.group(1)))
    assert json.loads(answer.data) == document
