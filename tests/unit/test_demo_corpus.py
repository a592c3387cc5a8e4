"""The demo's corpus: kept apart from what is measured, the same from the same seed, balanced, and sound."""

from __future__ import annotations

from collections import Counter

import pytest

from demo.corpus import pools
from demo.corpus.apart import Apart, bare, measured_sentences
from demo.corpus.generate import Generator
from demo.corpus.lexicon import LABELS, Lexicon

SAMPLE = 1500


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return Lexicon.load()


@pytest.fixture(scope="module")
def drawn(lexicon: Lexicon) -> list[tuple[str, str]]:
    generator = Generator(lexicon, seed=11)
    return [generator.labelled() for _ in range(SAMPLE)]


def test_no_text_shares_a_sentence_or_a_run_of_eight_with_what_is_measured(drawn: list[tuple[str, str]]) -> None:
    measured = [bare(sentence) for sentence in measured_sentences() if bare(sentence)]
    runs = {sentence[i : i + 8] for sentence in measured for i in range(len(sentence) - 7)}
    for text in (bare(text) for text, _ in drawn):
        assert not any(text[i : i + 8] in runs for i in range(len(text) - 7)), text
        assert text not in measured, text


def test_texts_of_the_triples_are_kept_apart_too(lexicon: Lexicon) -> None:
    generator, apart = Generator(lexicon, seed=12), Apart(measured_sentences())
    assert all(apart.clear(text) or not bare(text) for text in (generator.triple().text for _ in range(300)))


def test_the_filter_sees_through_punctuation_and_width() -> None:
    apart = Apart(["早上八点的会，又取消了", "烦死了"])
    assert not apart.clear("早上八点的会又取消了！")
    assert not apart.clear("他说早上八点的会,又取消")
    assert not apart.clear("烦死了！！")
    assert apart.clear("下午三点的会照开")


def test_the_same_seed_gives_the_same_stream(lexicon: Lexicon) -> None:
    first, second = Generator(lexicon, seed=3), Generator(lexicon, seed=3)
    assert [first.labelled() for _ in range(50)] == [second.labelled() for _ in range(50)]
    assert [first.triple() for _ in range(50)] == [second.triple() for _ in range(50)]


def test_another_seed_gives_another_stream(lexicon: Lexicon) -> None:
    first, second = Generator(lexicon, seed=3), Generator(lexicon, seed=4)
    assert [first.labelled() for _ in range(5)] != [second.labelled() for _ in range(5)]


def test_labels_are_balanced(drawn: list[tuple[str, str]]) -> None:
    counts = Counter(label for _, label in drawn)
    assert set(counts) == set(LABELS)
    assert abs(counts[LABELS[0]] - counts[LABELS[1]]) < 0.06 * SAMPLE


def test_texts_range_from_a_word_to_a_long_review(drawn: list[tuple[str, str]]) -> None:
    lengths = sorted(len(text) for text, _ in drawn)
    assert lengths[SAMPLE // 20] <= 8
    assert lengths[-SAMPLE // 20] >= 60


def test_replies_are_filled_in_and_never_name_the_label(lexicon: Lexicon) -> None:
    generator = Generator(lexicon, seed=5)
    for triple in (generator.triple() for _ in range(500)):
        assert "{" not in triple.reply
        assert not any(label in triple.reply for label in LABELS), triple.reply
        assert 8 <= len(triple.reply) <= 120, triple.reply


def test_moods_are_read_without_a_teacher_too(monkeypatch: pytest.MonkeyPatch) -> None:
    written = [("房间很干净", 1.0), ("今天又被骂了", 0.0)]
    monkeypatch.setattr(pools, "_written", lambda _: iter(written))
    monkeypatch.setattr(pools, "_said", lambda: iter([("早上好", 0.5)]))
    monkeypatch.setattr(pools, "Teacher", lambda: pytest.fail("no teacher is asked"))
    pool = pools.build_alone(seed=1, scale=0.001)
    read = [(text, round(share, 2)) for text, share in zip(pool.texts, pool.shares.tolist(), strict=True)]
    doubted = [("房间很干净", 0.88), ("今天又被骂了", 0.12), ("早上好", 0.5)]
    assert [read.count(row) for row in doubted] == [16, 16, 1]
    assert {share for _, share in read} == {0.12, 0.5, 0.88} and len(read) > 100
    assert pool.vectors.shape == (len(pool), 0)
