"""The options of a question as a trie in flat arrays: memory grows with the options' tokens, not with their squares."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

ROOT = -1  # the end of the question, which all options follow


class OptionTrie:
    """Nodes are numbered in depth-first order, each after its parent; a node stands for the path that leads to it.

    `tokens` and `parents` have an entry for each node. `ends` has the node of each whole option, `inner` the nodes that
    something follows.
    """

    def __init__(self, options: Sequence[tuple[int, ...]]) -> None:
        self.tokens, self.parents, self.inner = array("i"), array("i"), array("i")
        self.ends = [ROOT] * len(options)
        self._first_child, self._next_sibling = array("i", [ROOT]), array("i")  # the first is the root's
        last_child = array("i", [ROOT])
        path = list[int]()
        for number in sorted(range(len(options)), key=options.__getitem__):
            for depth, token in enumerate(options[number]):
                if depth < len(path) and self.tokens[path[depth]] == token:
                    continue  # the option before begins so too
                del path[depth:]
                node, parent = len(self.tokens), path[-1] if path else ROOT
                self.tokens.append(token)
                self.parents.append(parent)
                for entries in (self._first_child, self._next_sibling, last_child):
                    entries.append(ROOT)
                if last_child[parent + 1] == ROOT:
                    self._first_child[parent + 1] = node
                    if parent != ROOT:
                        self.inner.append(parent)
                else:
                    self._next_sibling[last_child[parent + 1]] = node
                last_child[parent + 1] = node
                path.append(node)
            self.ends[number] = path[-1]

    def children(self, node: int) -> list[int]:
        """The nodes right behind `node`."""
        found, child = list[int](), self._first_child[node + 1]
        while child != ROOT:
            found.append(child)
            child = self._next_sibling[child]
        return found

    def path(self, node: int) -> list[int]:
        """The nodes from the root, which is not among them, to `node`."""
        nodes = list[int]()
        while node != ROOT:
            nodes.append(node)
            node = self.parents[node]
        return nodes[::-1]
