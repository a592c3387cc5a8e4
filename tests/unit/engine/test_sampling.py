"""Sampling keeps the tokens that transformers keeps, with the same probabilities; seeds repeat."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from qwen_allinone.engine.sampling import Sampling, choose, nucleus


def some_logits(seed: int, size: int = 1000, spread: float = 3.0) -> Tensor:
    return spread * torch.randn(size, generator=torch.Generator().manual_seed(seed))


def ours(logits: Tensor, top_k: int, top_p: float) -> Tensor:
    """Probabilities over the whole vocabulary."""
    kept, ids = nucleus(logits, top_k, top_p)
    if ids is None:
        return kept
    return torch.zeros_like(logits).index_put((ids,), kept)


def theirs(logits: Tensor, seen: Sequence[int], sampling: Sampling) -> Tensor:
    """Probabilities after transformers' processors, in the order `generate` applies them."""
    from transformers import (
        LogitsProcessorList,
        RepetitionPenaltyLogitsProcessor,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    chain = LogitsProcessorList()
    if sampling.repetition_penalty != 1.0:
        chain.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    if sampling.temperature not in (0.0, 1.0):
        chain.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        chain.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1.0:
        chain.append(TopPLogitsWarper(sampling.top_p))
    scores = chain(torch.tensor([list(seen)]), logits[None].clone())
    return scores[0].softmax(-1)


@pytest.mark.parametrize("min_p", [0.01, 0.2, 1.0])
def test_min_p_keeps_the_tokens_that_transformers_keeps(min_p: float) -> None:
    from transformers import MinPLogitsWarper

    for seed in range(3):
        logits = some_logits(seed, 300, 2.0)
        kept = MinPLogitsWarper(min_p)(torch.tensor([[0]]), logits[None].clone())[0].softmax(-1).tolist()
        sampling = Sampling(1, temperature=1.0, min_p=min_p)
        generator = torch.Generator().manual_seed(seed)
        drawn = Counter(choose(logits, [], sampling, generator) for _ in range(3000))
        assert set(drawn) <= {token for token, share in enumerate(kept) if share > 0}
        for token, share in enumerate(kept):
            assert drawn[token] / 3000 == pytest.approx(share, abs=0.05)


def test_presence_and_frequency_look_at_the_reply_alone() -> None:
    logits, generator = torch.tensor([3.0, 2.5, 2.0, 0.0]), torch.Generator()

    def chosen(seen: list[int], prompt: int, **knobs: float) -> int:
        return choose(logits, seen, Sampling(1, **knobs), generator, prompt)  # type: ignore[arg-type]

    assert chosen([0, 0, 0], 3, presence_penalty=2.0) == 0, "it stands in the prompt only"
    assert chosen([0, 0, 0], 2, presence_penalty=0.6) == 1
    assert chosen([3, 0, 0], 1, presence_penalty=0.4) == 0, "once, however often it was said"
    assert chosen([3, 0, 0], 1, frequency_penalty=0.3) == 1, "twice 0.3"
    assert chosen([3, 0, 1], 1, frequency_penalty=2.0) == 2
    assert chosen([3, 3], 0, presence_penalty=-2.0, frequency_penalty=-0.6) == 3, "less than nothing: said again"


def test_a_bias_is_added_by_id() -> None:
    logits, generator = torch.tensor([3.0, 2.5, 2.0, 0.0]), torch.Generator()
    assert choose(logits, [], Sampling(1, logit_bias=((3, 3.5), (0, -1.0))), generator) == 3
    assert choose(logits, [], Sampling(1, logit_bias=((0, -100.0),)), generator) == 1
    assert logits.tolist() == [3.0, 2.5, 2.0, 0.0], "nobody else's logits change"


@pytest.mark.parametrize("top_k", [0, 1, 50, 5000])
@pytest.mark.parametrize("top_p", [0.01, 0.9, 0.999, 1.0])
@pytest.mark.parametrize(("size", "spread"), [(1000, 3.0), (1000, 0.1), (40, 1.0), (3000, 1.0)])
def test_the_kept_tokens_and_their_probabilities_are_those_of_transformers(
    top_k: int, top_p: float, size: int, spread: float
) -> None:
    for seed in range(3):
        logits = some_logits(seed, size, spread)
        expected = theirs(logits, [0], Sampling(1, temperature=1.0, top_k=top_k, top_p=top_p))
        torch.testing.assert_close(ours(logits, top_k, top_p), expected, atol=2e-6, rtol=1e-3)


@pytest.mark.parametrize(("temperature", "penalty"), [(0.01, 1.0), (0.3, 1.1), (0.7, 1.0), (1.0, 2.0), (2.0, 0.8)])
def test_temperature_and_repetition_penalty_are_those_of_transformers(temperature: float, penalty: float) -> None:
    """Frequencies of many draws against the probabilities that transformers' processors leave."""
    sampling = Sampling(1, temperature=temperature, top_p=0.95, top_k=20, repetition_penalty=penalty, seed=11)
    logits, seen = some_logits(4, 60, 2.0), [3, 3, 17, 40, 5]
    seen.append(int(logits.argmax()))
    draws = 1500
    generator = sampling.generator()
    counts = Counter(choose(logits, seen, sampling, generator) for _ in range(draws))
    check_frequencies(counts, theirs(logits, seen, sampling), draws)


def check_frequencies(counts: Counter[int], expected: Tensor, draws: int) -> None:
    """Each frequency within five standard deviations of its probability, and none outside the support."""
    for token, probability in enumerate(expected.tolist()):
        bound = 5 * math.sqrt(draws * probability * (1 - probability)) + (1 if probability > 0 else 0)
        assert abs(counts[token] - draws * probability) <= bound, f"token {token}, probability {probability}"


@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (0, 0.9), (4, 1.0), (7, 0.8)])
def test_frequencies_match_probabilities(top_k: int, top_p: float) -> None:
    sampling = Sampling(1, temperature=1.0, top_k=top_k, top_p=top_p, seed=5)
    logits, generator, draws = some_logits(1, 12, 1.5), sampling.generator(), 2000
    counts = Counter(choose(logits, [0], sampling, generator) for _ in range(draws))
    check_frequencies(counts, theirs(logits, [0], sampling), draws)


