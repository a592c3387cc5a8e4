"""Many questions about one text, each with options to choose from: scored in one slot, over one copy of the text.

The text's keys and values are computed once. Behind them come the questions, several in a forward pass (a round). The
tokens of a question and of its options form a tree, and every path through the tree is read as if it followed the text
alone. What questions have in common at their start is computed once, and so it is with options. An option's last token
needs no pass: its own logits come from the token before it.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from qwen_allinone.engine.option_trie import ROOT, OptionTrie
from qwen_allinone.engine.slots import common_prefix
from qwen_allinone.engine.work import FinishReason
from qwen_allinone.model.attention import Chunk, Tree

# Tokens of questions computed together, if more than one question: about a forward pass.
_ROUND = 256
_SEEN = b"\1"


@dataclass(frozen=True)
class Question:
    """What follows the text, and the options' token ids, one at least in each. Options may share prefixes."""

    ids: tuple[int, ...]
    options: tuple[tuple[int, ...], ...]

    @property
    def longest(self) -> int:
        """Tokens of the question with its longest option, all that must be there at once."""
        return len(self.ids) + max(map(len, self.options)) - 1


@dataclass(frozen=True)
class _Node:
    """One token of a round. `parent`: slot index of the preceding token. `position`: its rotary position.

    `scored` is the node of the question's trie whose children are to be scored here: the root at the end of the
    question itself, None where nothing is scored. `ends_question`: the options come next.
    """

    question: int
    token: int
    parent: int
    position: int
    scored: int | None
    ends_question: bool = False


class ScoreOptions:
    """Scores each option of each question: the log-probability of all its tokens after the text and the question.

    The Result's `scores` are these sums, for each question in the order of its options. Nothing is generated.
    """

    wanted_ids: tuple[int, ...] | None = None
    wants_states = False
    weigh: Callable[[Tensor], None] | None = None
    ids: tuple[int, ...] = ()
    adapter: str | None = None

    def __init__(self, text: Sequence[int], questions: Sequence[Question], longest: int) -> None:
        """`longest`: tokens that a slot holds. A question with one of its options may still be longer, see
        `Question.longest`."""
        if not text or not questions:
            raise ValueError("something to read and a question are needed")
        if not all([question.ids and question.options and all(question.options) for question in questions]):
            raise ValueError("a question needs tokens, and so does each of its options")
        self._text = list(text)
        self.prompt = (*text, *(token for question in questions for token in question.ids))
        self._questions = questions
        self._tries = [OptionTrie(question.options) for question in questions]
        self._found = [array("d", [0.0]) * len(trie.tokens) for trie in self._tries]  # log-probability of each node
        self._rounds = _rounds(questions, self._tries, longest - len(text))
        self.most_tokens = len(text) + max(group.size for group in self._rounds)
        self._begin_round()

    def draft(self, most: int, price: float) -> Sequence[int]:
        return ()

    def chunk(self, slot: int, start: int, end: int) -> Chunk:
        return Chunk(slot, start, self.tokens[start:end], self._tree(start, end), wants_last=0)

    def read(self, logits: Tensor) -> FinishReason | None:
        """Score what may follow the next nodes; after the last of a round, begin the next, if there is one."""
        scored = list[tuple[int, int, int]]()  # row, question and node of its trie
        for row in range(len(logits)):
            node = self._pending.pop()
            assert node.scored is not None
            scored += [(row, node.question, child) for child in self._tries[node.question].children(node.scored)]
        norms = torch.logsumexp(logits.float(), -1).tolist()
        tokens = [self._tries[question].tokens[child] for _, question, child in scored]
        picked = logits[[row for row, _, _ in scored], tokens].tolist()
        for (row, question, child), logit in zip(scored, picked, strict=True):
            self._found[question][child] = logit - norms[row]
        if self._pending:
            return None
        if not self._rounds:
            return FinishReason.LABEL
        self._begin_round()
        return None

    def fields(self) -> dict[str, object]:
        scores = tuple(
            tuple(math.fsum(found[node] for node in trie.path(end)) for end in trie.ends)
            for trie, found in zip(self._tries, self._found, strict=True)
        )
        return {"scores": scores}

    def _tree(self, start: int, end: int) -> Tree | None:
        """How `tokens[start:end]` see each other; None where they are the text's.

        The mask is made in plain bytes: an operation of torch lets go of the interpreter, and where other threads want
        it this one, which all requests wait for, would be kept waiting at every row.
        """
        first = len(self._text)
        if end <= first:
            return None
        visible = bytearray((end - start) * end)  # a row behind the other
        positions, wanted = [], []
        for row, index in enumerate(range(start, end)):
            if index < first:
                visible[row * end : row * end + index + 1] = _SEEN * (index + 1)
                positions.append(index)
                continue
            node = self._nodes[index - first]
            self._see_ancestors(visible, row, node, start, end)
            visible[row * end + index] = True
            positions.append(node.position)
            if node.scored is not None:
                wanted.append(row)
        return Tree(positions, torch.frombuffer(visible, dtype=torch.bool).view(end - start, end), wanted)

    def _see_ancestors(self, visible: bytearray, row: int, node: _Node, start: int, end: int) -> None:
        """Let the token of `row` see what its parent sees, and the parent. `start`: slot index of row 0; rows have
        `end` bytes."""
        first, parent, begin = len(self._text), node.parent, row * end
        if parent >= start:
            above = (parent - start) * end
            visible[begin : begin + end] = visible[above : above + end]
            return
        visible[begin : begin + first] = _SEEN * first
        while parent >= first:
            visible[begin + parent] = True
            parent = self._nodes[parent - first].parent

    def _begin_round(self) -> None:
        self._nodes = self._laid_out(self._rounds.pop(0).parts)
        first = len(self._text)
        self.tokens = [*self._text, *(node.token for node in self._nodes)]
        # The first of the questions goes on where the text ends: up to its end it is one sequence.
        chain = next(index for index, node in enumerate(self._nodes) if node.ends_question)
        self.sequence = self.tokens[: first + chain + 1]
        self._pending = [node for node in reversed(self._nodes) if node.scored is not None]

    def _laid_out(self, parts: Sequence[_Part]) -> list[_Node]:
        """The nodes of one round: one part behind the other and all behind the text."""
        first, nodes = len(self._text), list[_Node]()
        chain: list[int] = []  # slot indexes of the tokens of the question before
        for part in parts:
            ids = self._questions[part.question].ids
            chain = chain[: part.computed]
            parent = chain[-1] if chain else first - 1
            for depth, token in enumerate(ids[len(chain) :], len(chain) + 1):
                # An option's first token is scored once, however many parts its question has.
                scored = ROOT if depth == len(ids) and part.is_first else None
                nodes.append(_Node(part.question, token, parent, first + depth - 1, scored, depth == len(ids)))
                parent = first + len(nodes) - 1
                chain.append(parent)
            trie = self._tries[part.question]
            placed = {ROOT: (parent, first + len(ids) - 1)}  # slot index and position of what was laid out
            for node in part.inner:
                before, position = placed[trie.parents[node]]
                nodes.append(_Node(part.question, trie.tokens[node], before, position + 1, node))
                placed[node] = first + len(nodes) - 1, position + 1
        return nodes


