"""A conversation: its session, and what becomes of a turn that is refused, stopped or left."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing

from tests.support.relay import Planted, Relay, relay
from tests.unit.ui.test_client import describe, events, given
from ui.client import Api
from ui.talking import Talk


def answer(reply: str, session: str | None) -> Planted:
    first = {"label": "正面", "emoji": "😄", "probability": 0.9, "session_id": session}
    return Planted(200, events(("sentiment", first), ("delta", {"text": reply}), ("done", {})))


def sent(front: Relay) -> list[dict[str, object]]:
    return [json.loads(seen.body) for seen in front.seen if seen.path == "/chat"]


async def say(talk: Talk, api: Api, text: str) -> None:
    async for _ in talk.say(api, text):
        pass


def test_a_conversation_goes_on_in_the_session_that_the_service_gave() -> None:
    async def both(address: str) -> Talk:
        api, talk = Api(address), Talk()
        await say(talk, api, "一")
        await say(talk, api, "二")
        await talk.abandon(api)
        await api.close()
        return talk

    with relay() as front:
        describe(front, "session", "session_id")
        front.plant("/chat", answer("好", "s-1"))
        front.plant("/v1/sessions/s-1", given({}))
        talk = asyncio.run(both(front.address))
        assert [body.get("session_id") for body in sent(front)] == [None, "s-1"]
        assert [turn.state for turn in talk.turns] == ["done", "done"]
        assert (front.seen[-1].method, front.seen[-1].path) == ("DELETE", "/v1/sessions/s-1")


def test_a_session_that_has_ended_is_begun_anew_and_said_so() -> None:
    async def all_of_it(address: str) -> Talk:
        api, talk = Api(address), Talk()
        talk.session = "old"
        await say(talk, api, "一")
        await api.close()
        return talk

    for status, code in ((404, "session_not_found"), (400, "session_full")):
        with relay() as front:
            describe(front, "session", "session_id")
            front.plant("/chat", given({"error": "没有这个会话", "code": code}, status), answer("好", "new"))
            talk = asyncio.run(all_of_it(front.address))
            assert [(body.get("session_id"), body.get("session")) for body in sent(front)] == [
                ("old", None),
                (None, True),
            ]
            assert talk.session == "new"
            assert talk.turns[0].state == "done" and "重新开始" in talk.turns[0].remark


def test_a_refused_turn_keeps_its_text_and_the_time_to_wait() -> None:
    async def all_of_it(address: str) -> Talk:
        api, talk = Api(address), Talk()
        await say(talk, api, "一")
        await api.close()
        return talk

    with relay() as front:
        describe(front)
        front.plant("/chat", given({"error": "服务器繁忙", "code": "server_busy"}, 503, **{"Retry-After": "7"}))
        talk = asyncio.run(all_of_it(front.address))
        assert talk.failed == "一"
        assert talk.turns[0].error == "服务器繁忙（7 秒后再试）"


def test_whoever_leaves_in_the_middle_closes_the_stream() -> None:
    async def all_of_it(address: str) -> Talk:
        api, talk = Api(address), Talk()
        async with aclosing(talk.say(api, "一")) as growing:
            async for _ in growing:
                if talk.turns[0].reply:
                    break
        await api.close()
        return talk

    with relay() as front:
        describe(front)
        front.plant("/chat", answer("好", None))
        talk = asyncio.run(all_of_it(front.address))
        assert talk.turns[0].state == "stopped" and not talk.answering
