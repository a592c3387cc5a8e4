"""Memories are found by meaning and by words, joined by ranks: against the same, written plainly."""

from __future__ import annotations

import numpy as np
import pytest

from qwen_allinone.service.recall import MOST, by_words, matching, recalled, words
from qwen_allinone.state import Statement
from qwen_allinone.state.likeness import likest


def vector(*values: float) -> bytes:
    return np.array(values, np.float16).tobytes()


def memory(text: str) -> Statement:
    return Statement(text, text)


def test_words_are_pairs_of_chinese_characters_and_whole_words_of_others() -> None:
    assert words("我住在杭州。") == ["我住", "住在", "在杭", "杭州"]
    assert words("用Ｐｙｔｈｏｎ3写a程序, don't") == ["程序", "python3", "don"]
    assert words("猫") == [] and words("!?") == []


def test_who_has_rarer_words_of_a_text_comes_first_and_who_has_none_is_not_there() -> None:
    kept = [memory(text) for text in ("用户喜欢爬山", "用户喜欢看海", "用户喜欢下棋", "用户住在苏州")]
    assert by_words(kept, "周末去看海，喜欢的人一起") == [1, 0, 2]
    assert by_words(kept, "完全无关") == [] and by_words([], "喜欢") == []


def test_words_that_many_memories_have_do_not_count_where_few_are_wanted() -> None:
    kept = [memory(text) for text in ("用户喜欢爬山", "用户喜欢看海", "用户喜欢下棋", "用户住在苏州")]
    assert by_words(kept, "周末去看海，喜欢的人一起", 1 / 3) == [1]
    assert by_words(kept[:1], "喜欢的人", 1 / 3) == [0], "of one memory nothing is common"


def test_english_words_are_found_where_a_word_begins_and_short_ones_say_nothing() -> None:
    kept = [memory(text) for text in ("The user has a cat", "The user is afraid of locating things", "The user hikes")]
    assert by_words(kept, "is one of my cats ill?") == []
    assert by_words(kept, "who feeds the cat when I hike", 1 / 3) == [0, 2]


def test_the_likest_comes_first_and_what_all_have_in_common_does_not_count() -> None:
    common = [0.9, 0.9]
    kept = [vector(*common, *row) for row in np.eye(6).tolist()]
    assert likest(kept, vector(*common, 0, 0, 0, 1, 0, 0))[0] == 3
    assert likest(kept[:2], vector(0, 0, 0, 1, 0, 0, 0, 0)) == [1, 0]
    assert likest([], vector(1)) == []
    assert likest([None, kept[3], None, kept[0]], kept[0]) == [3, 1], "what has no vector is not like anything"


def test_a_memory_without_a_vector_of_this_model_is_found_by_its_words() -> None:
    kept = [memory("用户喜欢爬山"), memory("用户住在杭州"), memory("用户养猫")]
    found = recalled(kept, "杭州有什么好玩的", [0])
    assert [one.text for one in found] == ["用户喜欢爬山", "用户住在杭州", "用户养猫"]  # of equals the newest
    assert recalled([], "杭州", []) == []


def test_ranks_are_joined_as_the_plain_sum_of_their_reciprocals_says() -> None:
    rng = np.random.default_rng(7)
    syllables = "山海城猫狗花茶书棋琴"
    kept = [memory("用户" + "".join(rng.choice(list(syllables), 5))) for _ in range(40)]
    assert len({one.id for one in kept}) == 40
    for _ in range(20):
        text, meant = "".join(rng.choice(list(syllables), 6)), rng.permutation(40)[:30].tolist()
        lists = by_words(kept, text), meant
        plain = [sum(1 / (61 + ranks.index(place)) for ranks in lists if place in ranks) for place in range(len(kept))]
        best = sorted(range(len(kept)), key=lambda place: (-plain[place], place))[:MOST]
        assert recalled(kept, text, meant) == [kept[place] for place in best]


@pytest.mark.parametrize(
    ("query", "found"), [("爬山", [0]), ("去爬山还是住在苏州", [1, 0]), ("PYTHON", [2]), ("", [0, 1, 2])]
)
def test_a_search_has_first_what_holds_all_of_it(query: str, found: list[int]) -> None:
    kept = [memory("用户喜欢爬山"), memory("用户住在苏州"), memory("用户在学Python")]
    assert matching(kept, query) == [kept[place] for place in found]
