"""POST /v1/feedback: whose word is taken on which answer, what is refused, and the rows that come of it."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner
from werkzeug.test import TestResponse

from qwen_allinone.access import keys
from qwen_allinone.cli import app
from qwen_allinone.http import feedback
from qwen_allinone.state import LabelAnswer
from tests.integration.conftest import Server, serve

TEXT = "等了两个小时没人理我，再也不来了"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("feedback") / "feedback.db"


@pytest.fixture(scope="module")
def server(brief: str, demo_checkpoint: Path, file: Path) -> Iterator[Server]:
    given = {"QAIO_MODEL": "demo", "QAIO_THREADS": "1", "QAIO_PROMPTS": brief, "QAIO_FEEDBACK_FILE": str(file)}
    with serve(given) as start:
        yield start()


def ask(server: Server, id: str, path: str = "/v1/tasks/sentiment", **body: object) -> TestResponse:
    answer = server.client.post(path, json={"text": TEXT, **body}, headers={"X-Request-Id": id})
    assert answer.status_code == 200, answer.text
    return answer


def say(server: Server, **body: object) -> TestResponse:
    return server.client.post("/v1/feedback", json=body)


def test_a_correction_becomes_a_row_that_eval_reads(
    server: Server, file: Path, brief: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = ask(server, "c1").get_json()["label"]
    other = {"正面": "负面", "负面": "正面"}[answered]
    kept = say(server, request_id="c1", label=other, note="=1+1")
    assert kept.get_json() == {
        "request_id": "c1", "task": "sentiment", "answered": answered, "label": other, "was_right": False,
    }  # fmt: skip
    ask(server, "c2")
    assert say(server, request_id="c2", ok=True).get_json()["was_right"] is True
    for name, value in (("FEEDBACK_FILE", file), ("PROMPTS", brief), ("MODEL", "demo"), ("THREADS", 1)):
        monkeypatch.setenv(f"QAIO_{name}", str(value))
    rows = tmp_path / "rows.csv"
    runner = CliRunner(env={"COLUMNS": "200"})
    exported = runner.invoke(app, ["corrections", "export", "sentiment", "--out", str(rows)])
    assert exported.exit_code == 0, exported.output
    with rows.open(encoding="utf-8-sig", newline="") as lines:
        found = list(csv.DictReader(lines))
    assert [(row["text"], row["label"], row["answer"]) for row in found] == [
        (TEXT, other, answered),
        (TEXT, answered, answered),
    ]
    measured = runner.invoke(
        app, ["eval", "sentiment", "--data", str(rows), "--wrong", str(tmp_path / "wrong.csv"), "--at-least", "0.5"]
    )
    assert measured.exit_code == 0, measured.output


def test_of_a_chat_the_sentiment_is_meant_unless_care_is_named() -> None:
    both = {name: LabelAnswer("r", name, {}, "x", None, "v", 0.0) for name in ("care", "sentiment")}
    assert feedback._meant(both, None).task == "sentiment"
    assert feedback._meant(both, "care").task == feedback._meant({"care": both["care"]}, None).task == "care"


@pytest.mark.parametrize("body", [{}, {"stream": True}])
def test_the_sentiment_of_a_chat_may_be_corrected_streamed_or_not(server: Server, body: dict[str, bool]) -> None:
    id = f"chat{len(body)}"
    ask(server, id, "/chat", **body)
    assert say(server, request_id=id, label="正面").get_json()["task"] == "sentiment"


def test_of_several_tasks_one_must_be_named(server: Server) -> None:
    ask(server, "several", "/v1/analyze", tasks=["sentiment", "intent", "keywords"])
    asked = say(server, request_id="several", ok=True)
    assert asked.status_code == 400 and "intent、sentiment" in asked.get_json()["error"]["message"]
    misspelt = say(server, request_id="several", ok=True, task="intnet").get_json()["error"]
    assert misspelt["param"] == "task" and "intent" in misspelt["message"]
    assert say(server, request_id="several", ok=True, task="intent").status_code == 200


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"label": "负"}, "label"),
        ({"label": "负面", "ok": True}, "label"),
        ({"ok": False}, "label"),
        ({}, "label"),
        ({"ok": "yes"}, "ok"),
        ({"label": "负面", "note": "x" * 1001}, "note"),
        ({"label": "负面", "noet": ""}, "noet"),
    ],
)
def test_what_says_nothing_definite_is_refused(server: Server, body: dict[str, object], param: str) -> None:
    ask(server, "odd")
    refused = say(server, request_id="odd", **body)
    assert refused.status_code == 400 and refused.get_json()["error"]["param"] == param


def test_what_was_never_answered_is_not_found(server: Server) -> None:
    assert say(server, request_id="nobody", ok=True).get_json()["error"]["code"] == "answer_not_found"
    ask(server, "text", "/v1/tasks/keywords")
    assert say(server, request_id="text", ok=True).status_code == 404


def test_the_first_word_on_each_answer_is_counted(server: Server) -> None:
    def counted() -> str:
        lines = server.client.get("/metrics").text.splitlines()
        return next((line for line in lines if line.startswith('qaio_feedback_total{right="yes",task="intent"}')), "0")

    ask(server, "counted", "/v1/tasks/intent")
    before = float(counted().split()[-1])
    for _ in range(2):
        assert say(server, request_id="counted", ok=True).status_code == 200
    assert float(counted().split()[-1]) == before + 1


def test_another_key_finds_nothing_and_without_the_setting_nothing_is_kept(
    brief: str, demo_checkpoint: Path, tmp_path: Path
) -> None:
    alice, bob = (keys.add(tmp_path / "keys", name) for name in ("alice", "bob"))
    given = {"QAIO_MODEL": "demo", "QAIO_THREADS": "1", "QAIO_PROMPTS": brief}
    with serve(given) as start:
        guarded = start(QAIO_API_KEYS_FILE=str(tmp_path / "keys"), QAIO_FEEDBACK_FILE=str(tmp_path / "f.db"))
        hers = {"X-API-Key": alice, "X-Request-Id": "hers"}
        assert guarded.client.post("/v1/tasks/sentiment", json={"text": TEXT}, headers=hers).status_code == 200
        word = {"request_id": "hers", "ok": True}
        assert guarded.client.post("/v1/feedback", json=word, headers={"X-API-Key": bob}).status_code == 404
        assert guarded.client.post("/v1/feedback", json=word, headers={"X-API-Key": alice}).status_code == 200
        off = start()
        ask(off, "x")
        assert say(off, request_id="x", ok=True).get_json()["error"]["code"] == "feedback_off"
