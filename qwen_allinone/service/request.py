"""The one door to the engine: an admitted request, and the four things it may ask."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial

from qwen_allinone.engine import (
    Classify,
    Embed,
    Engine,
    FinishReason,
    Form,
    Generate,
    LabelTrie,
    Permit,
    Result,
    Sampling,
    Ticket,
    Work,
)
from qwen_allinone.errors import DeadlineExceeded
from qwen_allinone.service.answer_types import Answer, Terms
from qwen_allinone.service.codec import Codec
from qwen_allinone.service.reply import Replies

# How long a caller waits past its deadline for the engine to say so itself.
_GRACE_S = 2.0
# How much of one request is computed together.
MOST_AT_ONCE = 4


class Request:
    """One request, from admission to its end, however much it asks: a chat is not turned away between its two halves.

    Comes from Service.request. What is asked is checked before, in tokens; `codec` makes them. `name` is what
    telemetry calls the answer. Everything raises ServiceError: busy, not ready, too late, failed, given up; what was
    computed until then is noted in the terms' `answers`.
    """

    def __init__(self, engine: Engine[Codec], permit: Permit[Codec], terms: Terms) -> None:
        self.codec = permit.published
        self.permit = permit
        self.terms = terms
        self._engine = engine
        self._is_new = True

    def generate(
        self,
        name: str,
        prompt: Sequence[int],
        sampling: Sampling,
        reply: Replies | None = None,
        form: Form | None = None,
        adapter: str | None = None,
    ) -> Result:
        """Text after `prompt`, free or of a form; `reply` hears of it as it is made."""
        return self.generate_all(name, [(prompt, sampling, form)], reply, adapter)[0]

    def generate_all(
        self,
        name: str,
        asked: Sequence[tuple[Sequence[int], Sampling, Form | None]],
        replies: Replies | None = None,
        adapter: str | None = None,
    ) -> list[Result]:
        """A text after each prompt, free or of a form; `replies` hear of them. Others find a slot beside them."""
        works = list[tuple[str, Work]]()
        for number, (prompt, sampling, form) in enumerate(asked):
            heard = partial(replies.hear, number) if replies else None
            works.append((name, Generate(prompt, sampling, self.codec.stop_ids, heard, form, adapter)))
        return self._in_groups(works, replies)

    def classify(self, name: str, prompt: Sequence[int], trie: LabelTrie, adapter: str | None = None) -> Result:
        """One of the labels of `trie` after `prompt`, and a probability for each."""
        return self.classify_all({name: (prompt, trie, adapter)})[name]

    def classify_all(self, asked: Mapping[str, tuple[Sequence[int], LabelTrie, str | None]]) -> dict[str, Result]:
        """The same for several prompts, by name: all are with the engine before one is waited for."""
        mass = self.terms.weighs_labels
        works = [
            (name, Classify(prompt, trie, adapter, wants_mass=mass)) for name, (prompt, trie, adapter) in asked.items()
        ]
        return dict(zip(asked, self._compute(works), strict=True))

    def compute(self, name: str, works: Sequence[Work]) -> list[Result]:
        """What others have made ready, in order; others find a slot beside it."""
        return self._in_groups([(name, work) for work in works])

    def embed(self, prompt: Sequence[int]) -> Result:
        """The hidden state after `prompt`, see Embed."""
        return self.embed_all("embed", [prompt])[0]

    def embed_all(self, name: str, prompts: Sequence[Sequence[int]]) -> list[Result]:
        """The hidden state after each prompt, see Embed. Others find a slot beside them."""
        return self.compute(name, [Embed(prompt) for prompt in prompts])

    def piece(self) -> AbstractContextManager[None]:
        """For one of many pieces of work in Python, as encoding a text is: see Pace."""
        return self._engine.pace.piece(self.permit.caller)

    def _in_groups(self, works: Sequence[tuple[str, Work]], replies: Replies | None = None) -> list[Result]:
        """The results of all, in order; others find a slot beside them. What was done before one failed is noted."""
        results = list[Result]()
        try:
            while len(results) < len(works):
                first = len(results)
                results += self._compute(works[first : first + MOST_AT_ONCE], replies, first)
        except Exception:
            for (name, _), result in zip(works, results, strict=False):
                lost = replace(result, finish_reason=FinishReason.UNFINISHED)
                self.terms.answers.append(Answer(name, lost, model_id=self.codec.model_id))
            raise
        return results

    def _compute(
        self, works: Sequence[tuple[str, Work]], replies: Replies | None = None, first: int = 0
    ) -> list[Result]:
        """The results of all, in order. `replies` are made of them, from number `first` on."""
        tickets: list[Ticket] = []
        try:
            for _, work in works:
                tickets.append(self._engine.submit(work, permit=self.permit))
            if self._is_new and self.terms.listener:
                self.terms.listener.submitted()
            self._is_new = False
            ends = max(self.permit.deadline, time.monotonic()) + _GRACE_S
            if replies:
                replies.follow(tickets, ends, first)
            return [ticket.future.result(timeout=max(ends - time.monotonic(), 0.0)) for ticket in tickets]
        except Exception as error:
            for (name, _), ticket in zip(works, tickets, strict=False):
                if unfinished := ticket.unfinished():
                    self.terms.answers.append(Answer(name, unfinished, model_id=self.codec.model_id))
            if isinstance(error, TimeoutError):
                # The engine ends expired requests itself; it did not, so it is stuck in a step.
                raise DeadlineExceeded() from None
            raise
