"""Forms: what an answer's tokens must be so that its text follows a grammar (llguidance)."""

from __future__ import annotations

import threading

from llguidance import LLMatcher, LLTokenizer

from qwen_allinone.json_schema import LIMITS
from qwen_allinone.model.tokenizer import Tokenizer


class GrammarForm:
    """An answer on its way through a grammar: the engine's `Form`. For one answer."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    def allowed(self) -> bytes:
        """A bit for each token, the lowest bit of the first byte is token 0: whether it may come next."""
        return self._matcher.compute_bitmask()

    def take(self, token: int) -> bool:
        """Go on with `token`; whether the text is whole, so that nothing may follow."""
        self._matcher.consume_token(token)
        return self._matcher.is_stopped()  # also where it has failed

    @property
    def problem(self) -> str:
        """Why it had to be given up: following the grammar took too much; empty if it had not."""
        return self._matcher.get_error()


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
