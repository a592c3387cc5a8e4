"""The options of a question as a trie in flat arrays: memory grows with the options' tokens, not with their squares."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from qwen_allinone.engine.slots import common_prefix

ROOT = -1  # the end of the question, which all options follow


class OptionTrie:
    """Nodes are numbered in depth-first order, each after its parent; a node stands for the path that leads to it.

    `tokens` and `parents` have an entry for each node. `ends` has the node of each whole option.
    """

    def __init__(self, options: Sequence[tuple[int, ...]]) -> None:
        self.tokens, self.parents = array("i"), array("i")
        self.ends = [ROOT] * len(options)
        self._first_child, self._next_sibling = array("i", [ROOT]), array("i")  # the first is the root's
        last_child = array("i", [ROOT])
        path, before = list[int](), tuple[int, ...]()
        for number in sorted(range(len(options)), key=options.__getitem__):
            option = options[number]
            shared = common_prefix(before, option)
            del path[shared:]
            for token in option[shared:]:
                node, parent = len(self.tokens), path[-1] if path else ROOT
                self.tokens.append(token)
                self.parents.append(parent)
                for entries in (self._first_child, self._next_sibling, last_child):
                    entries.append(ROOT)
                if last_child[parent + 1] == ROOT:
                    self._first_child[parent + 1] = node
                else:
                    self._next_sibling[last_child[parent + 1]] = node
                last_child[parent + 1] = node
                path.append(node)
            self.ends[number] = path[-1]
            before = option

    def __len__(self) -> int:
        return len(self.tokens)

    def children(self, node: int) -> list[int]:
        """The nodes right behind `node`."""
        found, child = list[int](), self._first_child[node + 1]
        while child != ROOT:
            found.append(child)
            child = self._next_sibling[child]
        return found

    def is_inner(self, node: int) -> bool:
        """Whether anything follows `node`."""
        return self._first_child[node + 1] != ROOT

    def path(self, node: int) -> list[int]:
        """The nodes from the root, which is not among them, to `node`."""
        nodes = list[int]()
        while node != ROOT:
            nodes.append(node)
            node = self.parents[node]
        return nodes[::-1]
