"""The threads behind the answers: one finds in notes what is worth keeping, and makes the vectors that are missing;
one erases what was forgotten, if the answer to that could not wait for it.

The first asks the engine as any request does, one thing at a time, when nobody else wants it. What it does is written
into the store in one step at its end, so it may be stopped or killed at any time: what is left is done by another
worker, or after the next start.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable

from qwen_allinone.errors import Cancelled, NotReady, QaioError, RequestError, ServerBusy, StoreUnavailable
from qwen_allinone.service.answer_types import Terms
from qwen_allinone.service.memories import LONGEST, one_line
from qwen_allinone.service.recall import vector_model, vector_of
from qwen_allinone.service.secret_text import TAKEN_OUT, has_secret
from qwen_allinone.service.service import Service
from qwen_allinone.state import Memory, MemoryStore, Note, Whose
from qwen_allinone.tasks import REMEMBER

log = logging.getLogger(__name__)

# How often it looks for what others have left behind, and waits after a failure; in seconds.
_LOOKS_EVERY_S = 5.0
# How often it looks whether the engine is idle, and after how long it takes its place in the line all the same.
_IDLE_LOOK_S, _PATIENCE_S = 0.05, 30.0
# A note is another's again when its holder must be dead: it waits, and then for one answer.
_HOLD_BEHIND_S = 60.0
# A note that fails so often, or whose process dies with it, is given up.
_MOST_TRIES = 5
_VECTORS_AT_ONCE = 16
# How often it looks whether there is something to erase, however busy the engine is.
_ERASES_EVERY_S = 2.0
# What the prompt has a model say where there is nothing to remember.
_NOTHING = frozenset({"无", "没有", "none", "无。", "none."})


class Keeper:
    """Works off what a store of memories has noted."""

    def __init__(self, service: Service, store: MemoryStore, *, deadline_s: float) -> None:
        self._service = service
        self._store = store
        self._hold_s = deadline_s + _PATIENCE_S + _HOLD_BEHIND_S
        self._stopping = threading.Event()
        self._woken = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory", daemon=True)
        self._eraser = threading.Thread(target=self._erase, name="erasing", daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._eraser.start()

    def wake(self) -> None:
        """There is something to do."""
        self._woken.set()

    def stop(self, timeout: float = 10.0) -> None:
        """End after what is in hand; what is left stays noted."""
        self._stopping.set()
        self._woken.set()
        ends = time.monotonic() + timeout
        for thread in (self._thread, self._eraser):
            if thread.is_alive():
                thread.join(max(ends - time.monotonic(), 0.0))

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._woken.clear()
            worked = False
            try:
                worked = self.work()
            except QaioError as error:  # busy, not ready, a store that cannot be used: said elsewhere
                log.debug("memory: %s: tried again later", type(error).__name__)
            except Exception:
                log.exception("memory: unexpected error; tried again later")
            if not worked:
                self._woken.wait(_LOOKS_EVERY_S)

    def _erase(self) -> None:
        while not self._stopping.is_set():
            try:
                self._store.erase()
            except QaioError as error:  # said elsewhere
                log.debug("memory: %s: erased later", type(error).__name__)
            except Exception:
                log.exception("memory: unexpected error; erased later")
            self._stopping.wait(_ERASES_EVERY_S)

    def work(self) -> bool:
        """Work off one note, or else some missing vectors; says whether there was anything."""
        model = vector_model(self._service.codec)  # without a model nothing is taken
        if note := self._store.take(self._hold_s):
            self._work_off(note)
            return True
        unread = self._store.unread(model, _VECTORS_AT_ONCE)
        for whose, memory in unread:
            if self._stopping.is_set():
                return False
            self._read(whose, memory, model)
        if not unread:
            self._store.tidy()
        return bool(unread)

    def _work_off(self, note: Note) -> None:
        if note.tries > _MOST_TRIES:
            log.error("memory: a note failed %d times and is given up", _MOST_TRIES)
            self._store.settle(note, [])
            return
        try:
            self._wait_until_idle()
            texts = statements(self._service.run(REMEMBER, {"text": note.text}, Terms(caller=note.whose.owner)).items)
        except RequestError:  # too long, or nothing left of it: it never will be better
            texts = []
        except StoreUnavailable:
            raise
        except QaioError as error:
            innocent = isinstance(error, ServerBusy | NotReady | Cancelled)
            self._store.put_back(note, _LOOKS_EVERY_S, tried=not innocent)
            raise
        self._store.settle(note, texts)

    def _read(self, whose: Whose, memory: Memory, model: str) -> None:
        self._wait_until_idle()
        with self._service.request(Terms(caller=whose.owner)) as request:
            if vector_model(request.codec) == model:
                self._store.put_vector(whose, memory, model, vector_of(request, memory.text))

    def _wait_until_idle(self) -> None:
        engine, ends = self._service.engine, time.monotonic() + _PATIENCE_S
        while engine.running + engine.waiting and time.monotonic() < ends and not self._stopping.is_set():
            self._stopping.wait(_IDLE_LOOK_S)


def statements(items: Iterable[str] | None) -> list[str]:
    """Those of a model's items that may be kept."""
    found = [one_line(item) for item in items or () if not has_secret(item) and TAKEN_OUT not in item]
    return [text for text in found if text.casefold() not in _NOTHING and 1 < len(text) <= LONGEST]
