"""Forms: what an answer's tokens must be so that its text follows a grammar (llguidance)."""

from __future__ import annotations

import threading
from collections import OrderedDict

from llguidance import LLMatcher, LLTokenizer

from qwen_allinone.json_schema import LIMITS
from qwen_allinone.model.tokenizer import Tokenizer

_KEPT = 64  # grammars


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
    def is_whole(self) -> bool:
        """Whether what has come is a whole text of the grammar."""
        return self._matcher.is_accepting() and not self._matcher.is_error()

    @property
    def problem(self) -> str:
        """Why it had to be given up: following the grammar took too much; empty if it had not."""
        return self._matcher.get_error()


class Forms:
    """Makes forms for the tokens of one checkpoint. Thread-safe. Grammars are built in the caller's thread."""

    def __init__(self, tokenizer: Tokenizer, stop_ids: frozenset[int]) -> None:
        self._source, self._stop_ids = tokenizer, sorted(stop_ids)
        self._tokenizer: LLTokenizer | None = None  # takes time and memory, which only those pay who ask for a form
        self._built: OrderedDict[str, LLMatcher] = OrderedDict()
        self._lock = threading.Lock()

    def begin(self, grammar: str) -> GrammarForm:
        """The form of an answer that follows `grammar`, at its beginning."""
        with self._lock:
            matcher = self._built.get(grammar)
            tokenizer = self._tokenizer or LLTokenizer(self._source.definition, eos_token=self._stop_ids)
            self._tokenizer = tokenizer
        if matcher is None:
            matcher = LLMatcher(tokenizer, grammar, log_level=0, limits=LIMITS)
        with self._lock:
            self._built[grammar] = matcher
            self._built.move_to_end(grammar)
            while len(self._built) > _KEPT:
                self._built.popitem(last=False)
            return GrammarForm(matcher.deep_copy())
