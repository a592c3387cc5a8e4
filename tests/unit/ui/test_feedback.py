"""CSV files as people export them, and what is written for spreadsheets."""

from __future__ import annotations

import pytest

from qwen_allinone.feedback_columns import as_rating, likely_number, likely_product, likely_text
from ui.feedback import BadRow, Row, Sheet, Unreadable, read, write


def sheet(text: str, *, header: bool = True, most: int = 100, codec: str = "utf-8") -> Sheet:
    return read(text.encode(codec), header=header, most=most)


@pytest.mark.parametrize(
    ("codec", "name"),
    [("utf-8", "UTF-8"), ("utf-8-sig", "UTF-8"), ("gbk", "GBK"), ("gb18030", "GBK"), ("utf-16", "UTF-16")],
)
def test_the_encodings_that_spreadsheets_save_are_read(codec: str, name: str) -> None:
    read_sheet = sheet("编号,反馈\n1,很好\n", codec=codec)
    assert (read_sheet.columns, read_sheet.rows, read_sheet.encoding) == (
        ("编号", "反馈"),
        (Row(2, ("1", "很好")),),
        name,
    )


def test_rows_know_the_line_they_begin_in_whatever_is_inside_them() -> None:
    text = '反馈\r\n"一\r\n二\n三"\r\n\r\n"他说""好"""\r\n最后\r\n'
    assert sheet(text).rows == (Row(2, ("一\r\n二\n三",)), Row(6, ('他说"好"',)), Row(7, ("最后",)))


def test_rows_of_another_width_are_left_out_and_named() -> None:
    read_sheet = sheet("a,b\n1,好\n2\n3,好,多\n4,好,,\n")
    assert read_sheet.rows == (Row(2, ("1", "好")), Row(5, ("4", "好")))
    assert read_sheet.bad == (BadRow(3, "有 1 列，应为 2 列"), BadRow(4, "有 3 列，应为 2 列"))


def test_a_quote_that_is_never_closed_is_named_by_its_line_and_the_rest_is_read() -> None:
    read_sheet = sheet('反馈\n好\n"坏"x\n很好\n"没有结束\n')
    assert read_sheet.rows == (Row(2, ("好",)), Row(4, ("很好",)))
    assert [bad.line for bad in read_sheet.bad] == [3, 5]


def test_what_lies_beyond_the_most_is_counted() -> None:
    read_sheet = sheet("反馈\n" + "好\n" * 7, most=5)
    assert (len(read_sheet.rows), read_sheet.beyond) == (5, 2)


def test_a_file_without_column_names_gets_some() -> None:
    assert sheet("好\n坏\n", header=False).columns == ("第 1 列",)
    assert len(sheet("好\n坏\n", header=False).rows) == 2
    assert sheet("a,,a\n1,2,3\n").columns == ("a", "第 2 列", "a (3)")


@pytest.mark.parametrize(
    ("text", "likely"),
    [
        ("日期,留言\n2026-11-28 10:30:00,很好\n2026-11-28 11:00:00,太慢\n", "留言"),
        ("订单号,金额,话\n20261128000123456,1299.00,不错\n", "话"),
        ("姓名,评价时间,评价内容\n欧阳娜娜小姐,2026年11月28日星期六,好\n", "评价内容"),
        ("product,review_date,review\nA very long product name indeed,2026-11-28,ok\n", "review"),
        ("a,b\n很长很长的一句话,短\n", "a"),
        ("评论数,备注\n123456789,好\n", "备注"),
    ],
)
def test_the_column_of_what_people_say_is_found_beside_longer_ones(text: str, likely: str) -> None:
    found = sheet(text)
    assert found.columns[found.likely_column()] == likely


@pytest.mark.parametrize(
    "row",
    [
        "2026-09-01,5",
        "2026年9月1日,5星",
        "2026-09-01T10:00:00Z,★★★★★",
        "2026/9/1 上午10时30分,12.50",
        "20260901, ",
        "1 Sep 2026,5 stars",
    ],
)
def test_a_file_of_figures_alone_has_no_text(row: str) -> None:
    assert not sheet(f"date,num\n{row}\n").has_text()
    assert sheet(f"date,num,说法\n{row},\n{row},好\n").has_text()


