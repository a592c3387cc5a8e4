"""Pieces of text are the text, and none ends inside a character."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qwen_allinone.model.tokenizer import Tokenizer
from qwen_allinone.service.detokenizer import TextPieces

load_once = cache(Tokenizer.load)
JOINED = ("👨‍👩‍👧‍👦", "👍🏽", "🇨🇳", "❤️", "🏴󠁧󠁢󠁥󠁮󠁧󠁿")


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder: Path) -> Tokenizer:
    return load_once(tokenizer_folder)


def pieces_of(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    stream = TextPieces(tokenizer.decode)
    return [piece for piece in [*map(stream.push, ids), stream.end()] if piece]


def whole(tokenizer: Tokenizer, ids: list[int]) -> str:
    return tokenizer.decode(ids).rstrip("\ufffd").strip()


@given(st.text(max_size=60))
@example("今天 心情😀特别差")
@example("\n\n 好\n ")
@example("\ufffd\ufffd好\ufffd")
def test_pieces_of_any_text_are_the_text(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text.encode("utf-8", "replace").decode())
    assert "".join(pieces_of(tokenizer, ids)) == whole(tokenizer, ids)


@given(st.data())
def test_pieces_of_any_tokens_are_the_text(tokenizer: Tokenizer, data: st.DataObject) -> None:
    """A model may say anything: half characters in the middle, control tokens, bytes that begin nothing."""
    last = max(max(tokenizer.encode("好 a")), 300)
    ids = data.draw(st.lists(st.integers(0, last), max_size=40))
    assert "".join(pieces_of(tokenizer, ids)) == whole(tokenizer, ids)


@pytest.mark.parametrize("emoji", JOINED)
def test_what_is_seen_as_one_sign_is_in_one_piece(tokenizer: Tokenizer, emoji: str) -> None:
    ids = tokenizer.encode(f"开心{emoji}好")
    assert len(ids) > 4, "the sign is several tokens"
    pieces = pieces_of(tokenizer, ids)
    assert len(pieces) > 1
    assert [piece for piece in pieces if emoji[1:-1] in piece] and emoji in "".join(pieces)
    assert any(emoji in piece for piece in pieces), pieces


def test_a_character_is_out_with_its_last_byte(tokenizer: Tokenizer) -> None:
    """Held back no longer than needed: the reader sees text while it is made."""
    stream = TextPieces(tokenizer.decode)
    shown = ""
    ids = tokenizer.encode("天气很好，我们走吧")
    for count, token in enumerate(ids, 1):
        shown += stream.push(token)
        assert shown == tokenizer.decode(ids[:count]).rstrip("\ufffd")


def test_white_space_is_dropped_at_both_ends_only(tokenizer: Tokenizer) -> None:
    assert "".join(pieces_of(tokenizer, tokenizer.encode(" \n a  b \n c \n "))) == "a  b \n c"


def test_nothing_makes_no_piece(tokenizer: Tokenizer) -> None:
    assert pieces_of(tokenizer, []) == []
    assert TextPieces(tokenizer.decode).end() == ""


def stopped_pieces(tokenizer: Tokenizer, text: str, stops: list[str]) -> tuple[list[str], bool]:
    stream = TextPieces(tokenizer.decode, stops=stops, strip=False)
    pieces = [stream.push(token) for token in tokenizer.encode(text)]
    return [*pieces, stream.end()], stream.stopped


@given(
    st.text("ab\n 好👍🏽", min_size=1, max_size=24),
    st.lists(st.text("ab\n 好👍🏽", min_size=1, max_size=3), min_size=1, max_size=4),
)
@example("aab", ["ab"])
@example("abab好", ["abb", "ba"])
@example("好\n\n好", ["\n\n"])
@example("👍🏽好", ["🏽"])
def test_a_text_ends_before_the_stop_that_is_whole_first(tokenizer_folder: Path, text: str, stops: list[str]) -> None:
    tokenizer = load_once(tokenizer_folder)
    normal = tokenizer.decode(tokenizer.encode(text))
    pieces, stopped = stopped_pieces(tokenizer, text, stops)
    told = "".join(pieces)
    ends = [normal.index(stop) for stop in stops if stop in normal]
    assert stopped == bool(ends)
    assert normal.startswith(told)
    if not ends:
        assert told == normal
    else:
        assert not any(stop in told for stop in stops)
        assert any(normal[len(told) :].startswith(stop) for stop in stops)


def test_no_part_of_a_stop_comes_out_before_it_is_whole(tokenizer_folder: Path) -> None:
    tokenizer = load_once(tokenizer_folder)
    pieces, stopped = stopped_pieces(tokenizer, "天气 STOP 天气", [" STOP "])
    assert "".join(pieces) == "天气" and stopped
    begun, never = stopped_pieces(tokenizer, "天气 STO", [" STOP "])
    assert begun[-1] == " STO" and not never, "only the end tells that it is none"


def test_without_stripping_white_space_is_kept_and_may_be_a_stop(tokenizer_folder: Path) -> None:
    tokenizer = load_once(tokenizer_folder)
    assert "".join(stopped_pieces(tokenizer, "\n 好 \n", ["x"])[0]) == "\n 好 \n"
    assert "".join(stopped_pieces(tokenizer, "\n 好 \n", [" \n"])[0]) == "\n 好"
