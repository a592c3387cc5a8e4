"""Which drafted replies cannot be used at all: small models fall into a loop, and go on with it up to their limit."""

from __future__ import annotations

import re

# Five times a piece of up to twelve characters, blanks or commas between them or not. One character by itself counts
# from eight times on: people laugh 哈哈哈哈, shout !!!!! and write 888.
_LOOP = re.compile(r"(\S)\1{7}|(\S.{1,11}?)(?:[\s,，、。.]{0,2}\2){4}", re.DOTALL)


def repeats_itself(text: str) -> bool:
    """Whether a piece of `text` stands in it again and again in a row."""
    return _LOOP.search(text) is not None
