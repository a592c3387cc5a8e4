"""Decoding over a trie of labels agrees with scoring every label the slow way."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qwen_allinone.engine import Classify, FinishReason, LabelTrie
from qwen_allinone.engine.label_trie import LabelScores
from tests.support.fake_model import Bench, classify, expected_label, fake_logits

Labels = list[tuple[int, ...]]


def free_of_prefixes(labels: Labels) -> bool:
    return not any(a is not b and b[: len(a)] == a for a in labels for b in labels)


# Few different tokens, so that labels share beginnings and have forced tokens in between.
LABELS = (
    st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=5).map(tuple), min_size=2, max_size=7, unique=True)
    .filter(free_of_prefixes)
)  # fmt: skip
PROMPTS = st.lists(st.integers(0, 96), min_size=1, max_size=6)


def decide(work: Classify) -> int:
    """Answer the work with the fake model's logits until it ends; returns the number of passes."""
    for passes in range(1, 50):
        wanted = work.wanted_ids
        assert wanted is not None and len(wanted) > 1, "a pass is only worth its price where there is a choice"
        reason = work.read(fake_logits(work.tokens)[None, list(wanted)])
        if reason is not None:
            assert reason is FinishReason.LABEL
            return passes
    raise AssertionError("it never ends")


def brute_force(prompt: Sequence[int], labels: Labels) -> list[float]:
    """Probability of each label, token by token, among the tokens that any label allows there."""
    out = []
    for label in labels:
        probability = 1.0
        for depth, token in enumerate(label):
            allowed = sorted(
                {other[depth] for other in labels if other[:depth] == label[:depth] and len(other) > depth}
            )
            scores = fake_logits([*prompt, *label[:depth]])[allowed].double().softmax(-1)
            probability *= float(scores[allowed.index(token)])
        out.append(probability)
    return out


@given(LABELS, PROMPTS)
def test_probabilities_and_label_equal_brute_force(labels: Labels, prompt: list[int]) -> None:
    work = classify(prompt, labels)
    passes = decide(work)
    fields = work.fields()
    probabilities = fields["probabilities"]
    assert isinstance(probabilities, tuple)
    assert math.isclose(sum(probabilities), 1.0, abs_tol=1e-5)
    assert probabilities == pytest.approx(brute_force(prompt, labels), abs=1e-5)
    assert fields["label"] == expected_label(prompt, labels)
    assert work.ids == labels[expected_label(prompt, labels)]
    assert passes == len(LabelTrie(tuple(labels)).branches)


@given(LABELS, PROMPTS)
def test_the_mass_is_the_share_of_all_first_tokens_and_changes_nothing_else(labels: Labels, prompt: list[int]) -> None:
    bench = Bench()
    plain = bench.submit(classify(prompt, labels))
    weighed = bench.submit(Classify(prompt, LabelTrie(tuple(labels)), wants_mass=True))
    bench.run()
    one, other = plain.future.result(0), weighed.future.result(0)
    expected = float(fake_logits(prompt).double().softmax(-1)[sorted({label[0] for label in labels})].sum())
    assert one.label_mass is None and other.label_mass == pytest.approx(expected, rel=1e-6)
    assert (one.label, one.ids) == (other.label, other.ids)
    assert one.probabilities == pytest.approx(other.probabilities, abs=1e-6)


def test_labels_that_begin_alike_take_one_step_more_for_their_mass() -> None:
    alike = LabelTrie(((1, 5), (1, 6)))
    for wants_mass, steps in ((False, 1), (True, 2)):
        bench = Bench()
        bench.submit(Classify([9, 8], alike, wants_mass=wants_mass))
        bench.run()
        assert len(bench.model.steps) == steps


@given(LABELS)
def test_every_label_and_nothing_else_can_be_spelled(labels: Labels) -> None:
    trie = LabelTrie(tuple(labels))
    spelled, open_paths = [], [()]
    while open_paths:
        path = open_paths.pop()
        following = trie.next_ids(path)
        if not following:
            spelled.append(path)
        open_paths += [(*path, token) for token in following]
    assert sorted(spelled) == sorted(labels)


