"""Where memories stand among a client's messages."""

from __future__ import annotations

import pytest

from qwen_allinone.service.completions import Utterance
from qwen_allinone.service.reminded import with_memories

BLOCK = "\n你记得：\n- 用户住在杭州"
ALONE = ("system", "你记得：\n- 用户住在杭州")
SYSTEM, JOINED = ("system", "你好"), ("system", "你好" + BLOCK)
ASKS, SAYS, NEXT = ("user", "一"), ("assistant", "二"), ("user", "三")


@pytest.mark.parametrize(
    ("messages", "late", "beginning"),
    [
        ([NEXT], [ALONE, NEXT], None),
        ([SYSTEM, NEXT], [JOINED, NEXT], None),
        ([("system", " "), NEXT], [ALONE, NEXT], None),
        ([ASKS, SAYS, NEXT], [ASKS, SAYS, ALONE, NEXT], [ALONE, ASKS, SAYS, NEXT]),
        ([SYSTEM, ASKS, SAYS, NEXT], [SYSTEM, ASKS, SAYS, ALONE, NEXT], [JOINED, ASKS, SAYS, NEXT]),
        ([ASKS, SAYS, SYSTEM, NEXT], [ASKS, SAYS, JOINED, NEXT], [ALONE, ASKS, SAYS, SYSTEM, NEXT]),
        ([SAYS, NEXT], [SAYS, ALONE, NEXT], [ALONE, SAYS, NEXT]),
        ([ASKS, NEXT, SYSTEM], [ASKS, ALONE, NEXT, SYSTEM], [ALONE, ASKS, NEXT, SYSTEM]),
    ],
)
def test_memories_stand_right_before_the_users_last_message_or_at_the_beginning(
    messages: list[Utterance], late: list[Utterance], beginning: list[Utterance] | None
) -> None:
    given, place = list(messages), messages.index(NEXT)
    assert with_memories(messages, place, BLOCK, late=True) == late
    assert with_memories(messages, place, BLOCK, late=False) == (beginning or late)
    assert messages == given, "what the client sent is as it was"
