"""The third tab: a file of feedback goes in; labelled rows, their shares and a download come out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gradio as gr

from ui import feedback, show
from ui.batch import Batch
from ui.client import About, Api
from ui.parts import MOST_AT_ONCE, QUIET, html
from ui.settings import Settings


def add(api: Api, settings: Settings, about: gr.State) -> gr.Dropdown:
    """Build it; returns the choice of task."""
    running = gr.State(None)
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            file = gr.File(
                label="CSV 文件（UTF-8 或 GBK）", file_types=[".csv", ".txt", ".tsv"], height=150, elem_id="file"
            )
            header = gr.Checkbox(True, label="第一行是列名", elem_id="header")
            column = gr.Dropdown([], label="反馈所在的列", visible=False, filterable=False, elem_id="column")
            task = gr.Dropdown([], label="任务", filterable=False, elem_id="labeller")
            with gr.Row():
                start = gr.Button("开始", variant="primary", interactive=False, min_width=100, elem_id="start")
                halt = gr.Button("停止", variant="stop", visible=False, min_width=100, elem_id="halt-file")
            said = html(elem_id="file-said")
        with gr.Column(scale=2, min_width=280):
            bar = html(elem_id="progress")
            chart = html(elem_id="shares")
            download = gr.DownloadButton("下载结果（CSV）", visible=False, variant="primary", elem_id="download")
            rows = html(elem_id="rows")
            bad = html(elem_id="bad")

    def look(path: str | None, with_header: bool) -> list[Any]:
        """Say what is in the file, and offer its columns."""
        clean = ["", "", gr.update(visible=False), "", ""]
        if not path:
            return [gr.update(visible=False, choices=[]), gr.update(interactive=False), "", *clean]
        try:
            sheet = _read(path, with_header, settings)
        except feedback.Unreadable as error:
            return [
                gr.update(visible=False, choices=[]),
                gr.update(interactive=False),
                show.notice(str(error)),
                *clean,
            ]
        choices = list(zip(sheet.columns, range(len(sheet.columns)), strict=True))
        offered = gr.update(visible=len(choices) > 1, choices=choices, value=sheet.likely_column())
        clean[-1] = show.bad_rows(sheet.bad)
        return [offered, gr.update(interactive=True), show.notice(_found(sheet), kind="hint"), *clean]

    async def label(
        path: str | None, with_header: bool, place: int | None, name: str | None, known: About | None
    ) -> AsyncIterator[list[Any]]:
        chosen = known.task(name) if known else None
        if not path or chosen is None:
            why = "请先选择文件" if not path else "还没有连上服务，请先点“重新连接”"
            yield [None, gr.skip(), gr.skip(), show.notice(why), *[gr.skip()] * 5]
            return
        try:
            sheet = _read(path, with_header, settings)
        except feedback.Unreadable as error:
            yield [None, gr.skip(), gr.skip(), show.notice(str(error)), *[gr.skip()] * 5]
            return
        place = min(place or 0, len(sheet.columns) - 1)
        work = Batch(api, sheet, place, chosen, settings.parallel)
        busy = [gr.update(visible=False), gr.update(visible=True), gr.skip()]
        hidden = gr.update(visible=False)
        async for _ in work.run():
            yield [work, *busy, work.progress(), work.shares(), hidden, "", gr.skip()]
            busy, hidden = [gr.skip()] * 3, gr.skip()
        with TemporaryDirectory() as folder:
            path_out = Path(folder) / f"{Path(path).stem[:60]}-{chosen.name}.csv"
            path_out.write_bytes(work.file())
            idle = [gr.update(visible=True), gr.update(visible=False), show.notice(work.given_up or "")]
            ready = gr.update(visible=True, value=str(path_out))
            # Gradio keeps a copy for the download; ours goes when it has been taken.
            yield [None, *idle, work.progress(), work.shares(), ready, work.table(), work.bad()]

    shown_by_file = [column, start, said, bar, chart, download, rows, bad]
    for change in (file.change, header.change):
        change(look, inputs=[file, header], outputs=shown_by_file, **QUIET)
    start.click(
        label,
        inputs=[file, header, column, task, about],
        outputs=[running, start, halt, said, bar, chart, download, rows, bad],
        concurrency_limit=MOST_AT_ONCE,
        trigger_mode="once",
        **QUIET,
    )

    def stop(work: Batch | None) -> None:
        if work:
            work.stop()

    halt.click(stop, inputs=running, queue=False, **QUIET)
    return task


def _read(path: str, header: bool, settings: Settings) -> feedback.Sheet:
    return feedback.read(Path(path).read_bytes(), header=header, most=settings.max_rows)


def _found(sheet: feedback.Sheet) -> str:
    beyond = f"；文件太长，只处理前 {len(sheet.rows)} 行，其余 {sheet.beyond} 行不处理" if sheet.beyond else ""
    return f"读到 {len(sheet.rows)} 行，{sheet.encoding} 编码{beyond}"
