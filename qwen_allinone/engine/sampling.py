"""How the next token is chosen from its logits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_TRIES = 16
_COLDEST = 1e-6  # below it a temperature is the same as 0, and might be 0 in FP32
_BLOCK = 64  # tokens


@dataclass(frozen=True)
class Sampling:
    """Knobs of one request, named as in transformers and OpenAI's API. `temperature` 0 is greedy.

    `top_k` 0, `top_p` 1 and `min_p` 0 keep every token; `min_p` is a share of the likeliest token's probability. The
    repetition penalty (CTRL, arXiv:1909.05858) looks at prompt and reply alike, as transformers does; presence and
    frequency penalty look at the reply alone: the first is taken once from the logit of each token in it, the second
    for each time. `logit_bias` is added to the logits of tokens, by id. Equal seeds give equal replies to equal
    prompts. `logprobs`: how many of the likeliest tokens to tell beside each that was chosen, None to tell nothing.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int | None = None
    logprobs: int | None = None

    def generator(self) -> torch.Generator:
        """The request's own source of randomness."""
        generator = torch.Generator()
        if self.seed is None:
            generator.seed()
        else:
            generator.manual_seed(self.seed)
        return generator


@dataclass(frozen=True)
class Logprobs:
    """Natural log-probabilities at one place: of the `token` that was chosen, and of the likeliest, those first."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


def logprobs_of(logits: Tensor, token: int, count: int) -> Logprobs:
    """Of `token` and the `count` likeliest, as the model has them: before temperature, penalties and forms."""
    values = logits.float().log_softmax(-1)
    best = torch.topk(values, min(count, values.numel()))
    top = tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))
    return Logprobs(token, float(values[token]), top)


def choose(logits: Tensor, seen: Sequence[int], sampling: Sampling, generator: torch.Generator, prompt: int = 0) -> int:
    """The next token from `logits` [vocab]; `seen` are the ids so far, of which the first `prompt` were given."""
    if sampling.logit_bias:
        biased, added = zip(*sampling.logit_bias, strict=True)
        logits = logits.index_add(0, torch.tensor(biased), torch.tensor(added, dtype=logits.dtype))
    if (sampling.presence_penalty or sampling.frequency_penalty) and len(seen) > prompt:
        logits = _less_of_what_was_said(logits, seen[prompt:], sampling)
    if sampling.repetition_penalty != 1.0:
        logits = _penalise(logits, seen, sampling.repetition_penalty)
    if sampling.temperature == 0.0:
        return int(logits.numpy().argmax())  # numpy's is many times faster than torch's
    logits = (logits - logits.max()) / max(sampling.temperature, _COLDEST)  # so that the likeliest stays at 0
    if sampling.min_p:
        logits = logits.masked_fill(logits < logits.max() + math.log(sampling.min_p), -math.inf)
    if not sampling.top_k:
        drawn = _draw(logits.softmax(-1), sampling.top_p, generator)
        if drawn is not None:
            return drawn
    kept, ids = nucleus(logits, sampling.top_k, sampling.top_p)
    pick = torch.multinomial(kept, 1, generator=generator)
    return int(pick) if ids is None else int(ids[pick])


def _draw(probabilities: Tensor, top_p: float, generator: torch.Generator) -> int | None:
    """A token drawn from those that top-p keeps, without sorting the vocabulary; None if _TRIES draws were in vain.

    Rejection sampling: a token is among the kept ones if those likelier than it weigh less than `top_p` together. At
    least `top_p` of the draws are kept, so one is mostly enough, and what is kept is spread as it should be.
    """
    cumulative = _block_sums(probabilities).cumsum(0)
    for _ in range(_TRIES):
        point = torch.rand(1, generator=generator, dtype=torch.float64) * cumulative[-1]
        token = _token_at(point, cumulative, probabilities)
        if top_p >= 1.0:
            return token
        likelier = F.threshold(probabilities, float(probabilities[token]), 0.0)
        if float(likelier.sum()) < top_p:
            return token
    return None


def _block_sums(probabilities: Tensor) -> Tensor:
    """Sums of each _BLOCK neighbours, the last block shorter: a running sum over all tokens would cost much more."""
    whole = probabilities.numel() // _BLOCK * _BLOCK
    blocks = probabilities[:whole].view(-1, _BLOCK).sum(-1, dtype=torch.float64)
    return torch.cat((blocks, probabilities[whole:].sum(dtype=torch.float64).view(1)))


def _token_at(point: Tensor, cumulative: Tensor, probabilities: Tensor) -> int:
    """The token in whose share of the running sum `point` [1] lies; `cumulative` is that sum at the blocks' ends."""
    block = _first_above(cumulative, point)
    before = cumulative[block - 1] if block else 0.0
    inside = probabilities[block * _BLOCK : (block + 1) * _BLOCK].cumsum(0, dtype=torch.float64)
    return block * _BLOCK + _first_above(inside, point - before)


def _first_above(cumulative: Tensor, point: Tensor) -> int:
    """Where a running sum first exceeds `point` [1]; by rounding it may not, then where it first reaches its end."""
    found = int(torch.searchsorted(cumulative, point, right=True))
    return found if found < cumulative.numel() else int(torch.searchsorted(cumulative, cumulative[-1:]))


def nucleus(logits: Tensor, top_k: int, top_p: float) -> tuple[Tensor, Tensor | None]:
    """Probabilities of the tokens that top-k, then top-p (arXiv:1904.09751) keep, and their ids.

    Ids are None when all tokens are kept, in order. The likeliest token is always kept.
    """
    if top_k:
        logits, ids = torch.topk(logits, min(top_k, logits.numel()))
        kept = _smallest_set(logits.softmax(-1), top_p)
        return kept, ids[: kept.numel()]
    probabilities = logits.softmax(-1)
    if top_p >= 1.0:
        return probabilities, None
    best, ids = torch.sort(probabilities, descending=True)
    kept = _smallest_set(best, top_p)
    return kept, ids[: kept.numel()]


def _smallest_set(probabilities: Tensor, top_p: float) -> Tensor:
    """The first of `probabilities` (descending) that reach `top_p`, made to sum to 1."""
    cumulative = probabilities.cumsum(-1)
    size = max(1, int((cumulative - probabilities < top_p).sum()))
    kept = probabilities[:size]
    return kept / kept.sum()


def _less_of_what_was_said(logits: Tensor, said: Sequence[int], sampling: Sampling) -> Tensor:
    ids, counts = torch.unique(torch.tensor(said), return_counts=True)
    return logits.index_add(0, ids, -(sampling.presence_penalty + sampling.frequency_penalty * counts).to(logits.dtype))


def _penalise(logits: Tensor, seen: Sequence[int], penalty: float) -> Tensor:
    ids = torch.tensor(sorted(set(seen)))
    scores = logits[ids]
    return logits.index_put((ids,), torch.where(scores < 0, scores * penalty, scores / penalty))
