"""Responses that others may follow: each is a session of its own with one turn, in the store of conversations.

So they have its owners, their shares of the store, and its expiry. Each holds the whole conversation up to it: any of
them may be followed, more than once, and none misses one that was deleted.
"""

from __future__ import annotations

import json
import secrets
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qwen_allinone.errors import ResponseNotFound, SessionNotFound, StoreUnavailable
from qwen_allinone.state.conversations import Conversation, Store, Turn, lease_for

# No id of a session begins so: neither can be asked for as the other.
PREFIX = "resp_"
_ID_BYTES = 24


@dataclass(frozen=True)
class KeptResponse:
    """`messages` are role and text of all that was said until then, the reply last; `shown` is what the client got."""

    messages: tuple[tuple[str, str], ...]
    shown: Mapping[str, Any]

    def turn(self, at: float) -> Turn:
        """As the store keeps it."""
        document = {"messages": self.messages, "shown": self.shown}
        text = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return Turn(text, "", "", "", at=at)

    @classmethod
    def of(cls, turn: Turn) -> KeptResponse:
        """Raises ValueError: it is none."""
        try:
            document = json.loads(turn.text)
            messages = tuple([(str(role), str(text)) for role, text in document["messages"]])
            return cls(messages, dict(document["shown"]))
        except (TypeError, KeyError) as error:
            raise ValueError("not a response") from error


class Responses:
    """The responses of all callers. Who is not a response's owner gets ResponseNotFound."""

    def __init__(self, store: Store, *, deadline_s: float) -> None:
        self._store = store
        self._deadline_s = deadline_s

    @staticmethod
    def new_id() -> str:
        return PREFIX + secrets.token_urlsafe(_ID_BYTES)

    def begin(self, id: str, owner: str | None, *, deadline_s: float | None = None) -> Conversation:
        """A place for the response `id`, to be kept as its one turn; without one it is gone again.

        Raises:
            OwnerFull, StoreUnavailable.
        """
        lease = lease_for(deadline_s, self._deadline_s)
        self._store.create(id, owner, lease)
        # A lease that cannot be let go ends by itself: nobody else asks for this id.
        return Conversation(self._store, id, (), lease, deque(maxlen=0))

    def read(self, id: str, owner: str | None, *, param: str | None = None) -> KeptResponse:
        """A whole one. Raises ResponseNotFound, with `param` for the field that names it; StoreUnavailable."""
        try:
            turns = self._store.read(_checked(id), owner).turns
        except SessionNotFound:
            turns = ()
        if not turns:
            raise ResponseNotFound(param=param)
        try:
            return KeptResponse.of(turns[0])
        except ValueError as error:
            raise StoreUnavailable() from error

    def delete(self, id: str, owner: str | None) -> None:
        """Raises ResponseNotFound, StoreUnavailable."""
        try:
            self._store.delete(_checked(id), owner)
        except SessionNotFound:
            raise ResponseNotFound() from None


def _checked(id: str) -> str:
    """An id of ours, as far as that shows."""
    secret = id.removeprefix(PREFIX)
    if secret == id or len(secret) > 64 or not secret.replace("-", "").replace("_", "").isalnum() or not id.isascii():
        raise SessionNotFound()
    return id
