"""Which of a user's memories matter to a text: found by meaning and by words, joined by their ranks.

Meaning is a vector, the hidden state of the same model at the end of a short prompt, in Chinese or in English as the
text is; the store compares them. Words are pairs of Chinese characters, and whole words of other scripts: those that
few of the user's memories have count most, and those that many have not at all.
"""

from __future__ import annotations

import heapq
import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from qwen_allinone.service.codec import Codec
from qwen_allinone.service.request import Request
from qwen_allinone.state import Memory, Statement
from qwen_allinone.tasks import short_hash

MOST = 5
# Measured with benchmarks/recall.py: better than the mean of the text's states, and than other wordings.
_CHINESE, _ENGLISH = ("话：", "\n说的是："), ('This sentence: "', '" means in one word: "')
_PROMPT = short_hash("".join(_CHINESE + _ENGLISH))
# Tokens that are read for the meaning of a text: the last ones.
_MOST_TOKENS = 256
# Of reciprocal ranks, as they are commonly joined: the first of one list weighs little more than the second.
_RANK = 60
_WORD = re.compile(r"[^\W_]+")
_SHORTEST = 3  # letters of a word that may say something: cat, not is or of
# Share of the memories from which on a word is one that all are told with, such as 用户 or user.
COMMON = 1 / 3
_HAN = re.compile(r"[\u3400-\u9fff\U00020000-\U0003ffff]+")


def vector_model(codec: Codec) -> str:
    """What the vectors of a checkpoint are called: those of another do not compare."""
    return f"{codec.model_id}/{_PROMPT}"


def vector_of(request: Request, text: str) -> bytes:
    """What the model makes of `text`, float16, of length 1."""
    before, after = _CHINESE if _HAN.search(text) else _ENGLISH
    ids = request.codec.tokenizer.encode(f"{before}{text}{after}")
    state = np.array(request.embed(ids[-min(_MOST_TOKENS, request.codec.context) :]).vector, dtype=np.float32)
    return (state / max(float(np.linalg.norm(state)), 1e-9)).astype(np.float16).tobytes()


def recalled(statements: Sequence[Statement], text: str, likest: Sequence[int]) -> list[Statement]:
    """Of `statements`, the newest first, the MOST that matter to `text`, the best first.

    `likest`: places of those whose vectors are likest to the text's, the best first. Of the others words decide alone.
    """
    points = [0.0] * len(statements)
    for ranking in (by_words(statements, text, COMMON), likest):
        for rank, place in enumerate(ranking, 1):
            points[place] += 1 / (_RANK + rank)
    best = heapq.nsmallest(MOST, range(len(points)), key=lambda place: (-points[place], place))
    return [statements[place] for place in best]


def by_words(memories: Sequence[Memory | Statement], text: str, common: float = 1.0) -> list[int]:
    """Places of the memories that have words in common with `text`, the best first.

    Words that more than the share `common` of them have do not count, unless it is one memory.
    """
    # Folded and looked through as one text: of a thousand memories that takes 4 ms, and one by one 10.
    whole = _folded("\0".join(memory.text.replace("\0", " ") for memory in memories))
    said = whole.split("\0")
    points = defaultdict[int, float](float)
    for word in words(text):
        if word not in whole:
            continue
        places = [place for place, memory in enumerate(said) if _has(memory, word)]
        if len(places) <= max(1, common * len(said)):
            for place in places:
                points[place] += math.log(1 + len(said) / len(places))
    return sorted(points, key=lambda place: (-points[place], place))


def words(text: str) -> list[str]:
    """Pairs of neighbouring Chinese characters; of other scripts whole words, of three characters at least."""
    found = dict[str, None]()
    for run in _WORD.findall(_folded(text)):
        for han in _HAN.findall(run):
            found |= dict.fromkeys(han[i : i + 2] for i in range(len(han) - 1))
        found |= dict.fromkeys(word for word in _HAN.sub(" ", run).split() if len(word) >= _SHORTEST)
    return list(found)


def _has(memory: str, word: str) -> bool:
    """Whether it has the word, or one that begins with it: cat and cats, but not locate."""
    return word in memory if _HAN.match(word) else re.search(rf"(?<![^\W_]){re.escape(word)}", memory) is not None


def matching(memories: Sequence[Memory], query: str) -> list[Memory]:
    """Those whose text has all of `query` in it, then those with some of its words, the best first."""
    whole = _folded(query)
    exact = [memory for memory in memories if whole in _folded(memory.text)]
    return exact + [memory for place in by_words(memories, query) if (memory := memories[place]) not in exact]


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()
