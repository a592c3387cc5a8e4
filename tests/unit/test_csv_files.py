"""CSV files: the encodings that people have, Excel's separator line, and cells that a spreadsheet would compute."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_allinone.csv_files import UnknownEncoding, decode, encode, harmless, records

SIMPLIFIED = "房间很干净，下次还来"
TRADITIONAL = "房間很乾淨，早餐也不錯，下次還會再來"


@pytest.mark.parametrize(
    ("codec", "name"),
    [("utf-8", "UTF-8"), ("utf-8-sig", "UTF-8"), ("gbk", "GBK"), ("gb18030", "GBK"), ("utf-16", "UTF-16")],
)
@pytest.mark.parametrize("text", [SIMPLIFIED, "联通", "a,b\n" * 20 + "好"])
def test_what_spreadsheets_save_is_read_and_named(codec: str, name: str, text: str) -> None:
    read, encoding = decode(text.encode(codec))
    assert read == text
    # Two words that are the same bytes in both are UTF-8 to everybody.
    assert encoding in (name, "UTF-8")


@pytest.mark.parametrize("codec", ["gbk", "big5", "utf-16-le"])
def test_rows_in_two_encodings_are_told_with_a_line_of_each(codec: str) -> None:
    raw = "text\n房间很好\n".encode() + "早餐不錯，還會再來\n".encode(codec)
    with pytest.raises(UnknownEncoding) as raised:
        decode(raw)
    assert (raised.value.line, raised.value.likely, raised.value.other_line) == (3, "mixed", 2)


@pytest.mark.parametrize("text", [TRADITIONAL, "反饋\n" + TRADITIONAL, "id,text\n1,不錯\n2,很好吃\n"])
def test_big5_is_told(text: str) -> None:
    with pytest.raises(UnknownEncoding) as raised:
        decode(text.encode("big5"))
    assert raised.value.likely == "Big5"


@pytest.mark.parametrize("text", ["id,text\n1,it’s great\n2,don’t buy\n", "a\n“nice” – really\n"])
def test_an_apostrophe_of_windows_is_not_taken_for_chinese(text: str) -> None:
    with pytest.raises(UnknownEncoding) as raised:
        decode(text.encode("cp1252"))
    assert raised.value.likely == ""


def test_what_is_no_text_is_unknown() -> None:
    with pytest.raises(UnknownEncoding) as raised:
        decode(b"a\nb\xff\xff\xff\n")
    assert (raised.value.line, raised.value.likely) == (2, "")


@pytest.mark.parametrize("line", ["sep=;\n", "SEP=;\r\n", '"sep=;"\n'])
def test_excels_separator_line_says_the_delimiter(line: str) -> None:
    assert list(records(line + "a,b;c\n1;2\n")) == [(2, ["a,b", "c"]), (3, ["1", "2"])]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_without_one_the_first_line_tells(delimiter: str) -> None:
    assert list(records(f"a{delimiter}b\n1{delimiter}2\n")) == [(1, ["a", "b"]), (2, ["1", "2"])]


@pytest.mark.parametrize(
    "cell",
    [
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\n=1",
        "＝1+1",
        "＋1",
        "－1",
        "＠a",
        " =1",
        "\u3000=1",
        "\ufeff=1",
        "\u200b=1",
        "\u00ad=1",
        "\u3164+1",
        "\u2800\ufe0f@a",
        " \u200e \x00=1",
        "\u200b\t1",
        "﹢1",
        "﹦1",
        "﹣1",
        "﹫a",
    ],
)
def test_no_cell_is_computed_by_a_spreadsheet(cell: str) -> None:
    assert harmless(cell) == "'" + cell


@pytest.mark.parametrize("cell", ["", "好", "1-1", "a=b", "'=1", "邮箱 a@b"])
def test_other_cells_are_written_as_they_are(cell: str) -> None:
    assert harmless(cell) == cell


@given(
    st.lists(
        st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=2, max_size=2)
    )
)
def test_what_is_written_can_be_read_and_holds_no_formula(rows: list[list[str]]) -> None:
    text = encode([("a", "=b"), *rows]).decode("utf-8-sig")
    head, *back = csv.reader(io.StringIO(text, newline=""), strict=True)
    assert head == ["a", "'=b"]
    assert back == [[harmless(cell) for cell in row] for row in rows]
    assert not any(cell[:1] in tuple("=+-@\t\r\n＝＋－＠") and cell for row in back for cell in row)
