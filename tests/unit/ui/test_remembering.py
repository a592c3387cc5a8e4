"""What the page lists and forgets of a visitor, over real HTTP to a planted service."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.support.relay import Planted, relay
from tests.unit.ui.test_client import ask, describe, events, given
from ui.client import Api, ApiError
from ui.remembering import Memory, forget, forget_all, is_id, memories, new_id
from ui.talking import Talk

ME = "web-" + "a" * 22
HOME = {
    "id": "m1", "text": "用户住在杭州", "source": "chat", "mood": None,
    "at": "2026-03-01T08:00:00Z", "expires": "2027-03-01T08:00:00Z", "replaced": None,
}  # fmt: skip


def test_ids_are_many_and_only_such_are_taken() -> None:
    made = {new_id() for _ in range(1000)}
    assert len(made) == 1000 and all(map(is_id, made))
    assert not any(map(is_id, ("", "alice", "u-123", ME[:-1], ME + "a", ME[:-1] + "/", f"{ME}\n")))


def test_what_is_remembered_says_when_how_and_whether_it_still_holds() -> None:
    old = HOME | {"id": "m2", "text": "用户住在苏州", "source": "hand", "replaced": "2026-03-01T08:00:00Z"}
    with relay() as front:
        front.plant(f"/v1/memory/{ME}", given({"user": ME, "memories": [HOME, old]}))
        found = ask(front.address, lambda api: memories(api, ME))
    assert found[0] == Memory("m1", "用户住在杭州", "2026-03-01", False, False)
    assert [memory.shown for memory in found] == [
        "用户住在杭州（2026-03-01）",
        "用户住在苏州（2026-03-01，手工添加，已被新的说法取代）",
    ]


@pytest.mark.parametrize("answer", [{"user": ME}, {"memories": [{"id": "m1"}]}, {"memories": None}])
def test_an_answer_of_something_else_is_an_error_that_says_so(answer: object) -> None:
    with relay() as front:
        front.plant(f"/v1/memory/{ME}", given(answer))
        with pytest.raises(ApiError, match="不合约定"):
            ask(front.address, lambda api: memories(api, ME))


def test_one_that_is_gone_already_is_forgotten_and_other_errors_are_told() -> None:
    gone = given({"error": {"message": "没有这条记忆", "code": "memory_not_found"}}, 404)
    with relay() as front:
        front.plant(f"/v1/memory/{ME}/m1", gone)
        front.plant(f"/v1/memory/{ME}/m2", given({"user": ME, "deleted": 1}))
        ask(front.address, lambda api: forget(api, ME, ["m1", "m2"]))
        assert [(seen.method, seen.path[-3:]) for seen in front.seen] == [("DELETE", "/m1"), ("DELETE", "/m2")]
        front.plant(f"/v1/memory/{ME}", given({"user": ME, "deleted": 3}))
        assert ask(front.address, lambda api: forget_all(api, ME)) == 3
        front.plant(f"/v1/memory/{ME}/m1", given({"error": {"message": "记忆暂时不可用", "code": "x"}}, 503))
        with pytest.raises(ApiError, match="记忆暂时不可用"):
            ask(front.address, lambda api: forget(api, ME, ["m1"]))


def test_a_chat_names_its_user_only_where_it_is_to_be_remembered_and_tells_what_was_recalled() -> None:
    stream = events(
        ("sentiment", {"label": "正面", "probability": 0.9}),
        ("delta", {"text": "好"}),
        ("done", {"detail": {"memories": [{"id": "m1", "text": "用户住在杭州"}]}}),
    )

    async def two_turns(api: Api) -> Talk:
        talk = Talk()
        for user in (None, ME):
            async for _ in talk.say(api, "去哪儿玩", user):
                pass
        return talk

    with relay() as front:
        describe(front)
        front.plant("/chat", Planted(200, stream))
        talk = ask(front.address, two_turns)
        bodies = [json.loads(seen.body) for seen in front.seen if seen.path == "/chat"]
    assert bodies == [
        {"text": "去哪儿玩", "stream": True},
        {"text": "去哪儿玩", "stream": True, "user": ME, "detail": True},
    ]
    assert [turn.recalled for turn in talk.turns] == [("用户住在杭州",)] * 2
    assert [turn.state for turn in talk.turns] == ["done", "done"]


def test_a_service_that_remembers_is_known_by_its_description_and_answer() -> None:
    async def both(address: str) -> tuple[bool, bool, bool]:
        api = Api(address)
        before = (await api.about()).memory
        front.plant("/openapi.json", given({"paths": {"/v1/memory/{user}": {}}}))
        off = given({"error": {"message": "这个服务没有开启记忆", "code": "memory_off"}}, 404)
        front.plant("/v1/memory/nobody", off)
        off_there = (await api.about(fresh=True)).memory
        front.plant("/v1/memory/nobody", given({"user": "nobody", "memories": []}))
        after = (await api.about(fresh=True)).memory
        await api.close()
        return before, off_there, after

    with relay() as front:
        describe(front)
        assert asyncio.run(both(front.address)) == (False, False, True)
