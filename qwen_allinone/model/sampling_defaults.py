"""How a checkpoint wants its replies drawn where nobody says otherwise: its generation_config.json."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen_allinone.errors import CheckpointError
from qwen_allinone.wording import said

FILE = "generation_config.json"


@dataclass(frozen=True)
class SamplingDefaults:
    """Values as in a request. Of a checkpoint that does not say, all that is likely at all is drawn, as with OpenAI."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0


# What each may be: more than the first, or equal to it; at most the second.
_BOUNDS = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "top_k": (-1, 10**9),
    "min_p": (0, 1),
    "repetition_penalty": (0.01, 5),
}


def sampling_defaults(folder: Path) -> SamplingDefaults:
    """Those of the checkpoint in `folder`. `do_sample` is no matter: who wants greedy replies says temperature 0.

    Raises:
        CheckpointError: the file is no JSON object, or a value is out of its bounds.
    """
    path = folder / FILE
    if not path.exists():
        return SamplingDefaults()
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(said("sampling_no_json", path=path, error=error)) from None
    if not isinstance(given, dict):
        raise CheckpointError(said("sampling_no_object", path=path))
    found: dict[str, Any] = {}
    for name, (least, most) in _BOUNDS.items():
        value = given.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise CheckpointError(
                said("sampling_out_of_bounds", path=path, name=name, value=repr(value), least=least, most=most)
            )
        found[name] = max(0, int(value)) if name == "top_k" else float(value)
    return SamplingDefaults(**found)
