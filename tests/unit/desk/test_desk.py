"""The feedback desk without a model: sources, columns, the journal under kills, full disks and bad input, the report."""

from __future__ import annotations

import csv
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from multiprocessing import get_context
from pathlib import Path
from zipfile import ZipFile

import pytest

from qwen_allinone import desk
from qwen_allinone.desk.asking import Said, over_http
from qwen_allinone.desk.drafts import repeats_itself
from qwen_allinone.errors import DataFileError
from qwen_allinone.patience import Response
from qwen_allinone.wording import in_language, message_of
from tests.support.known_clerk import known, say

CLERK = known()


def run(files: Sequence[desk.File], folder: Path, *, resume: bool = False, clerk: desk.Clerk = CLERK) -> desk.Figures:
    table = desk.open_table(files, desk.Columns())
    folder.mkdir(exist_ok=True)
    with desk.Journal(folder / "journal.jsonl", {"files": table.fingerprint()}, resume=resume) as journal:
        desk.label(table, clerk, desk.TASKS, journal, sure=0.95, at_once=4, on_done=lambda: None)
        about = desk.About(
            ("<b>.csv",),
            "a-model",
            table.chosen,
            dict(clerk.tasks),
            0.95,
            datetime(2026, 9, 1),
            desk.survey(table).doubles,
        )
        return desk.write(folder, table, journal, about)


def read(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8-sig", newline="") as opened:
        return list(csv.DictReader(opened))


def written(folder: Path, name: str, content: str | bytes) -> Path:
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


ROWS = [{"评论": "东西坏了", "日期": "2026-09-01", "星级": "1"}, {"评论": "很好用", "日期": "2026-09-02", "星级": "5"}]


def as_csv(folder: Path) -> Path:
    return written(folder, "a.csv", "评论,日期,星级\n" + "".join(",".join(row.values()) + "\n" for row in ROWS))


def as_jsonl(folder: Path) -> Path:
    return written(folder, "a.jsonl", "\n".join(json.dumps(row) for row in ROWS))


def as_excel(folder: Path) -> Path:
    book = pytest.importorskip("openpyxl").Workbook()
    for cells in (list(ROWS[0]), *(list(row.values()) for row in ROWS)):
        book.active.append(cells)
    book.save(folder / "a.xlsx")
    return folder / "a.xlsx"


def as_parquet(folder: Path) -> Path:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), folder / "a.parquet")
    return folder / "a.parquet"


@pytest.mark.parametrize("make", [as_csv, as_jsonl, as_excel, as_parquet])
def test_every_kind_of_file_gives_the_same_rows(make: object, tmp_path: Path) -> None:
    run([make(tmp_path)], tmp_path / "out")  # type: ignore[operator]
    rows = read(tmp_path / "out" / "labelled.csv")
    assert [{name: row[name] for name in ROWS[0]} for row in rows] == ROWS
    assert [(row["情感"], row["报警"], row["建议回复"]) for row in rows] == [
        ("负面", "投诉、强烈负面", "很抱歉"), ("正面", "", ""),
    ]  # fmt: skip
    assert [row["内容"] for row in read(tmp_path / "out" / "alerts.csv")] == ["东西坏了"]


def test_all_of_a_sheet_is_read_whatever_the_file_says_of_its_size(tmp_path: Path) -> None:
    whole, lying = as_excel(tmp_path), tmp_path / "b.xlsx"
    with ZipFile(whole) as read_from, ZipFile(lying, "w") as write_to:
        for name in read_from.namelist():
            content = read_from.read(name)
            write_to.writestr(name, re.sub(rb'<dimension ref="[^"]+"', b'<dimension ref="A1"', content))
    table = desk.open_table([lying], desk.Columns())
    assert [feedback.text for feedback in table.rows()] == [row["评论"] for row in ROWS]


def test_a_number_with_half_a_character_is_a_number(tmp_path: Path) -> None:
    file = written(tmp_path, "a.jsonl", '{"编号": "\\ud83d", "评论": "好"}\n{"编号": "2", "评论": "坏"}\n')
    assert desk.survey(desk.open_table([file], desk.Columns(number="编号"))).rows == 2


