"""Which of a user's vectors are the likest to one: exactly, one by one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# Of more vectors than this, what all have in common tells nothing apart and is taken out before.
FEW = 5

Floats = NDArray[np.float32]


def likest(vectors: Sequence[bytes | None], vector: bytes) -> list[int]:
    """Places of the `vectors` that are there, the likest to `vector` first, of equals the first; all float16 and of one
    model."""
    places = [place for place, kept in enumerate(vectors) if kept]
    if not places:
        return []
    rows = np.frombuffer(b"".join(filter(None, vectors)), np.float16).reshape(len(places), -1).astype(np.float32)
    middle = rows.mean(axis=0) if len(places) > FEW else np.zeros(rows.shape[1], np.float32)
    likeness = _unit(rows - middle) @ _unit(np.frombuffer(vector, np.float16).astype(np.float32) - middle)
    return [places[rank] for rank in np.argsort(-likeness, kind="stable").tolist()]


def _unit(rows: Floats) -> Floats:
    lengths = np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-9)
    return np.asarray(rows / lengths, dtype=np.float32)
