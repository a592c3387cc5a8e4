"""Questions by name: the answers are those of /v1/decisions, in the other shape."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.conftest import Server

PATH = "/v1/systemone"
STATE = "今天心情特别差，工作也不顺利"
QUESTIONS: dict[str, Any] = {
    "unhappy": {"type": "noul", "instructions": "说话人不开心"},
    "team": {"type": "choice", "instructions": "归谁处理", "criteria": {"客服": "抱怨", "技术": None, "财务": None}},
    "how": {"type": "score", "instructions": "程度", "criteria": ["低", "中", "很高很高"]},
}
THE_SAME = [
    {"type": "predicate", "instructions": "说话人不开心"},
    {
        "type": "choice",
        "instructions": "归谁处理",
        "choices": [{"value": "客服", "description": "抱怨"}, {"value": "技术"}, {"value": "财务"}],
    },
    {"type": "score", "instructions": "程度", "levels": [{"label": "低"}, {"label": "中"}, {"label": "很高很高"}]},
]


def ask(server: Server, **fields: Any) -> Any:
    return server.post(PATH, {"model": "demo", "state": STATE, "questions": QUESTIONS} | fields)


def test_each_question_is_answered_under_its_name_as_decisions_answer_it(server: Server) -> None:
    body = ask(server).get_json()
    decided = server.post("/v1/decisions", {"model": "demo", "input": STATE, "questions": THE_SAME}).get_json()
    noul, choice, score = decided["answers"]
    near = {"abs": 1e-4}
    assert list(body) == ["model", "answers", "usage"] and list(body["answers"]) == ["unhappy", "team", "how"]
    assert body["answers"]["unhappy"] == {"type": "noul", "noul": pytest.approx(noul["probability"], **near)}
    team = body["answers"]["team"]
    assert list(team) == ["type", "choice", "confidence", "probabilities"] and team["choice"] == choice["choice"]
    assert team["probabilities"] == pytest.approx(
        {p["value"]: p["probability"] for p in choice["probabilities"]}, **near
    )
    how = body["answers"]["how"]
    assert list(how) == ["type", "score", "confidence", "probabilities", "legend"]
    assert how["legend"] == {"0": "低", "1": "中", "2": "很高很高"}
    assert how["probabilities"] == pytest.approx(
        {str(p["value"]): p["probability"] for p in score["probabilities"]}, **near
    )
    assert how["score"] == pytest.approx(score["score"], **near)
    assert body["usage"]["input_tokens"] == decided["usage"]["input_tokens"] > 0


def test_a_state_and_instructions_may_be_structured_and_what_yes_means_is_told(server: Server) -> None:
    state = {"messages": [{"text": STATE}], "小费": 3}
    plain = {"unhappy": QUESTIONS["unhappy"]}
    structured = ask(server, state=state, questions=plain).get_json()
    as_text = ask(server, state='{"messages": [{"text": "' + STATE + '"}], "小费": 3}', questions=plain).get_json()
    assert structured["answers"]["unhappy"]["noul"] == pytest.approx(as_text["answers"]["unhappy"]["noul"], abs=1e-4)
    told = plain["unhappy"] | {"criteria": {"true": "难过", "false": None}, "instructions": {"问": "不开心吗"}}
    answer = ask(server, questions={"unhappy": told}).get_json()
    assert answer["usage"]["input_tokens"] > ask(server, questions=plain).get_json()["usage"]["input_tokens"]
    unset = ask(server, questions={"unhappy": plain["unhappy"] | {"criteria": None}}).get_json()
    assert unset["answers"]["unhappy"]["noul"] == pytest.approx(
        ask(server, questions=plain).get_json()["answers"]["unhappy"]["noul"], abs=1e-4
    )


def one(**question: Any) -> dict[str, Any]:
    return {"questions": {"a": question}}


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "nothing to judge": ({"state": " "}, "state"),
    "an empty state": ({"state": {}}, "state"),
    "a number": ({"state": 5}, "state"),
    "more than fits": ({"state": "好，" * 5000}, "state"),
    "no question": ({"questions": {}}, "questions"),
    "a list of questions": ({"questions": [QUESTIONS["unhappy"]]}, "questions"),
    "another type": (one(type="box", instructions="a"), "questions"),
    "no type": (one(instructions="a"), "questions"),
    "nothing asked": (one(type="noul", instructions=""), "questions.a"),
    "one choice": (one(type="choice", instructions="a", criteria={"x": None}), "questions.a"),
    "a choice without a name": (one(type="choice", instructions="a", criteria={"x": None, " ": None}), "questions.a"),
    "one level": (one(type="score", instructions="a", criteria=["x"]), "questions.a"),
    "a level twice": (one(type="score", instructions="a", criteria=["x", "x"]), "questions.a"),
    "eleven levels": (one(type="score", instructions="a", criteria=list("abcdefghijk")), "questions.a"),
    "an unknown field": ({"images": []}, "images"),
}


@pytest.mark.parametrize(("fields", "param"), BAD.values(), ids=BAD)
def test_what_cannot_be_answered_is_a_400_that_names_it(server: Server, fields: dict[str, Any], param: str) -> None:
    answer = ask(server, **fields)
    assert answer.status_code == 400
    assert answer.get_json()["error"]["param"].startswith(param)


def test_another_model_is_not_there(server: Server) -> None:
    assert ask(server, model="jev-latest").status_code == 404
