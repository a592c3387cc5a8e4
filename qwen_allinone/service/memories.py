"""What people told of themselves: recalled for their chats, noted behind the answers, kept and forgotten on request."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from qwen_allinone.errors import EmptyInput, InvalidInput
from qwen_allinone.service.answer_types import ChatAnswer
from qwen_allinone.service.recall import matching, recalled, vector_model, vector_of
from qwen_allinone.service.request import Request
from qwen_allinone.service.secret_text import has_secret, without_secrets
from qwen_allinone.state import Memory, MemoryStore, Statement, Whose
from qwen_allinone.tasks import MOST_CHARS_PER_TOKEN, clean, is_blank
from qwen_allinone.wording import said

# Characters of a statement: more is no short one.
LONGEST = 200
_USER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@:+=-]{0,127}", re.ASCII)


class UserMemories:
    """One chat's part in the memories of its user."""

    def __init__(self, store: MemoryStore, whose: Whose, changed: Callable[[], None]) -> None:
        self._store = store
        self._whose = whose
        self._changed = changed

    def remind(self, request: Request, text: str) -> Sequence[Statement]:
        """What the reply to `text` is to be reminded of, the best first; see Service.chat."""
        held = self._store.held(self._whose, vector_model(request.codec))
        if not held.statements:
            return ()
        return recalled(held.statements, text, held.likest(vector_of(request, text)))

    def note(self, answer: ChatAnswer) -> None:
        """Have what the user told of himself found later. Words of despair are kept by nobody."""
        if not (answer.care and answer.care.fired):
            self.note_said(answer.turn.text, answer.sentiment.label)

    def note_said(self, text: str, mood: str | None) -> None:
        """The same for a text that is known to be no word of despair. `mood` is its sentiment."""
        self._store.note(self._whose, without_secrets(text), mood)
        self._changed()


class Memories:
    """The memories of all users. `changed` is called when there is something to be worked off, see Keeper.

    Everything raises MemoryUnavailable when the store cannot be used.
    """

    def __init__(self, store: MemoryStore, changed: Callable[[], None] = lambda: None) -> None:
        self._store = store
        self._changed = changed

    def of(self, whose: Whose) -> UserMemories:
        """One chat's part in them; raises MemoryFull if nothing could be kept of it."""
        self._store.check_room(whose)
        return UserMemories(self._store, whose, self._changed)

    def add(self, whose: Whose, text: str) -> Memory:
        """Keep a statement; raises InvalidInput for what is none, or holds a secret, MemoryFull."""
        if len(text) > LONGEST * MOST_CHARS_PER_TOKEN:  # not worth cleaning
            raise _too_long(text)
        statement = one_line(text)
        if is_blank(statement):
            raise EmptyInput(param="text")
        if len(statement) > LONGEST:
            raise _too_long(statement)
        if has_secret(text):
            raise InvalidInput(said("memory_secret"), param="text")
        memory = self._store.add(whose, statement)
        self._changed()
        return memory

    def all(self, whose: Whose) -> list[Memory]:
        """The newest first; replaced ones too."""
        return self._store.all(whose)

    def search(self, whose: Whose, query: str) -> list[Memory]:
        """Those that have all of `query` in them, then those with words of it."""
        return matching(self._store.all(whose), query)

    def delete(self, whose: Whose, id: str) -> None:
        """Raises MemoryNotFound."""
        self._store.delete(whose, id)

    def forget(self, whose: Whose) -> int:
        """Forget everything about a user; says how many statements there were."""
        return self._store.forget(whose)


def whose(owner: str | None, user: str) -> Whose:
    """Raises InvalidInput for what is no name of a user."""
    if not _USER.fullmatch(user):
        raise InvalidInput(said("user_form"), param="user")
    return Whose(owner, user)


def _too_long(text: str) -> InvalidInput:
    return InvalidInput(said("memory_too_long", count=len(text), longest=LONGEST), param="text")


def one_line(text: str) -> str:
    """Cleaned, and without line breaks: a statement stands in a prompt as one item of a list."""
    return " ".join(clean(text).split())
