"""What a task is taught with, and the templates texts are made from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import yaml

from qwen_allinone.strict_yaml import StrictLoader

HERE = Path(__file__).parent
_SLOT = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Sample:
    """A text, and the answer wanted of a task: a label, or the text to be written; `about`: its further inputs."""

    text: str
    answer: str
    about: tuple[str, ...] = ()


def read(name: str) -> dict[str, Any]:
    """The word lists `name`.yaml."""
    data = yaml.load((HERE / f"{name}.yaml").read_text(encoding="utf-8"), Loader=StrictLoader)
    assert isinstance(data, dict), name
    return data


def fill(template: str, slots: Mapping[str, Sequence[str]], rng: Random) -> str:
    """`template` with every {slot} replaced by one of its entries, each place drawn anew."""
    while _SLOT.search(template):
        template = _SLOT.sub(lambda match: str(rng.choice(slots[match.group(1)])), template)
    return template
