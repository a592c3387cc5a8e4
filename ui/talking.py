"""One visitor's conversation: what has been said, which session of the service it is, and how it is stopped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import TypeVar

from ui.client import Api, ApiError, Delta, Sentiment
from ui.show import Turn

_T = TypeVar("_T")
# The service has forgotten the conversation, or takes no more turns in it: the next one starts another.
_ENDED = {"session_not_found": "上一段会话已过期，从这里重新开始", "session_full": "上一段会话已满，从这里重新开始"}


class Talk:
    """What one browser tab says and hears."""

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self.session: str | None = None
        self.abandoned = False
        self._stop = asyncio.Event()

    @property
    def answering(self) -> bool:
        return bool(self.turns) and self.turns[-1].state in ("waiting", "streaming")

    @property
    def failed(self) -> str:
        """What was said last, if it got no answer; else empty."""
        return self.turns[-1].text if self.turns and self.turns[-1].state == "failed" else ""

    def stop(self) -> None:
        """Give up the answer that is being made."""
        self._stop.set()

    async def abandon(self, api: Api) -> None:
        """Give up the whole conversation, here and at the service as far as it can be asked."""
        self.abandoned = True
        self.stop()
        if self.session:
            with suppress(ApiError):
                await api.forget(self.session)

    async def say(self, api: Api, text: str, user: str | None = None) -> AsyncGenerator[None, None]:
        """Add a turn and let it grow; yields whenever there is something new to show. `user` has it remembered."""
        turn = Turn(text)
        self.turns.append(turn)
        self._stop.clear()
        yield
        try:
            async with aclosing(self._answer(api, turn, user)) as growing:
                async for _ in growing:
                    yield
        except ApiError as error:
            remark = _ENDED.get(error.code)
            if remark is None or self.session is None:
                _fail(turn, error)
            else:
                self.session, turn.remark = None, remark
                try:
                    async with aclosing(self._answer(api, turn, user)) as growing:
                        async for _ in growing:
                            yield
                except ApiError as again:
                    _fail(turn, again)
        finally:
            if turn.state in ("waiting", "streaming"):
                turn.state = "stopped"  # by the visitor, or because he left
        yield

    async def _answer(self, api: Api, turn: Turn, user: str | None) -> AsyncGenerator[None, None]:
        async with aclosing(until(self._stop, api.chat(turn.text, self.session, user))) as events:
            async for event in events:
                if isinstance(event, Sentiment):
                    turn.emoji, turn.label, turn.probability = event.emoji, event.label, event.probability
                    turn.state, self.session = "streaming", event.session
                elif isinstance(event, Delta):
                    turn.reply += event.text
                else:
                    turn.recalled = event.memories
                yield
        turn.state = "stopped" if self._stop.is_set() else "done"


async def until(stop: asyncio.Event, events: AsyncGenerator[_T, None]) -> AsyncGenerator[_T, None]:
    """The events until they end or `stop` is set; the source is closed then, so that its connection is too."""
    stopping = asyncio.ensure_future(stop.wait())
    coming: asyncio.Future[_T] | None = None
    try:
        while True:
            coming = asyncio.ensure_future(anext(events))
            await asyncio.wait({coming, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not coming.done():
                return
            try:
                event = coming.result()
            except StopAsyncIteration:
                return
            yield event
    finally:
        for task in (coming, stopping):
            if task is not None and not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        await events.aclose()


def _fail(turn: Turn, error: ApiError) -> None:
    turn.state, turn.error = "failed", told(error)


def told(error: ApiError) -> str:
    """The error with the time after which to try again, where the service named one."""
    if error.retry_after and "秒" not in str(error):
        return f"{error}（{error.retry_after:.0f} 秒后再试）"
    return str(error)