def test_a_run_goes_on_with_the_same_weights_only_where_they_are_known(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with desk.Journal(path, {"model": "demo", "weights or prompts": "a"}, resume=False):
        pass
    for same in ({"model": "demo", "weights or prompts": "a"}, {"model": "demo"}):
        with desk.Journal(path, same, resume=True):
            pass
    with pytest.raises(DataFileError, match="other weights or prompts"):
        desk.Journal(path, {"model": "demo", "weights or prompts": "b"}, resume=True)


def test_columns_are_guessed_and_an_unknown_one_is_told_with_those_there_are() -> None:
    sample = Path(desk.__file__).parent / "sample.csv"
    assert desk.open_table([sample], desk.Columns()).chosen == desk.Columns("评论", "日期", "商品", "星级", "编号")
    with pytest.raises(DataFileError, match="no column '评伦'.*评论.*--text"):
        desk.open_table([sample], desk.Columns(text="评伦"))


def test_a_table_without_a_text_is_refused_unless_a_column_is_named(tmp_path: Path) -> None:
    dates = written(tmp_path, "dates.csv", "date,num\n2026-09-01,1\n2026-09-02,2\n")
    with pytest.raises(DataFileError, match="numbers and dates alone, and no text: date, num.* --text") as caught:
        desk.open_table([dates], desk.Columns())
    assert "没有文字：date、num" in in_language(message_of(caught.value), "zh")
    assert desk.open_table([dates], desk.Columns(text="num")).chosen.text == "num"
    empty = written(tmp_path, "empty.csv", "date,num\n")
    assert desk.survey(desk.open_table([empty], desk.Columns())).rows == 0


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.csv", "", "is empty"),
        ("a.csv", b"text\n\xe6\x88\xbf\xe9\x97\xb4\n\xd4\xe7\xb2\xcd\n", "line 3 is not UTF-8, but line 2 is"),
        ("a.xlsx", "no archive", "no Excel file"),
        ("a.parquet", "no parquet", "no Parquet file"),
        ("a.pdf", "text", "name it as what it is"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_with_the_line(
    name: str, content: str | bytes, told: str, tmp_path: Path
) -> None:
    with pytest.raises(DataFileError, match=told):
        desk.open_table([written(tmp_path, name, content)], desk.Columns())


def test_bad_rows_keep_their_place_and_say_what_is_wrong(tmp_path: Path) -> None:
    rows = ["1,很好用", "2,=cmd|坏", "1," + "长" * 1_000_000, "4", "5,好,多", "6,", "7,拒绝这条", '8,"没有配对']
    file = written(tmp_path, "a.csv", "编号,评论\n" + "\n".join(rows) + "\n")
    figures = run([file], tmp_path / "out")
    labelled = read(tmp_path / "out" / "labelled.csv")
    assert [row["行"] for row in labelled] == [str(line) for line in range(2, 10)]
    assert labelled[1]["评论"] == "'=cmd|坏" and labelled[1]["情感"] == "负面"
    assert len(labelled[2]["评论"]) == 1_000_000 and "1000000 个字" in labelled[2]["说明"]
    assert [bool(row["说明"]) for row in labelled] == [False, False, *[True] * 6]
    assert "多" in labelled[4]["说明"] and "引号" in labelled[7]["说明"]
    assert figures.rows == 8 and figures.labelled == 2
    found = desk.survey(desk.open_table([file], desk.Columns()))
    assert found.doubles == 1 and any("line 4: the '编号' of line 2" in line for line in found.told)


def test_the_report_escapes_what_people_said_and_loads_nothing(tmp_path: Path) -> None:
    attack = "<script>alert(1)</script>坏 <img src=x onerror=alert(1)>"
    run([written(tmp_path, "a.jsonl", json.dumps({"评论": attack, "商品": attack}))], tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "<script" not in page and "<img" not in page and "&lt;script&gt;alert(1)" in page
    assert "&lt;b&gt;.csv" in page and "http:" not in page and "https:" not in page
    assert "90%" in page, "how good the model is on its gold cases"


def test_where_somebody_needs_help_no_reply_is_suggested_and_it_comes_first(tmp_path: Path) -> None:
    run([written(tmp_path, "a.csv", "评论\n坏了\n坏了，不想活了\n")], tmp_path / "out")
    alerts = {row["内容"]: row for row in read(tmp_path / "out" / "alerts.csv")}
    assert alerts["坏了，不想活了"]["级别"] == "紧急" and not alerts["坏了，不想活了"]["建议回复"]
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    alarms = page[page.index("<h2>报警") :]
    assert alarms.index("不想活了") < alarms.index(">坏了<")


@pytest.mark.parametrize(
    "text",
    [
        "退款退款退款退款退款", "您好，第13888888888", "好的，我们马上为您处理，马上为您处理，马上为您处理，马上为您处理，马上为您处理",
        "请稍等 请稍等 请稍等\n请稍等 请稍等", "抱歉" + "一二三四五六七八九十甲乙" * 5, "sorry, sorry, sorry, sorry, sorry", "嗯" * 8,
    ],
)  # fmt: skip
def test_a_draft_that_goes_round_and_round_is_known(text: str) -> None:
    assert repeats_itself(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "很抱歉，我们马上为您处理", "哈哈哈哈", "太好了!!!!!", "祝您 888", "嗯" * 7, "退款退款退款退款", "共 100000 元",
        "一二三四五六七八九十甲乙丙" * 5, "真的真的很抱歉，谢谢谢谢您", " " * 40, "稍等……………………".replace("…" * 8, "…" * 6),
    ],
)  # fmt: skip
def test_emphasis_is_not_taken_for_a_draft_that_goes_round_and_round(text: str) -> None:
    assert not repeats_itself(text)


def test_drafts_in_a_loop_or_cut_off_are_dropped_told_and_not_asked_for_again(tmp_path: Path) -> None:
    asked: list[str] = []

    def looping(task: str, inputs: Mapping[str, str]) -> Said:
        if task != "suggest":
            return say(task, inputs)
        asked.append(inputs["text"])
        return {"坏一": Said(text="退款" * 30), "坏二": Said(text="我们会尽", is_cut=True)}.get(
            inputs["text"], Said(text="很抱歉")
        )

    file, clerk = written(tmp_path, "a.csv", "评论\n坏一\n坏二\n坏三\n"), known(looping)
    for resume in (False, True):
        figures = run([file], tmp_path / "out", resume=resume, clerk=clerk)
        labelled = read(tmp_path / "out" / "labelled.csv")
        assert [row["建议回复"] for row in labelled] == ["", "", "很抱歉"]
        assert [row["说明"] for row in labelled] == [*["拟的回复不断重复或没有写完，没有采用"] * 2, ""]
        assert (figures.labelled, figures.suggested, figures.drafts_dropped) == (3, 1, 2)
        page = (tmp_path / "out" / "report.html").read_text("utf-8")
        assert "退款退款" not in page and "我们会尽" not in page and "很抱歉" in page
    assert sorted(asked) == ["坏一", "坏三", "坏二"], "once each, whatever came of it"


def test_a_run_from_before_drafts_were_dropped_goes_on(tmp_path: Path) -> None:
    file = written(tmp_path, "a.csv", "评论\n坏了\n")
    run([file], tmp_path / "out")
    journal = tmp_path / "out" / "journal.jsonl"
    journal.write_text(journal.read_text().replace(', "draft_dropped": false', ""))
    assert run([file], tmp_path / "out", resume=True).drafts_dropped == 0


class Remote:
    """A running service of one task, whose replies end at their limit."""

    def ask(self, method: str, path: str, body: object = None) -> Response:
        tasks = {"tasks": [{"name": "suggest", "labels": []}]}
        cut = {"task": "suggest", "text": "我们会尽", "detail": {"finish_reason": "length"}}
        return Response(200, json.dumps(tasks if method == "GET" else cut).encode(), "demo", 0.0)


def test_a_service_tells_that_a_draft_was_cut_off() -> None:
    clerk = over_http(Remote())  # type: ignore[arg-type]
    assert clerk.ask("suggest", {"text": "坏了"}) == Said(text="我们会尽", is_cut=True)


def test_key_words_that_are_not_in_the_text_are_not_counted(tmp_path: Path) -> None:
    def slipping(task: str, inputs: Mapping[str, str]) -> Said:
        return Said(items=("wifi", "屏幕", "房问")) if task == "keywords" else say(task, inputs)

    file = written(tmp_path, "a.csv", "评论\nＷｉＦｉ很好\n屏\u200b幕坏了\n房间坏了\n")
    figures = run([file], tmp_path / "out", clerk=known(slipping))
    assert [(known.word, known.rows) for known in figures.praise.most_named(9)] == [("wifi", 1)]
    assert [(known.word, known.rows) for known in figures.complaints.most_named(9)] == [("屏幕", 1)]
    assert "房问" not in (tmp_path / "out" / "report.html").read_text("utf-8")
    assert [row["关键词"] for row in read(tmp_path / "out" / "labelled.csv")] == ["wifi、屏幕、房问"] * 3


def slowly(task: str, inputs: Mapping[str, str]) -> Said:
    time.sleep(0.0005)
    return say(task, inputs)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_rows_are_neither_lost_nor_doubled_when_it_is_killed_again_and_again(tmp_path: Path) -> None:
    texts = [f"第{n}条{'坏' * (n % 2)}" for n in range(1200)]
    file = written(tmp_path, "a.csv", "评论\n" + "\n".join(texts) + "\n")
    journal, clerk = tmp_path / "out" / "journal.jsonl", known(slowly)
    kills = size = 0
    while True:
        process = get_context("fork").Process(
            target=run, args=([file], tmp_path / "out"), kwargs={"resume": True, "clerk": clerk}
        )
        process.start()
        while process.is_alive() and kills < 3:
            if journal.exists() and journal.stat().st_size > size:
                process.kill()
                process.join()
                kills += 1
                with journal.open("ab") as torn:
                    torn.write(b'{"n": 999, "half a li')  # as a kill within a write leaves it
                size = journal.stat().st_size
        process.join()
        if process.exitcode == 0:
            break
    assert kills == 3
    labelled = read(tmp_path / "out" / "labelled.csv")
    assert [row["评论"] for row in labelled] == texts
    assert all((row["情感"] == "负面") == ("坏" in row["评论"]) for row in labelled)


def test_a_full_disk_in_the_middle_is_told_and_what_was_done_stays(tmp_path: Path) -> None:
    bad = [n % 7 == 0 for n in range(900)]
    file = written(tmp_path, "a.csv", "评论\n" + "".join("坏\n" if is_bad else "好\n" for is_bad in bad))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, limits[1]))
    try:
        with pytest.raises(DataFileError, match=r"cannot be written.*\d+ rows are done and kept"):
            run([file], tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    kept = (tmp_path / "out" / "journal.jsonl").read_bytes()
    assert kept.endswith(b"\n") and kept.count(b"\n") > 100
    assert run([file], tmp_path / "out", resume=True).rows == 900
    assert (tmp_path / "out" / "journal.jsonl").read_bytes().startswith(kept)
    assert [row["情感"] == "负面" for row in read(tmp_path / "out" / "labelled.csv")] == bad


def test_a_folder_with_a_run_is_neither_overwritten_nor_mixed_with_another_nor_used_by_two(tmp_path: Path) -> None:
    file = as_csv(tmp_path)
    run([file], tmp_path / "out")
    with pytest.raises(DataFileError, match="holds a run already, 2 rows are done"):
        run([file], tmp_path / "out")
    with desk.Journal(tmp_path / "locked.jsonl", {}, resume=False), pytest.raises(DataFileError, match="another run"):
        desk.Journal(tmp_path / "locked.jsonl", {}, resume=True)
    file.write_text("评论\n别的\n", "utf-8")
    with pytest.raises(DataFileError, match="a run with other files"):
        run([file], tmp_path / "out", resume=True)


def test_ctrl_c_keeps_what_is_done(tmp_path: Path) -> None:
    file = written(tmp_path, "a.csv", "评论\n" + "好\n" * 5000)  # many: the signal takes a moment to arrive
    table = desk.open_table([file], desk.Columns())
    seen: list[int] = []

    def interrupt() -> None:
        seen.append(1)
        if len(seen) == 30:
            os.kill(os.getpid(), signal.SIGINT)

    path = tmp_path / "journal.jsonl"
    # What a shell starts in the background ignores it, and so do these tests there.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with desk.Journal(path, {}, resume=False) as journal, pytest.raises(KeyboardInterrupt):
            desk.label(table, CLERK, desk.TASKS, journal, sure=0.95, at_once=4, on_done=interrupt)
    finally:
        signal.signal(signal.SIGINT, before)
    with desk.Journal(path, {}, resume=True) as journal:
        assert 30 <= journal.done < 5000 and len(list(journal.answers())) == journal.done


def test_a_file_in_a_store_is_read_as_one_on_the_disk_and_no_message_tells_its_password(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    for make in (as_csv, as_jsonl, as_parquet):
        file = make(tmp_path)
        stored = desk.place(file.as_uri())
        assert isinstance(stored, desk.StoredFile) and stored.name == file.name
        there, here = desk.open_table([stored], desk.Columns()), desk.open_table([file], desk.Columns())
        assert list(there.rows()) == list(here.rows()) and there.fingerprint() == here.fingerprint()
    with pytest.raises(DataFileError, match="file:///nowhere/a.csv cannot be read"):
        desk.open_table([desk.place("file:///nowhere/a.csv")], desk.Columns())
    with pytest.raises(DataFileError, match="ftp:// is no store that is known"):
        desk.place("ftp://somewhere/a.csv")
    assert "secret" not in str(desk.place("s3://key:secret@bucket/a.csv?session=secret"))


def test_memory_does_not_grow_with_the_rows() -> None:
    """A million are a command of their own: python -m tests.support.desk_memory 1000000"""

    def grown_mb(rows: int) -> float:
        command = (sys.executable, "-m", "tests.support.desk_memory", str(rows))
        ran = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=True)
        return float(json.loads(ran.stdout)["grown_mb"])

    few, many = grown_mb(10_000), grown_mb(50_000)
    assert many - few < 12, "300 bytes a row, and a million rows take 300 MB"
