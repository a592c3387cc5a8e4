"""Many questions about one text, each with options to choose from: scored in one slot, over one copy of the text.

The text's keys and values are computed once. Behind them come the questions, several in a forward pass: a question's
tokens and those of its options are a tree whose every path is read as if it followed the text alone. No pass is made
for an option's last token, and what questions begin with in common, or options, is computed once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qwen_allinone.engine.request import FinishReason
from qwen_allinone.engine.slots import shared
from qwen_allinone.model.attention import Branches

# Tokens of questions computed together, if more than one question: about a forward pass.
_ROUND = 256


@dataclass(frozen=True)
class Question:
    """What follows the text, and the options' token ids, one at least in each. Options may share beginnings."""

    ids: tuple[int, ...]
    options: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if not self.ids or not self.options or not all(self.options):
            raise ValueError("a question needs tokens, and so does each of its options")

    @property
    def longest(self) -> int:
        """Tokens of the question with its longest option, all that must be there at once."""
        return len(self.ids) + max(map(len, self.options)) - 1


@dataclass(frozen=True)
class _Node:
    """One token of a round: the slot's place of the token it follows, and where it stands in its own sequence.

    `path` is what it has of an option of its question, where what may follow it is to be scored; `ends_question`: the
    options come next.
    """

    question: int
    token: int
    parent: int
    position: int
    path: tuple[int, ...] | None
    ends_question: bool = False


class Decide:
    """Scores each option of each question: the mean log-probability of its tokens after the text and the question.

    `sequence` is what of `tokens`, from the first, is one sequence: the text and the first of the questions behind it.
    """

    wanted_ids: tuple[int, ...] | None = ()  # what is wanted goes to `score`

    def __init__(self, shared: Sequence[int], questions: Sequence[Question], longest: int) -> None:
        """`longest`: tokens that a slot holds. A question with one of its options may still be longer, see
        `Question.longest`."""
        if not shared or not questions:
            raise ValueError("something to read and a question are needed")
        self.shared = tuple(shared)
        self.prompt = (*shared, *(token for question in questions for token in question.ids))
        self._questions = questions
        self._found: list[dict[tuple[int, ...], float]] = [{} for _ in questions]  # log-probability by path
        self._rounds = [self._laid_out(parts) for parts in _rounds(questions, longest - len(shared))]
        self.most_tokens = len(shared) + max(map(len, self._rounds))
        self._begin()

    def branches(self, start: int, end: int) -> Branches | None:
        """How `tokens[start:end]` hang together; None where they are the text's."""
        first = len(self.shared)
        if end <= first:
            return None
        visible = torch.zeros(end - start, end, dtype=torch.bool)
        positions, wanted = [], []
        for row, place in enumerate(range(start, end)):
            if place < first:
                visible[row, : place + 1] = True
                positions.append(place)
                continue
            node = self._nodes[place - first]
            visible[row, :first] = True
            visible[row, self._lines[place - first]] = True
            positions.append(node.position)
            if node.path is not None:
                wanted.append(row)
        return Branches(positions, visible, wanted)

    def score(self, logits: Tensor) -> None:
        """Take logits [rows, vocabulary] of the next wanted places, in order."""
        norms = torch.logsumexp(logits.float(), -1)
        for row, norm in zip(logits, norms.tolist(), strict=True):
            node = self._pending.pop(0)
            assert node.path is not None
            depth = len(node.path)
            options = self._questions[node.question].options
            following = sorted({o[depth] for o in options if o[:depth] == node.path and len(o) > depth})
            found = self._found[node.question]
            for token, logit in zip(following, row[following].tolist(), strict=True):
                found[(*node.path, token)] = logit - norm

    def accept(self, logits: Tensor) -> FinishReason | None:
        """After a whole round, whose logits `score` has had: go on to the next, if there is one."""
        assert not self._pending
        if not self._rounds:
            return FinishReason.LABEL
        self._begin()
        return None

    def fields(self) -> dict[str, object]:
        scores = tuple(
            tuple(_mean(found, option) for option in question.options)
            for question, found in zip(self._questions, self._found, strict=True)
        )
        chosen = (q.options[s.index(max(s))] for q, s in zip(self._questions, scores, strict=True))
        return {"scores": scores, "ids": tuple(token for option in chosen for token in option)}

    def _begin(self) -> None:
        self._nodes = self._rounds.pop(0)
        self.tokens = [*self.shared, *(node.token for node in self._nodes)]
        chain = next(place for place, node in enumerate(self._nodes) if node.ends_question)
        self.sequence = self.tokens[: len(self.shared) + chain + 1]
        self._pending = [node for node in self._nodes if node.path is not None]
        first, self._lines = len(self.shared), list[list[int]]()
        for place, node in enumerate(self._nodes):
            before = self._lines[node.parent - first] if node.parent >= first else []
            self._lines.append([*before, first + place])

    def _laid_out(self, parts: Sequence[_Part]) -> list[_Node]:
        """What is computed together, one part behind the other and all behind the text."""
        first, nodes = len(self.shared), list[_Node]()
        chain: list[int] = []  # places of the tokens of the question before
        before: tuple[int, ...] = ()
        for part in parts:
            ids = self._questions[part.question].ids
            chain = chain[: _common(before, ids)]
            parent = chain[-1] if chain else first - 1
            for depth, token in enumerate(ids[len(chain) :], len(chain) + 1):
                # An option's first token is scored once, however many parts its question has.
                path: tuple[int, ...] | None = () if depth == len(ids) and part.is_first else None
                nodes.append(_Node(part.question, token, parent, first + depth - 1, path, depth == len(ids)))
                parent = first + len(nodes) - 1
                chain.append(parent)
            before = ids
            places: dict[tuple[int, ...], int] = {(): parent}
            for taken in part.paths:
                position = first + len(ids) + len(taken) - 1
                nodes.append(_Node(part.question, taken[-1], places[taken[:-1]], position, taken))
                places[taken] = first + len(nodes) - 1
        return nodes