def test_a_short_text_is_more_than_a_long_date() -> None:
    found = sheet("甲,乙\n2026年11月28日星期六上午10时,好\n")
    assert found.columns[found.likely_column()] == "乙" and found.has_text()


@pytest.mark.parametrize(
    ("head", "row", "product", "number"),
    [
        ("customer_id,review_id,product_id,product_title,review", "7,R1,P1,Mug,fine", "product_title", "review_id"),
        ("店铺名称,商品ID,商品标题,评论内容", "一店,P1,杯子,很好", "商品标题", None),
        ("商品评价,商品名称,数量", "很好用的一个杯子,杯子,2", "商品名称", None),
        ("编号,评论", "1,好", None, "编号"),
    ],
)
def test_the_product_and_the_number_are_none_of_the_others(
    head: str, row: str, product: str | None, number: str | None
) -> None:
    columns, cells = head.split(","), row.split(",")
    again = [
        f"R{n}" if name == "review_id" else f"{n}" if name == "编号" else cell
        for n in (1, 2)
        for name, cell in zip(columns, cells, strict=True)
    ]
    sample = [again[: len(columns)], again[len(columns) :]]
    taken = {likely_text(columns, sample)}
    found = [likely(columns, sample, taken) for likely in (likely_product, likely_number)]
    assert [None if place is None else columns[place] for place in found] == [product, number]


@pytest.mark.parametrize(
    ("cell", "stars"), [("4.5", 5), ("3.5", 4), ("2.5", 3), ("★★", 2), ("4星", 4), ("9" * 400, None), ("无", None)]
)
def test_stars_are_rounded_by_one_rule(cell: str, stars: int | None) -> None:
    assert as_rating(cell) == stars


def test_a_head_of_many_commas_is_refused_at_once() -> None:
    with pytest.raises(Unreadable, match="80001 列"):
        sheet("a," * 80_000 + "\n")


def test_the_same_name_again_and_again_is_told_apart() -> None:
    assert sheet("a,a,a (2)\n1,2,3\n").columns == ("a", "a (2)", "a (2) (3)")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_delimiter_is_found(delimiter: str) -> None:
    read_sheet = sheet(f"编号{delimiter}反馈\n1{delimiter}房间很干净，下次还来\n")
    assert read_sheet.rows[0].cells == ("1", "房间很干净，下次还来")
    assert read_sheet.likely_column() == 1


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "没有数据"),
        (b"\n\n", "没有数据"),
        (b"a,b\n", "没有可用的数据行"),
        (b"\x89PNG\xff\xff\xff", "另存为"),
        (b"a\0b\n", "另存为"),
    ],
)
def test_what_is_no_table_is_refused_with_what_to_do(data: bytes, said: str) -> None:
    with pytest.raises(Unreadable, match=said):
        read(data, header=True, most=10)


def test_one_row_in_another_encoding_is_told_and_not_read_as_other_words() -> None:
    for codec in ("gbk", "big5"):
        data = "反馈\n房间很好\n".encode() + "早餐不錯\n".encode(codec)
        with pytest.raises(Unreadable, match="第 3 行不是 UTF-8，第 1 行却是"):
            read(data, header=True, most=10)


def test_big5_is_told_and_not_read_as_other_words() -> None:
    with pytest.raises(Unreadable, match="Big5.*另存为"):
        sheet("反饋\n房間很乾淨，早餐也不錯\n", codec="big5")


def test_excel_s_separator_line_is_no_record() -> None:
    read_sheet = sheet("sep=;\n编号;反馈\n1;很好, 真的, 很好\n")
    assert (read_sheet.columns, read_sheet.rows) == (("编号", "反馈"), (Row(3, ("1", "很好, 真的, 很好")),))


def test_what_is_written_opens_safely() -> None:
    assert write(("a",), [("=1",), ("好",)]) == b'\xef\xbb\xbf"a"\r\n"\'=1"\r\n"\xe5\xa5\xbd"\r\n'
