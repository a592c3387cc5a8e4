"""What a conversation's prompt remembers: as many of its turns as fit, in the same tokens as the last time.

A slot still holds keys and values for the prompt and the reply of the turn before. They are of use only as far as the
next prompt begins with the very same tokens, so replies go in as the ids they were generated as, and when turns must be
dropped, half of the tokens go at once: the turns after that find the same prefix again.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qwen_allinone.errors import CheckpointError, InvalidInput
from qwen_allinone.model.tokenizer import Tokenizer
from qwen_allinone.service.detokenizer import reply_text
from qwen_allinone.state import Turn
from qwen_allinone.tasks import Chat, Exchange, Task, clean, render_turns
from qwen_allinone.wording import said

# What share of the tokens allowed a prompt has after turns were dropped.
_KEPT = 0.5


@dataclass(frozen=True)
class Remembered:
    """A prompt's token ids, and the number of the oldest turn that stands in it."""

    ids: list[int]
    first: int


def remember(
    task: Task, turns: Sequence[Turn], inputs: Mapping[str, str], tokenizer: Tokenizer, *, most: int, restate: bool
) -> Remembered:
    """The prompt of the turn after `turns`, `most` tokens at most unless the new text alone takes more.

    Raises:
        InvalidInput: the prompt of `task` is no chat, so it takes no earlier turns.
    """
    if not task.is_chat:
        raise InvalidInput(said("no_sessions"), param="session")
    first = min(max(turns[-1].first, 0), len(turns)) if turns else 0
    past = [Exchange(_inputs(task, turn), _reply(turn, tokenizer)) for turn in turns[first:]]

    def prompt(number: int) -> list[int]:
        return tokenizer.encode_rendered(render_turns(task, past[number - first :], inputs, restate=restate))

    ids = prompt(first)
    if len(ids) <= most:
        return Remembered(ids, first)
    later = range(first + 1, len(turns) + 1)
    for limit in (int(most * _KEPT), most):
        # Each turn that is dropped makes the prompt shorter, so the first that fits can be searched for.
        index = bisect_left(later, -limit, key=lambda number: -len(prompt(number)))
        if index < len(later):
            return Remembered(prompt(later[index]), later[index])
    return Remembered(prompt(len(turns)), len(turns))


def takes_late_system(tokenizer: Tokenizer) -> bool:
    """Whether the chat template shows a system message that is not the first."""
    probes = ("中文", "Zq 7")
    try:
        one, other = (
            tokenizer.encode_rendered(
                Chat((("system", "a"), ("user", "b"), ("assistant", "c"), ("system", probe), ("user", "d")))
            )
            for probe in probes
        )
    except CheckpointError:
        return False
    return one != other


def _inputs(task: Task, turn: Turn) -> dict[str, str]:
    """Of an earlier turn. What it was reminded of is not kept: what is forgotten is in no conversation."""
    given = {"text": clean(turn.text) if task.spec.clean else turn.text, "sentiment": turn.told}
    return {name: given[name] for name in task.spec.given}


def _reply(turn: Turn, tokenizer: Tokenizer) -> str | tuple[int, ...]:
    """The reply's ids if they still mean its text, as another checkpoint's do not, and are tokens of text."""
    known = tokenizer.ids.issuperset(turn.ids) and not tokenizer.control_ids.intersection(turn.ids)
    return turn.ids if turn.ids and known and reply_text(tokenizer, turn.ids) == turn.response else turn.response
