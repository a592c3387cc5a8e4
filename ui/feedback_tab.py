"""The third tab: a file of feedback goes in; labelled rows, their shares and a download come out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gradio as gr

from ui import feedback, show
from ui.batch import Batch
from ui.client import About, Api
from ui.parts import MOST_AT_ONCE, QUIET, html
from ui.settings import Settings

Changes = dict[Any, Any]  # a part of the page and what becomes of it


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

    results = {bar: "", chart: "", rows: "", bad: ""}

    def look(path: str | None, with_header: bool) -> Changes:
        """Say what is in the file, and offer its columns."""
        empty = {**results, column: gr.update(visible=False), start: gr.update(interactive=False), said: ""}
        empty[download] = gr.update(visible=False)
        if not path:
            return empty
        try:
            sheet = _read(path, with_header, settings)
        except feedback.Unreadable as error:
            return empty | {said: show.notice(str(error))}
        choices = list(zip(sheet.columns, range(len(sheet.columns)), strict=True))
        return empty | {
            column: gr.update(visible=len(choices) > 1, choices=choices, value=sheet.likely_column()),
            start: gr.update(interactive=True),
            said: show.notice(_found(sheet), kind="hint"),
            bad: show.bad_rows(sheet.bad),
        }

    async def label(
        path: str | None, with_header: bool, place: int | None, name: str | None, known: About | None
    ) -> AsyncIterator[Changes]:
        chosen = known.task(name) if known else None
        if not path or chosen is None:
            yield {said: show.notice("请先选择文件" if not path else "还没有连上服务，请先点“重新连接”")}
            return
        try:
            sheet = await asyncio.to_thread(_read, path, with_header, settings)
        except feedback.Unreadable as error:
            yield {said: show.notice(str(error))}
            return
        batch = Batch(api, sheet, min(place or 0, len(sheet.columns) - 1), chosen, settings.parallel)
        # What the run is about stays as it is until it has ended.
        fixed = dict.fromkeys((file, header, column, task), gr.update(interactive=False))
        busy = {start: gr.update(visible=False), halt: gr.update(visible=True), download: gr.update(visible=False)}
        yield {running: batch, **fixed, **busy, rows: ""}
        async with aclosing(batch.run()) as ticks:
            async for _ in ticks:
                yield {bar: batch.progress(), chart: batch.shares()}
        free = dict.fromkeys(fixed, gr.update(interactive=True))
        idle = {start: gr.update(visible=True), halt: gr.update(visible=False), running: None}
        shown = {bar: batch.progress(), chart: batch.shares(), rows: batch.table(), bad: batch.bad()}
        with TemporaryDirectory() as folder:
            made = Path(folder) / f"{Path(path).stem[:60]}-{chosen.name}.csv"
            made.write_bytes(batch.file())
            ready = {download: gr.update(visible=True, value=str(made)), said: show.notice(batch.given_up or "")}
            # Gradio takes a copy for the download when it gets this; ours goes afterwards.
            yield {**free, **idle, **shown, **ready}

    for change in (file.change, header.change):
        change(look, inputs=[file, header], outputs=[*results, column, start, said, download], **QUIET)
    start.click(
        label,
        inputs=[file, header, column, task, about],
        outputs=[*results, file, header, column, task, start, halt, said, download, running],
        concurrency_limit=MOST_AT_ONCE,
        trigger_mode="once",
        **QUIET,
    )

    def stop(batch: Batch | None) -> None:
        if batch:
            batch.stop()

    halt.click(stop, inputs=running, queue=False, **QUIET)
    return task


def _read(path: str, header: bool, settings: Settings) -> feedback.Sheet:
    return feedback.read(Path(path).read_bytes(), header=header, most=settings.max_rows)


def _found(sheet: feedback.Sheet) -> str:
    beyond = f"；文件太长，只处理前 {len(sheet.rows)} 行，其余 {sheet.beyond} 行不处理" if sheet.beyond else ""
    return f"读到 {len(sheet.rows)} 行，{sheet.encoding} 编码{beyond}"
