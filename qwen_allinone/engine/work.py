"""Work: what a request wants computed, and what it makes of the logits. Free text, labels and vectors; see also
option_scoring.

The engine computes a work's `tokens`, chunk by chunk, and hands over the logits of the rows that each chunk wants. The
work reads them, changes its `tokens` and is computed again, until reading says that it has ended.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from qwen_allinone.engine.drafts import Drafter
from qwen_allinone.engine.forms import Form, only
from qwen_allinone.engine.label_trie import LabelScores, LabelTrie, share_of
from qwen_allinone.engine.sampling import Logprobs, Sampling, choose, logprobs_of
from qwen_allinone.model.attention import Chunk

# Hears of a token; true if it is to be the last.
OnToken = Callable[[int, Logprobs | None], bool | None]


class FinishReason(enum.StrEnum):
    """Why an answer ends. UNFINISHED is of one that was never given: its request ended with an error."""

    STOP = "stop"
    LENGTH = "length"
    LABEL = "label"
    UNFINISHED = "unfinished"


@dataclass(frozen=True)
class Result:
    """An answer in token ids; times in seconds. `scores` are those of ScoreOptions; `logprobs` are of each token, if
    they were asked for; `vector` is that of Embed. `label_mass` is the share of the whole vocabulary's probability that
    falls on the labels' first tokens, None where it was not asked for. `drafted_tokens` were guessed, and each of the
    `accepted_tokens` among them saved a step. `submitted` is when the engine was asked, a
    time.monotonic() value, 0 where it was not."""

    finish_reason: FinishReason
    ids: tuple[int, ...]
    prompt_tokens: int
    reused_tokens: int
    label: int | None = None
    probabilities: tuple[float, ...] = ()
    label_mass: float | None = None
    scores: tuple[tuple[float, ...], ...] = ()
    logprobs: tuple[Logprobs, ...] = ()
    vector: tuple[float, ...] = ()
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    queue_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    submitted: float = 0.0


class Work(Protocol):
    """One thing that a request wants of the model.

    `prompt` is what was given. `tokens` is what must be computed before the next logits. `sequence` is the part of
    `tokens`, from the first on, that is one sequence, so that other requests may reuse its keys and values.
    `most_tokens` is the most that `tokens` can become. `wanted_ids` are the tokens whose logits matter, None for all.
    `wants_states`: hidden states are wanted, and no logits.
    `weigh`, unless None, hears the logits of the whole vocabulary at the next wanted rows, [rows, tokens], before
    `read` gets those of `wanted_ids`.
    `adapter`: name of the one it is computed with.
    """

    prompt: tuple[int, ...]
    tokens: list[int]
    sequence: list[int]
    most_tokens: int
    wanted_ids: tuple[int, ...] | None
    wants_states: bool
    weigh: Callable[[Tensor], None] | None
    adapter: str | None

    def draft(self, most: int, price: float) -> Sequence[int]:
        """Guess what follows `tokens`, `most` tokens at most, whose rows cost `price` tokens each; often nothing.

        Asked before a chunk that ends with the last of `tokens`: the draft goes behind it, the rows of all are wanted.
        """

    def chunk(self, slot: int, start: int, end: int) -> Chunk:
        """`tokens[start:end]`, to be computed into `slot`, with the rows whose logits are wanted."""

    def read(self, logits: Tensor) -> FinishReason | None:
        """Take the logits of the next wanted rows, [rows, wanted_ids], or their hidden states, [rows, hidden], in
        order; say whether that was the end.

        May change `tokens`, but only after the last of them has been computed.
        """

    @property
    def ids(self) -> tuple[int, ...]:
        """The tokens of the answer so far."""

    def fields(self) -> dict[str, object]:
        """What else of the Result depends on the kind of work, at its end."""


class _Sequential:
    """Work whose tokens are one sequence, and whose next logits are those after the last token."""

    tokens: list[int]
    wants_states = False
    weigh: Callable[[Tensor], None] | None = None
    adapter: str | None = None

    def draft(self, most: int, price: float) -> Sequence[int]:
        return ()

    def chunk(self, slot: int, start: int, end: int) -> Chunk:
        wants_last = end == len(self.tokens)
        return Chunk(slot, start, self.tokens[start:end], wants_last=wants_last, adapter=self.adapter)


class Generate(_Sequential):
    """Free text: one token a step, and those of a draft that it confirms, until a stop id or the limit.

    Without a form the first is never a stop.

    `on_token` hears each token at once, with its log-probabilities where they are wanted, and the one for which it
    returns true is the last, as if a stop had followed. The engine's thread calls it, so it must not block or raise.
    A `form` says which tokens may come next.
    """

    wanted_ids: tuple[int, ...] | None = None

    def __init__(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        stop_ids: frozenset[int],
        on_token: OnToken | None = None,
        form: Form | None = None,
        adapter: str | None = None,
    ) -> None:
        self.adapter = adapter
        self.prompt = tuple(prompt)
        self.tokens = self.sequence = list(prompt)
        self.most_tokens = len(prompt) + sampling.max_new_tokens
        self._sampling = sampling
        self._stop_ids = stop_ids
        self._generator = sampling.generator()
        self._on_token = on_token
        self._form = form
        self._logprobs: list[Logprobs] = []
        self._drafter = Drafter()
        self._draft: Sequence[int] = ()
        self._price = 0.0

    def draft(self, most: int, price: float) -> Sequence[int]:
        left = self.most_tokens - len(self.tokens) - 1  # the row of a draft's last token gives one more
        draft = self._drafter.draft(self.tokens, min(most, left))
        stops = (place for place, token in enumerate(draft) if token in self._stop_ids)
        self._draft, self._price = draft[: next(stops, None)], price
        return self._draft

    def chunk(self, slot: int, start: int, end: int) -> Chunk:
        if not self._draft:
            return super().chunk(slot, start, end)
        tokens = [*self.tokens[start:end], *self._draft]
        return Chunk(slot, start, tokens, wants_last=1 + len(self._draft), adapter=self.adapter)

    def read(self, logits: Tensor) -> FinishReason | None:
        if not self._draft:
            return self._take(logits[0])
        draft, self._draft = self._draft, ()
        ended, accepted = self._take(logits[0]), 0
        for row, guess in zip(logits[1:], draft, strict=True):
            if ended or self.tokens[-1] != guess:
                break
            accepted += 1
            ended = self._take(row)
        self._drafter.judge(len(draft), accepted, self._price)
        return ended

    def _take(self, logits: Tensor) -> FinishReason | None:
        """The next token from `logits` [tokens]; says whether it is the last."""
        row = logits
        if self._form:
            row = only(row, self._form.allowed())
        elif len(self.tokens) == len(self.prompt):
            row = row.index_fill(0, torch.tensor(sorted(self._stop_ids), dtype=torch.long), -torch.inf)
        token = choose(row, self.tokens, self._sampling, self._generator, len(self.prompt))
        if token in self._stop_ids:
            return FinishReason.STOP
        self.tokens.append(token)
        told = None
        if self._sampling.logprobs is not None:
            told = logprobs_of(logits, token, self._sampling.logprobs)
            self._logprobs.append(told)
        heard_enough = self._on_token and self._on_token(token, told)
        if heard_enough or (self._form and self._form.take(token)):
            return FinishReason.STOP
        return FinishReason.LENGTH if len(self.tokens) >= self.most_tokens else None

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(self.tokens[len(self.prompt) :])

    def fields(self) -> dict[str, object]:
        drafter = self._drafter
        drafts = {"drafted_tokens": drafter.drafted, "accepted_tokens": drafter.accepted}
        return {"logprobs": tuple(self._logprobs), **drafts}


class Classify(_Sequential):
    """One of a set of labels, with a probability for each.

    With `wants_mass` the first tokens of the labels are weighed against the whole vocabulary: that takes its logits
    once, and a step more where all labels begin alike.
    """

    def __init__(
        self, prompt: Sequence[int], trie: LabelTrie, adapter: str | None = None, *, wants_mass: bool = False
    ) -> None:
        self.adapter = adapter
        self._trie = trie
        self._scores = LabelScores(trie)
        self._branches = iter([(), *(path for path in trie.branches if path)] if wants_mass else trie.branches)
        self._branch = next(self._branches)
        self._label: int | None = None
        self._mass: float | None = None
        self.weigh = self._weigh if wants_mass else None
        self.wanted_ids: tuple[int, ...] | None = trie.next_ids(self._branch)
        self.prompt = tuple(prompt)
        self.tokens = self.sequence = [*prompt, *self._branch]
        self.most_tokens = len(prompt) + trie.longest

    def read(self, logits: Tensor) -> FinishReason | None:
        if self._branch in self._trie.branches:
            self._scores.add(self._branch, logits[0])
        following = next(self._branches, None)
        if following is None:
            self._label = self._scores.greedy()
            return FinishReason.LABEL
        self._branch = following
        self.wanted_ids = self._trie.branches[following]
        self.tokens = self.sequence = [*self.prompt, *following]
        return None

    def _weigh(self, everything: Tensor) -> None:
        self._mass = share_of(self._trie.next_ids(()), everything[0])
        self.weigh = None

    @property
    def ids(self) -> tuple[int, ...]:
        return () if self._label is None else self._trie.labels[self._label]

    def fields(self) -> dict[str, object]:
        probabilities = self._scores.probabilities()
        return {"label": self._label, "probabilities": probabilities, "label_mass": self._mass}


class Embed(_Sequential):
    """The hidden state after the last token, as the head would read it: what the model makes of the whole prompt."""

    wanted_ids: tuple[int, ...] | None = None
    wants_states = True
    ids: tuple[int, ...] = ()

    def __init__(self, prompt: Sequence[int]) -> None:
        self.prompt = tuple(prompt)
        self.tokens = self.sequence = list(prompt)
        self.most_tokens = len(prompt)
        self._vector: tuple[float, ...] = ()

    def read(self, states: Tensor) -> FinishReason | None:
        self._vector = tuple(states[0].tolist())
        return FinishReason.STOP

    def fields(self) -> dict[str, object]:
        return {"vector": self._vector}
