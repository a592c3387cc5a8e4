"""What is asked of the engine and how it is answered. Every request ends exactly once."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from qwen_allinone.engine.labels import LabelScores, LabelTrie
from qwen_allinone.engine.sampling import Sampling, choose


class FinishReason(enum.StrEnum):
    """Why a request ended well. The other ends are errors: Cancelled, DeadlineExceeded, EngineFailed, NotReady."""

    STOP = "stop"
    LENGTH = "length"
    LABEL = "label"


@dataclass(frozen=True)
class Result:
    """An answer in token ids; times in seconds."""

    finish_reason: FinishReason
    ids: tuple[int, ...]
    prompt_tokens: int
    reused_tokens: int
    label: int | None = None
    probabilities: tuple[float, ...] = ()
    queue_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0

    @property
    def inter_token_s(self) -> float | None:
        """Mean time between two tokens; the stop token was waited for too. None for labels and single tokens."""
        steps = len(self.ids) - (self.finish_reason is not FinishReason.STOP)
        return self.decode_s / steps if steps > 0 and self.label is None else None


class Work(Protocol):
    """What a request wants computed: the engine computes `tokens`, then hands over logits and asks again."""

    prompt: tuple[int, ...]
    tokens: list[int]  # prompt and all that was chosen since; the slot is brought up to this

    @property
    def wanted_ids(self) -> tuple[int, ...] | None:
        """Tokens whose logits matter after the last of `tokens`; None for the whole vocabulary."""

    @property
    def most_tokens(self) -> int:
        """The most `tokens` can become."""

    def accept(self, logits: Tensor) -> FinishReason | None:
        """Take logits [wanted] and say whether that was the end."""

    def fields(self) -> dict[str, object]:
        """The part of the Result that depends on the kind of work."""


class Generate:
    """Free text: one token a step until a stop id or the limit. The first is never a stop: no answer is empty.

    `on_token` hears each token at once, and the one for which it returns true is the last, as if a stop had followed.
    The engine's thread calls it, so it must not block or raise.
    """

    wanted_ids: tuple[int, ...] | None = None

    def __init__(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        stop_ids: frozenset[int],
        on_token: Callable[[int], bool | None] | None = None,
    ) -> None:
        self.prompt = tuple(prompt)
        self.tokens = list(prompt)
        self._sampling = sampling
        self._stop_ids = stop_ids
        self._generator = sampling.generator()
        self._on_token = on_token

    @property
    def most_tokens(self) -> int:
        return len(self.prompt) + self._sampling.max_new_tokens

    def accept(self, logits: Tensor) -> FinishReason | None:
        if len(self.tokens) == len(self.prompt):
            logits = logits.index_fill(0, torch.tensor(sorted(self._stop_ids), dtype=torch.long), -torch.inf)
        token = choose(logits, self.tokens, self._sampling, self._generator)
        if token in self._stop_ids:
            return FinishReason.STOP
        self.tokens.append(token)
        if self._on_token and self._on_token(token):
            return FinishReason.STOP
        return FinishReason.LENGTH if len(self.tokens) >= self.most_tokens else None

    def fields(self) -> dict[str, object]:
        return {"ids": tuple(self.tokens[len(self.prompt) :])}


class Classify:
    """One of a set of labels, with a probability for each."""

    def __init__(self, prompt: Sequence[int], trie: LabelTrie) -> None:
        self.prompt = tuple(prompt)
        self._trie = trie
        self._scores = LabelScores(trie)
        self._branches = trie.branches()
        self._branch = self._branches.pop(0)
        self.tokens = [*prompt, *self._branch]

    @property
    def wanted_ids(self) -> tuple[int, ...] | None:
        return self._trie.next_ids(self._branch)

    @property
    def most_tokens(self) -> int:
        return len(self.prompt) + max(len(label) for label in self._trie.labels)

    def accept(self, logits: Tensor) -> FinishReason | None:
        self._scores.add(self._branch, logits)
        if not self._branches:
            return FinishReason.LABEL
        self._branch = self._branches.pop(0)
        self.tokens = [*self.prompt, *self._branch]
        return None

    def fields(self) -> dict[str, object]:
        label = self._scores.greedy()
        return {"label": label, "ids": self._trie.labels[label], "probabilities": self._scores.probabilities()}


@dataclass(eq=False)
class Ticket:
    """One request on its way through the engine. The caller waits on `future` and may `cancel`.

    `deadline` is a time.monotonic() value, None for no limit.
    """

    work: Work
    deadline: float | None = None
    place: int = 0  # the older request's is lower, see Permit
    future: Future[Result] = field(default_factory=Future)
    cancelled: bool = False
    submitted: float = field(default_factory=time.monotonic)
    admitted: float = 0.0
    first_token: float = 0.0
    reused: int = 0

    def __post_init__(self) -> None:
        # From here on `future.cancel()` does nothing: a future that ended twice would take a whole step with it.
        self.future.set_running_or_notify_cancel()

    def cancel(self) -> None:
        """Ask the engine to stop working on this; takes effect within two steps."""
        self.cancelled = True

    def expired(self, now: float) -> bool:
        return self.deadline is not None and now >= self.deadline

    def result(self, reason: FinishReason) -> Result:
        """The answer as it stands now."""
        now = time.monotonic()
        fields = {
            "finish_reason": reason,
            "prompt_tokens": len(self.work.prompt),
            "reused_tokens": self.reused,
            "queue_s": self.admitted - self.submitted,
            "prefill_s": self.first_token - self.admitted,
            "decode_s": now - self.first_token,
        } | self.work.fields()
        return Result(**fields)  # type: ignore[arg-type]

    def finish(self, result: Result) -> None:
        """End with an answer."""
        with suppress(InvalidStateError):  # ended by another thread while its last step ran
            self.future.set_result(result)

    def fail(self, error: Exception) -> None:
        """End with a typed error. The first end counts."""
        with suppress(InvalidStateError):
            self.future.set_exception(error)
