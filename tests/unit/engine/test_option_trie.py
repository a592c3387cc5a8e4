"""The trie of options against a dictionary of their beginnings."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_allinone.engine import Question, ScoreOptions
from qwen_allinone.engine.option_trie import ROOT, OptionTrie

OPTIONS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=6).map(tuple), min_size=1, max_size=12)


@given(OPTIONS)
def test_every_beginning_is_one_node_behind_its_own_beginning(options: list[tuple[int, ...]]) -> None:
    trie = OptionTrie(options)
    beginnings = {option[:depth] for option in options for depth in range(1, len(option) + 1)}
    paths = {tuple(trie.tokens[n] for n in trie.path(node)): node for node in range(len(trie.tokens))}
    assert paths.keys() == beginnings
    assert [trie.ends[number] for number in range(len(options))] == [paths[option] for option in options]
    for node in range(len(trie.tokens)):
        assert trie.parents[node] < node
        longer = {b for b in beginnings if len(b) > 1 and paths[b[:-1]] == node}
        assert {paths[b] for b in longer} == set(trie.children(node))
        assert (node in trie.inner) == bool(longer)
    assert list(trie.inner) == sorted(set(trie.inner)), "each once, after its parent"
    assert set(trie.children(ROOT)) == {paths[b] for b in beginnings if len(b) == 1}


@pytest.mark.parametrize("shared", [False, True])
def test_memory_grows_with_the_tokens_and_not_with_their_squares(shared: bool) -> None:
    def peak(length: int) -> int:
        options = tuple(tuple([5] * (length - 1) + [n] if shared else [n] + [5] * (length - 1)) for n in range(60))
        tracemalloc.start()
        ScoreOptions([1, 2], [Question((3,), options)], 1536)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(1200) < 3 * peak(600)
    assert peak(1200) < 60 * 1200 * 200