@dataclass(frozen=True)
class _Part:
    """A question, or as much of one as there is room for: the beginnings of options that are to be computed, each
    after its own beginning. A whole option is the beginning of none, so nothing is computed for its last token."""

    question: int
    paths: tuple[tuple[int, ...], ...]
    is_first: bool


def _parts(number: int, question: Question, room: int) -> Iterator[_Part]:
    """A question whose options need more than `room` tokens is asked again for the rest of them."""
    paths: dict[tuple[int, ...], None] = {}
    is_first = True
    for option in sorted(question.options):
        more = [option[:depth] for depth in range(1, len(option)) if option[:depth] not in paths]
        if paths and len(question.ids) + len(paths) + len(more) > room:
            yield _Part(number, tuple(paths), is_first)
            paths, is_first = {}, False
            more = [option[:depth] for depth in range(1, len(option))]
        paths.update(dict.fromkeys(more))
    yield _Part(number, tuple(paths), is_first)


def _rounds(questions: Sequence[Question], room: int) -> list[list[_Part]]:
    """What is computed together: as many parts as there is room for, or one. Alike questions stand side by side."""
    rounds: list[list[_Part]] = [[]]
    used, before = 0, tuple[int, ...]()
    for number, question in sorted(enumerate(questions), key=lambda entry: entry[1].ids):
        for part in _parts(number, question, room):
            size = len(question.ids) + len(part.paths)
            if rounds[-1] and used + size - _common(before, question.ids) > min(room, _ROUND):
                rounds.append([])
                used, before = 0, ()
            used += size - _common(before, question.ids)
            rounds[-1].append(part)
            before = question.ids
    return rounds


def _common(before: Sequence[int], ids: Sequence[int]) -> int:
    """Tokens of a question that are computed for the one before it; never its last, which its options follow."""
    return min(shared(before, ids), len(ids) - 1)


def _mean(found: dict[tuple[int, ...], float], option: tuple[int, ...]) -> float:
    return sum(found[option[: depth + 1]] for depth in range(len(option))) / len(option)