def draw(seed: int | None, count: int = 40) -> list[int]:
    sampling = Sampling(1, temperature=1.0, top_p=0.9, seed=seed)
    generator = sampling.generator()
    return [choose(some_logits(i), [0], sampling, generator) for i in range(count)]


def test_equal_seeds_draw_the_same_and_others_do_not() -> None:
    assert draw(7) == draw(7)
    assert draw(7) != draw(8)
    assert draw(None) != draw(None)


def test_a_seed_is_the_requests_own() -> None:
    """Neither torch's global seed nor another request's draws get in between."""
    expected = draw(7, count=20)
    one, other = (Sampling(1, temperature=1.0, top_p=0.9, seed=seed) for seed in (7, 8))
    generator, beside = one.generator(), other.generator()
    drawn = []
    for i in range(20):
        torch.manual_seed(i)
        choose(some_logits(i), [0], other, beside)
        drawn.append(choose(some_logits(i), [0], one, generator))
    assert drawn == expected


@pytest.mark.parametrize("seed", [0, 2**63, 2**64 - 1, -1, -(2**63)])
def test_any_64_bit_seed_will_do(seed: int) -> None:
    assert draw(seed, count=3) == draw(seed, count=3)


@pytest.mark.parametrize("penalty", [1.0, 1.3, 0.5])
def test_greedy_takes_the_likeliest(penalty: float) -> None:
    sampling = Sampling(1, repetition_penalty=penalty)
    for seed in range(20):
        logits = some_logits(seed, 50)
        seen = [int(logits.argmax()), 3, 3]
        expected = int(theirs(logits, seen, sampling).argmax())
        assert choose(logits, seen, sampling, sampling.generator()) == expected


@pytest.mark.parametrize("top_k", [0, 5])
@pytest.mark.parametrize("temperature", [1e-45, 1e-310, 1e-9])
def test_the_least_temperature_takes_the_likeliest(temperature: float, top_k: int) -> None:
    logits = torch.randn(500, generator=torch.Generator().manual_seed(2)) * 9
    sampling = Sampling(1, temperature=temperature, top_p=0.9, top_k=top_k, seed=4)
    assert choose(logits, [3], sampling, sampling.generator()) == int(logits.argmax())


def test_a_tiny_nucleus_keeps_the_likeliest_token() -> None:
    for top_k in (0, 9):
        kept, ids = nucleus(some_logits(0), top_k, 1e-9)
        assert kept.tolist() == [1.0] and ids is not None and ids.tolist() == [int(some_logits(0).argmax())]


def test_a_tiny_nucleus_is_found_though_nearly_every_draw_misses_it() -> None:
    logits = torch.zeros(1000)
    logits[321] = 0.01
    sampling = Sampling(1, temperature=1.0, top_p=1e-9, seed=3)
    generator = sampling.generator()
    assert {choose(logits, [0], sampling, generator) for _ in range(20)} == {321}


def test_flat_logits_need_the_whole_vocabulary() -> None:
    kept, ids = nucleus(torch.zeros(1000), 0, 0.75)
    assert ids is not None and len(set(ids.tolist())) == kept.numel()
    assert kept.numel() == pytest.approx(750, abs=1)


def test_the_logits_given_are_left_as_they_are() -> None:
    logits = some_logits(0)
    before = logits.clone()
    sampling = Sampling(1, temperature=0.5, top_k=9, top_p=0.5, repetition_penalty=1.5, seed=0)
    choose(logits, [1, 2, 3], sampling, sampling.generator())
    assert torch.equal(logits, before)