@given(LABELS)
def test_branches_are_where_there_is_a_choice_shorter_paths_first(labels: Labels) -> None:
    trie = LabelTrie(tuple(labels))
    branches = list(trie.branches)
    beginnings = {label[:depth] for label in labels for depth in range(len(label))}
    assert set(branches) == {path for path in beginnings if len(trie.next_ids(path)) > 1}
    assert len(branches) == len(set(branches))
    for number, path in enumerate(branches):
        assert not any(later == path[: len(later)] for later in branches[number + 1 :])


@pytest.mark.parametrize(
    ("labels", "passes"),
    [
        ([(1,), (2,), (3,)], 1),
        ([(1, 5, 6), (2, 7)], 1),
        ([(1, 5), (1, 6)], 1),
        ([(1, 5), (1, 6), (2,)], 2),
        ([(1, 2, 5), (1, 2, 6), (1, 3, 5), (1, 3, 6)], 3),
        ([(4, 4, 4, 4, 1), (4, 4, 4, 4, 2)], 1),
    ],
    ids=["different first tokens", "forced tails", "a shared first token", "some share", "two levels", "a long shared beginning"],
)  # fmt: skip
def test_only_choices_cost_a_pass(labels: Labels, passes: int) -> None:
    assert decide(classify([9, 8], labels)) == passes


def test_the_first_pass_stands_behind_what_all_labels_share() -> None:
    work = classify([9, 8], [(4, 4, 1), (4, 4, 2)])
    assert work.tokens == [9, 8, 4, 4]
    assert work.wanted_ids == (1, 2)


def test_a_request_never_needs_more_than_it_promised() -> None:
    labels = [(1, 2, 3, 4), (1, 2, 5), (6,)]
    work = classify([9, 8], labels)
    longest = 0
    for _ in range(5):
        longest = max(longest, len(work.tokens))
        assert work.wanted_ids is not None
        if work.read(fake_logits(work.tokens)[None, list(work.wanted_ids)]):
            break
    assert longest < work.most_tokens == 2 + 4


def test_greedy_follows_the_likeliest_token_not_the_likeliest_label() -> None:
    """0.6 for the first token, then 0.5 each: the label is (1, _) although (2,) has the most probability."""
    trie = LabelTrie(((1, 5), (1, 6), (2,)))
    scores = LabelScores(trie)
    scores.add((), torch.tensor([0.6, 0.4]).log())
    scores.add((1,), torch.tensor([0.5001, 0.4999]).log())
    assert scores.greedy() == 0
    assert scores.probabilities() == pytest.approx((0.30006, 0.29994, 0.4), abs=1e-6)


def test_extreme_logits_give_probabilities_all_the_same() -> None:
    scores = LabelScores(LabelTrie(((1,), (2,), (3,))))
    scores.add((), torch.tensor([3e38, -3e38, 0.0]))
    assert scores.probabilities() == (1.0, 0.0, 0.0)
    assert scores.greedy() == 0


@pytest.mark.parametrize(
    "labels",
    [
        [(1,), (1, 2)],
        [(1, 2), (1,)],
        [(1, 2), (3,), (1, 2)],
        [(), (1,)],
        [(1, 2, 3), (4,), (1, 2)],
    ],
)
def test_a_label_that_begins_another_is_refused(labels: Labels) -> None:
    with pytest.raises(ValueError, match="beginning of another label"):
        LabelTrie(tuple(labels))


@given(st.lists(st.lists(st.integers(0, 2), max_size=4).map(tuple), min_size=2, max_size=6))
def test_exactly_the_label_sets_free_of_prefixes_are_taken(labels: Labels) -> None:
    good = all(labels) and len(set(labels)) == len(labels) and free_of_prefixes(labels)
    try:
        LabelTrie(tuple(labels))
    except ValueError:
        assert not good
    else:
        assert good


@pytest.mark.parametrize("labels", [[], [(1, 2)]])
def test_fewer_than_two_labels_are_no_choice(labels: Labels) -> None:
    with pytest.raises(ValueError, match="two labels"):
        LabelTrie(tuple(labels))
