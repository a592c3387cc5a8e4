"""What the service remembers of a visitor: listed and forgotten. A visitor is whoever holds an id made here.

All visitors share the page's key, so a name that people could guess would show them each other's memories: only ids of
128 random bits are taken.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from ui.client import Api, ApiError

_ID = re.compile(r"web-[A-Za-z0-9_-]{22}")
SHOWN = 200


@dataclass(frozen=True)
class Memory:
    """One statement. `day`: when it was last said; `by_hand`: it was not found in a chat; `replaced`: a newer one holds
    in its place."""

    id: str
    text: str
    day: str
    by_hand: bool
    replaced: bool

    @property
    def shown(self) -> str:
        """As a line of a list."""
        notes = [self.day, *(["手工添加"] if self.by_hand else []), *(["已被新的说法取代"] if self.replaced else [])]
        return f"{self.text}（{'，'.join(notes)}）"


def new_id() -> str:
    """For somebody who comes for the first time."""
    return f"web-{secrets.token_urlsafe(16)}"


def is_id(name: str) -> bool:
    """Whether it could be one of ours."""
    return _ID.fullmatch(name) is not None


async def memories(api: Api, user: str) -> list[Memory]:
    """All that is remembered of `user`, newest first. Raises ApiError."""
    answer = await api.ask("GET", _path(user))
    try:
        return [
            Memory(one["id"], one["text"], one["at"][:10], one["source"] == "hand", one["replaced"] is not None)
            for one in answer["memories"]
        ]
    except (KeyError, TypeError):
        raise ApiError("服务的回答不合约定，请检查本页所连的地址") from None


async def forget(api: Api, user: str, ids: Sequence[str]) -> None:
    """Forget those; what is gone already is no error. Raises ApiError."""
    for one in ids:
        try:
            await api.ask("DELETE", f"{_path(user)}/{quote(one, safe='')}")
        except ApiError as error:
            if error.status != 404:
                raise


async def forget_all(api: Api, user: str) -> int:
    """Forget everything, what was said and not yet looked through too; how many memories that were. Raises ApiError."""
    return int((await api.ask("DELETE", _path(user))).get("deleted", 0))


def _path(user: str) -> str:
    return f"/v1/memory/{quote(user, safe='')}"