@dataclass
class _Part:
    """A question, or as much of one as fits a round: `inner` are the nodes of its trie to compute, each after its
    parent. Those that nothing follows are not among them. `computed`: tokens of the question that the part before has
    too."""

    question: int
    inner: Sequence[int]
    is_first: bool
    computed: int = 0


@dataclass
class _Round:
    """What is computed together, `size` tokens."""

    parts: list[_Part] = field(default_factory=list)
    size: int = 0


def _parts(number: int, question: Question, trie: OptionTrie, most: int) -> list[_Part]:
    """A question whose options need more than `most` tokens is asked again for the rest of them."""
    parts, held = list[_Part](), array("i")
    for node in trie.inner:
        if len(question.ids) + len(held) >= most:
            path = trie.path(trie.parents[node])
            if len(path) < len(held):  # else one option takes more than `most` alone, and another part gains nothing
                parts.append(_Part(number, held, not parts))
                held = array("i", path)
        held.append(node)
    return [*parts, _Part(number, held, not parts)]


def _rounds(questions: Sequence[Question], tries: Sequence[OptionTrie], most: int) -> list[_Round]:
    """Rounds of at most `most` tokens, or of one part. Questions alike stand side by side."""
    rounds, before = [_Round()], tuple[int, ...]()
    for number, question in sorted(enumerate(questions), key=lambda entry: entry[1].ids):
        ids = question.ids
        for part in _parts(number, question, tries[number], most):
            size = len(ids) + len(part.inner)
            # Never the last token of a question, which its options follow.
            part.computed = min(common_prefix(before, ids), len(ids) - 1)
            if rounds[-1].parts and rounds[-1].size + size - part.computed > min(most, _ROUND):
                rounds.append(_Round())
                part.computed = 0
            rounds[-1].size += size - part.computed
            rounds[-1].parts.append(part)
            before = ids
    return rounds
