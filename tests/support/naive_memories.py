"""A `MemoryStore` in lists: what the real one must do, in the plainest words."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from qwen_allinone.errors import MemoryFull, MemoryNotFound
from qwen_allinone.state import Held, Memory, MemoryStore, Note, Statement, Whose
from qwen_allinone.state.memories import AROUND_BYTES, form, topic


def likest_ids(store: MemoryStore, whose: Whose, model: str, vector: bytes) -> list[str]:
    """Of a user's statements that hold and have a vector of `model`, the likest to `vector` first."""
    held = store.held(whose, model)
    return [held.statements[place].id for place in held.likest(vector)]


class NaiveMemories:
    """`clock` says what time it is."""

    def __init__(self, clock: Callable[[], float], *, ttl_s: float, most: int, owner_mb: int = 100) -> None:
        self._clock, self._ttl_s, self._most, self._owner_mb = clock, ttl_s, most, owner_mb
        self._ids = itertools.count(1)
        self._kept: list[tuple[Whose, Memory]] = []  # the latest at the end
        self._vectors: dict[str, tuple[str, bytes]] = {}  # by id: of which model, and what
        self._notes: list[tuple[Note, float]] = []

    def check_room(self, whose: Whose) -> None:
        texts = [memory.text for owner, memory in self._kept if owner.owner == whose.owner]
        texts += [note.text for note, _ in self._notes if note.whose.owner == whose.owner]
        vectors = [self._vector(m)[1] for owner, m in self._kept if owner.owner == whose.owner]
        taken = sum(len(text.encode()) + AROUND_BYTES for text in texts) + sum(map(len, vectors))
        if whose.owner and taken >= self._owner_mb * 1_000_000:
            raise MemoryFull(self._owner_mb)

    def add(self, whose: Whose, text: str) -> Memory:
        self.check_room(whose)
        return self._keep(whose, Memory(f"{next(self._ids):016x}", text, "hand", None, self._clock(), 0.0))

    def all(self, whose: Whose) -> list[Memory]:
        now = self._clock()
        found = [memory for owner, memory in reversed(self._kept) if owner == whose and memory.expires > now]
        return sorted(found, key=lambda memory: -memory.at)

    def held(self, whose: Whose, model: str) -> Held:
        found = [memory for memory in self.all(whose) if memory.replaced is None]
        return Held([Statement(m.id, m.text) for m in found], partial(self._likest, found, model))

    def _likest(self, statements: list[Memory], model: str, vector: bytes) -> list[int]:
        """Vectors in tests are whole numbers, so that all stores compute alike."""
        found = [m for m in statements if self._vector(m)[0] == model]
        rows = [list(np.frombuffer(self._vector(m)[1], np.float16).astype(float)) for m in found]
        middle = [sum(column) / len(rows) for column in zip(*rows, strict=True)] if len(rows) > 5 else None

        def likeness(row: list[float], asked: list[float]) -> float:
            one, other = ([a - b for a, b in zip(v, middle or [0.0] * len(v), strict=True)] for v in (row, asked))
            lengths = math.hypot(*one) * math.hypot(*other)
            return sum(a * b for a, b in zip(one, other, strict=True)) / lengths if lengths > 1e-6 else 0.0

        asked = list(np.frombuffer(vector, np.float16).astype(float))
        points = [round(likeness(row, asked), 5) for row in rows]
        order = sorted(range(len(found)), key=lambda place: -points[place])
        return [statements.index(found[place]) for place in order]

    def delete(self, whose: Whose, id: str) -> None:
        left = [(owner, memory) for owner, memory in self._kept if (owner, memory.id) != (whose, id)]
        if len(left) == len(self._kept):
            raise MemoryNotFound()
        self._kept = left

    def forget(self, whose: Whose) -> int:
        left = [(owner, memory) for owner, memory in self._kept if owner != whose]
        count = len(self._kept) - len(left)
        self._kept = left
        self._notes = [(note, due) for note, due in self._notes if note.whose != whose]
        return count

    def note(self, whose: Whose, text: str, mood: str | None) -> None:
        now = self._clock()
        self._notes.append((Note(next(self._ids), whose, text, mood, now, 0), now))
        own = [note.id for note, _ in self._notes if note.whose == whose]
        self._notes = [(n, due) for n, due in self._notes if n.id not in own[: -self._most]]

    def take(self, hold_s: float) -> Note | None:
        now = self._clock()
        due = sorted((due, note.id, place) for place, (note, due) in enumerate(self._notes) if due <= now)
        if not due:
            return None
        place = due[0][2]
        note = replace(self._notes[place][0], tries=self._notes[place][0].tries + 1)
        self._notes[place] = note, now + hold_s
        return note

    def settle(self, note: Note, texts: Sequence[str]) -> None:
        if any(left.id == note.id for left, _ in self._notes):
            self._notes = [(left, due) for left, due in self._notes if left.id != note.id]
            for text in texts:
                self._keep(note.whose, Memory(f"{next(self._ids):016x}", text, "chat", note.mood, note.at, 0.0))

    def put_back(self, note: Note, wait_s: float, *, tried: bool) -> None:
        back = replace(note, tries=note.tries - (not tried)), self._clock() + wait_s
        self._notes = [back if left.id == note.id else (left, due) for left, due in self._notes]

    def unread(self, model: str, most: int) -> list[tuple[Whose, Memory]]:
        return [(o, m) for o, m in self._kept if self._vector(m)[0] != model and m.replaced is None][:most]

    def put_vector(self, whose: Whose, memory: Memory, model: str, vector: bytes) -> None:
        if any((o, m.id, m.text) == (whose, memory.id, memory.text) for o, m in self._kept):
            self._vectors[memory.id] = model, vector

    def tidy(self) -> None:
        now = self._clock()
        self._kept = [(owner, memory) for owner, memory in self._kept if memory.expires > now]

    def erase(self) -> None:
        pass

    def _vector(self, memory: Memory) -> tuple[str, bytes]:
        return self._vectors.get(memory.id, ("", b""))

    def _keep(self, whose: Whose, new: Memory) -> Memory:
        new, now = replace(new, expires=new.at + self._ttl_s), self._clock()
        self._kept = [(o, m) for o, m in self._kept if o != whose or m.expires > now]
        same = [m for o, m in self._kept if o == whose and form(m.text) == form(new.text)]
        about = topic(new.text)
        rivals = [
            m
            for o, m in self._kept
            if about and o == whose and topic(m.text) == about and m not in same and m.replaced is None
        ]
        new = replace(new, replaced=min((m.at for m in rivals if m.at > new.at), default=None))
        beaten = [m for m in rivals if m.at <= new.at]
        self._kept = [(o, replace(m, replaced=new.at) if m in beaten else m) for o, m in self._kept]
        if not same:
            self._kept.append((whose, new))
        elif new.at >= same[0].at:
            old = same[0]
            new = replace(old, at=new.at, expires=new.expires, mood=new.mood, replaced=new.replaced)
            self._kept = [(o, new if m is old else m) for o, m in self._kept]
        else:
            new = same[0]
        own = [(m.replaced is not None, -m.at, -place, m) for place, (o, m) in enumerate(self._kept) if o == whose]
        gone = [m for *_, m in sorted(own, key=lambda item: item[:3])[self._most :]]
        self._kept = [(o, m) for o, m in self._kept if m not in gone]
        return new
