"""Forms: what an answer's tokens must be so that its text follows a grammar (llguidance)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from llguidance import LLMatcher, LLTokenizer

from qwen_allinone.json_schema import LIMITS
from qwen_allinone.model.tokenizer import Tokenizer

Found = TypeVar("Found")

# Time of the engine's thread that one answer may take to follow its grammar: so much in all, or so much a token if that
# is more. An ordinary schema takes a tenth of that; others wait for each step meanwhile.
MOST_S, MOST_TOKEN_S = 0.06, 0.0006


class GrammarForm:
    """An answer on its way through a grammar: the engine's `Form`. For one answer."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher
        self._spent_s, self._tokens = 0.0, 0
        self._is_slow = False

    def allowed(self) -> bytes:
        """A bit for each token, the lowest bit of the first byte is token 0: whether it may come next."""
        return self._timed(self._matcher.compute_bitmask)

    def take(self, token: int) -> bool:
        """Go on with `token`; whether the text is whole, so that nothing may follow."""
        self._tokens += 1
        self._timed(lambda: self._matcher.consume_token(token))
        if self._matcher.is_stopped():  # also where it has failed
            return True
        self._is_slow = self._spent_s > max(MOST_S, MOST_TOKEN_S * self._tokens)
        return self._is_slow

    @property
    def problem(self) -> str:
        """Why it had to be given up: following the grammar took too much; empty if it had not."""
        return "it takes too long" if self._is_slow else self._matcher.get_error()

    def _timed(self, call: Callable[[], Found]) -> Found:
        """By this thread's own clock, so that a busy machine refuses nothing."""
        began = time.thread_time()
        found = call()
        self._spent_s += time.thread_time() - began
        return found


class Forms:
    """Makes forms for the tokens of one checkpoint, in the caller's thread. Thread-safe.

    Each answer has a matcher of its own, which mostly takes a millisecond to build: copies of one share the states of
    their lexer, and with them its bounds and faults, so that one caller's answers could spoil another's.
    """

    def __init__(self, tokenizer: Tokenizer, stop_ids: frozenset[int]) -> None:
        self._source, self._stop_ids = tokenizer, sorted(stop_ids)
        self._tokenizer: LLTokenizer | None = None  # takes time and memory, which only those pay who ask for a form
        self._lock = threading.Lock()

    def begin(self, grammar: str) -> GrammarForm:
        """The form of an answer that follows `grammar`, at its beginning."""
        with self._lock:
            if self._tokenizer is None:
                self._tokenizer = LLTokenizer(self._source.definition, eos_token=self._stop_ids)
        return GrammarForm(LLMatcher(self._tokenizer, grammar, log_level=0, limits=LIMITS))
