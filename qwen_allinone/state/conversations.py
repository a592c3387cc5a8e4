"""Conversations: what a session is, what a store of them must do, and one request's part in one of them.

A request holds a lease on its session from its first look to its last word, so that of two at once one is told to
wait. A lease ends by itself at the request's deadline. It is a courtesy, not what keeps turns safe: a store takes a
turn only as the next after those the request has seen.
"""

from __future__ import annotations

import json
import math
import re
import secrets
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Protocol

from qwen_allinone.errors import SessionFull, SessionNotFound, StoreUnavailable
from qwen_allinone.state.lease import Lease

# What `secrets.token_urlsafe(24)` makes: 192 bits, which nobody guesses.
_ID = re.compile(r"[A-Za-z0-9_-]{32}", re.ASCII)
# A lease outlives the request's deadline by what its last steps may take.
_GRACE_S = 5.0
_MOST_UNRELEASED = 1000
# What a turn takes beside its text, as owners' shares count it.
AROUND_BYTES = 200
_LATEST = 253_402_300_800.0  # the year 10000, which no date holds


@dataclass(frozen=True)
class Turn:
    """One text and its answer, complete.

    `ids` are the tokens that `response` was generated as: put into the next prompt as they are, they find their keys
    and values again. `first` is the number of the oldest turn that stood in this turn's prompt. `at`: Unix seconds.
    `told` is the mood that the reply was told.
    """

    text: str
    sentiment: str
    told: str
    response: str
    ids: tuple[int, ...] = ()
    first: int = 0
    at: float = 0.0

    def dump(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def load(cls, document: str | bytes) -> Turn:
        """The turn of a `dump`; raises ValueError if it is none."""
        try:
            fields = json.loads(document)
            text, sentiment, response = (fields[name] for name in ("text", "sentiment", "response"))
            turn = cls(
                text,
                sentiment,
                fields.get("told") or sentiment,  # an older turn does not say, and then it was that
                response,
                ids=tuple(map(int, fields["ids"])),
                first=int(fields["first"]),
                at=checked_date(float(fields["at"])),
            )
        except (TypeError, KeyError, OverflowError, RecursionError) as error:
            raise ValueError("not a turn") from error
        texts = (text, sentiment, response, turn.told)
        if not all(isinstance(part, str) for part in texts):
            raise ValueError("not a turn")
        return turn


@dataclass(frozen=True)
class Session:
    """A conversation as it is stored. `expires` is when it will be forgotten unless used again; Unix seconds."""

    id: str
    created: float
    expires: float
    turns: tuple[Turn, ...]


class Store(Protocol):
    """Where sessions are kept: sqlite_conversations.py, redis_conversations.py, postgres_conversations.py. `owner`
    is the caller's name, None where no keys are asked for.

    Everything raises StoreUnavailable when the store cannot be used, and has then changed nothing; only a Redis or
    PostgreSQL that is lost before it has answered may have done what it was asked. Who is not a session's owner gets
    SessionNotFound.
    `create` and `begin` raise OwnerFull for an owner whose turns take as much as one's may.
    """

    def create(self, id: str, owner: str | None, lease: Lease) -> None:
        """Make an empty session and hold it."""

    def begin(self, id: str, owner: str | None, lease: Lease) -> Session:
        """Hold a session and read it; raises SessionBusy if another request holds it."""

    def append(self, id: str, turn: Turn, number: int, lease: Lease) -> None:
        """Keep `turn` as the `number`-th, counted from 0, and let go. Raises SessionBusy if there is such a turn."""

    def release(self, id: str, lease: Lease) -> None:
        """Let go without a new turn; a session without any turn is removed."""

    def read(self, id: str, owner: str | None) -> Session:
        """The session, whoever holds it."""

    def delete(self, id: str, owner: str | None) -> None:
        """Forget the session, even while a request holds it."""


class Conversation:
    """One request's part in a session: a context in which it is held."""

    def __init__(
        self, store: Store, id: str, turns: Sequence[Turn], lease: Lease, unreleased: deque[tuple[str, Lease]]
    ) -> None:
        self.id = id
        self.turns = tuple(turns)
        self._store = store
        self._unreleased = unreleased
        self._lease: Lease | None = lease  # None when the session is let go

    @property
    def fields(self) -> dict[str, str]:
        """What an answer says of it."""
        return {"session_id": self.id}

    def keep_turn(self, turn: Turn) -> None:
        """Keep what was asked and answered; to be called once, when the answer is whole.

        Raises:
            StoreUnavailable: it could not be kept. SessionBusy: another request, come after this one's lease had
            ended, was faster. SessionNotFound: the session was deleted meanwhile.
        """
        if self._lease:
            self._store.append(self.id, turn, len(self.turns), self._lease)
            self._lease = None

    def close(self) -> None:
        """Let others at the session."""
        lease, self._lease = self._lease, None
        if lease:
            try:
                self._store.release(self.id, lease)
            except StoreUnavailable:
                self._unreleased.append((self.id, lease))

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Sessions:
    """The sessions of all callers, of `max_turns` turns each at most."""

    def __init__(self, store: Store, *, max_turns: int, deadline_s: float) -> None:
        self.max_turns = max_turns
        self._store = store
        self._deadline_s = deadline_s
        # Let go of in vain, because the store was away: else they would be held until their leases end.
        self._unreleased = deque[tuple[str, Lease]](maxlen=_MOST_UNRELEASED)

    def join(self, id: str | None, owner: str | None, *, deadline_s: float | None = None) -> Conversation:
        """Hold the session `id`, a new one if that is None, for a request that ends within `deadline_s`.

        Raises:
            SessionNotFound, SessionBusy, SessionFull, OwnerFull, StoreUnavailable.
        """
        self._release_left()
        lease = lease_for(deadline_s, self._deadline_s)
        if id is None:
            id = secrets.token_urlsafe(24)
            self._store.create(id, owner, lease)
            return Conversation(self._store, id, (), lease, self._unreleased)
        session = self._store.begin(_checked(id), owner, lease)
        conversation = Conversation(self._store, id, session.turns, lease, self._unreleased)
        if len(session.turns) >= self.max_turns:
            conversation.close()
            raise SessionFull(self.max_turns)
        return conversation

    def read(self, id: str, owner: str | None) -> Session:
        """Raises SessionNotFound, StoreUnavailable."""
        return self._store.read(_checked(id), owner)

    def delete(self, id: str, owner: str | None) -> None:
        """Raises SessionNotFound, StoreUnavailable."""
        self._store.delete(_checked(id), owner)

    def _release_left(self) -> None:
        """Let go of what requests before this one could not, as far as the store is there again."""
        with suppress(IndexError, StoreUnavailable):
            while True:
                id, lease = left = self._unreleased.popleft()
                try:
                    self._store.release(id, lease)
                except StoreUnavailable:
                    self._unreleased.appendleft(left)
                    raise


def checked_date(at: float) -> float:
    """Unix seconds that were read somewhere; raises ValueError if they are no date."""
    if not 0 <= at < _LATEST:
        raise ValueError("not a date")
    return at


def lease_for(deadline_s: float | None, longest_s: float) -> Lease:
    """For a request that ends within `deadline_s`, and in any case within `longest_s`."""
    return Lease.take(min(deadline_s or longest_s, longest_s) + _GRACE_S, longest_s + _GRACE_S)


def now() -> float:
    """Unix seconds: what is stored must mean the same after a restart and in another process."""
    return time.time()


def soon(seconds: float) -> int:
    """When to ask again for what is held so long: most answers take seconds, however long their lease."""
    return min(max(1, math.ceil(seconds)), 2)


def _checked(id: str) -> str:
    """What we never made is nowhere: no need to ask."""
    if not _ID.fullmatch(id):
        raise SessionNotFound()
    return id
