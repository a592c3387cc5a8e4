"""The third tab: a file of feedback goes in; labelled rows, their shares, alarms, replies and a report come out.

Where the service works batches off, it has the file and goes on whether anybody looks or not; the browser keeps the id.
Elsewhere the page asks row by row while the visitor waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

import gradio as gr

from ui import feedback, show
from ui.batch import Batch
from ui.client import About, Api, ApiError, Task
from ui.desk_job import DeskJob, offers_desk
from ui.labelled import Labelled
from ui.parts import MOST_AT_ONCE, QUIET, WhenConnected, html
from ui.settings import Settings
from ui.talking import told

# Between two looks at a batch: short at first, for a file of a few rows.
_NO_TEXT = "文件里像是只有数字和日期，没有文字：请换一个文件，或在下面选出人们所说的话在哪一列"
_LOOKS_S = (0.5, 0.5, 1.0, 1.0, 2.0)
_LONGEST_LOOK_S = 4.0
_PATIENCE_S = 120.0  # with a service that does not answer, before the visitor is left to come back later

Changes = dict[Any, Any]  # a part of the page and what becomes of it


def add(api: Api, settings: Settings, about: gr.State, kept: gr.BrowserState) -> tuple[gr.Dropdown, WhenConnected]:
    """Build it; returns the choice of task, and what is still to be done when the service is known. `kept` is where the
    browser has the id of its file."""
    running = gr.State(None)
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            file = gr.File(
                label="CSV 文件（UTF-8 或 GBK）", file_types=[".csv", ".txt", ".tsv"], height=150, elem_id="file"
            )
            header = gr.Checkbox(True, label="第一行是列名", elem_id="header")
            column = gr.Dropdown([], label="反馈所在的列", visible=False, filterable=False, elem_id="column")
            task = gr.Dropdown([], label="任务", filterable=False, elem_id="labeller")
            desk = gr.Checkbox(True, label="报告、警报和建议回复", visible=False, elem_id="desk")
            with gr.Row():
                start = gr.Button("开始", variant="primary", interactive=False, min_width=100, elem_id="start")
                halt = gr.Button("停止", variant="stop", visible=False, min_width=100, elem_id="halt-file")
            said = html(elem_id="file-said")
            discard = gr.Button("删除这个文件和结果", size="sm", visible=False, elem_id="discard")
        with gr.Column(scale=2, min_width=280):
            bar = html(elem_id="progress")
            chart = html(elem_id="shares")
            with gr.Row():
                download = _download("下载结果（CSV）", "download", variant="primary")
                alarm_file = _download("下载警报（CSV）", "download-alarms")
                report_file = _download("下载报告（网页）", "download-report")
            alarms = html(elem_id="alarms")
            with gr.Accordion("报告", open=True, visible=False, elem_id="report") as report:
                page = html(elem_id="report-page")
            rows = html(elem_id="rows")
            bad = html(elem_id="bad")

    downloads = (download, alarm_file, report_file)
    chosen = (file, header, column, task, desk)
    results = {bar: "", chart: "", rows: "", bad: "", alarms: "", page: "", report: gr.update(visible=False)}
    results |= dict.fromkeys(downloads, gr.update(visible=False))
    # What the run is about stays as it is until it has ended.
    fixed = dict.fromkeys(chosen, gr.update(interactive=False))
    busy = {start: gr.update(visible=False), halt: gr.update(visible=True), discard: gr.update(visible=False)}
    free = dict.fromkeys(chosen, gr.update(interactive=True))
    idle = {start: gr.update(visible=True), halt: gr.update(visible=False), running: None}

    def look(path: str | None, with_header: bool) -> Changes:
        """Say what is in the file, and offer its columns."""
        empty = {**results, column: gr.update(visible=False), start: gr.update(interactive=False), said: ""}
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
            said: show.notice(_found(sheet), kind="hint") if sheet.has_text() else show.notice(_NO_TEXT),
            bad: show.bad_rows(sheet.bad),
        }

    async def label(
        path: str | None, with_header: bool, place: int | None, name: str | None, wants_desk: bool, known: About | None
    ) -> AsyncIterator[Changes]:
        task = known.task(name) if known else None
        if not path or known is None or task is None:
            yield {said: show.notice("请先选择文件" if not path else "还没有连上服务，请先点“重新连接”")}
            return
        try:
            sheet = await asyncio.to_thread(_read, path, with_header, settings)
        except feedback.Unreadable as error:
            yield {said: show.notice(str(error))}
            return
        place = min(place or 0, len(sheet.columns) - 1)
        way = in_time if known.batches else at_once
        steps = way(known, Path(path), sheet, with_header, place, task, wants_desk and offers_desk(known, task))
        async with aclosing(steps) as changes:
            async for changed in changes:
                yield changed

    async def at_once(
        known: About, path: Path, sheet: feedback.Sheet, with_header: bool, place: int, task: Task, wants_desk: bool
    ) -> AsyncGenerator[Changes, None]:
        """Ask row by row while the visitor waits."""
        batch = Batch(api, sheet, place, task, settings.parallel)
        yield {**results, running: batch, **fixed, **busy}
        async with aclosing(batch.run()) as ticks:
            async for _ in ticks:
                yield {bar: batch.progress(), chart: batch.labelled.shares()}
        ended = {bar: batch.progress(), said: show.notice(batch.given_up or "")}
        with TemporaryDirectory() as folder:
            made = _made(folder, f"{path.stem[:60]}-{task.name}.csv", batch.labelled.file())
            yield {**free, **idle, **_labels(batch.labelled), **ended, download: made}

    async def in_time(
        known: About, path: Path, sheet: feedback.Sheet, with_header: bool, place: int, task: Task, wants_desk: bool
    ) -> AsyncGenerator[Changes, None]:
        """Hand the file to the service, and show how far it is."""
        handing = show.notice("正在交给服务……", kind="hint")
        yield {**results, **fixed, start: gr.update(interactive=False), said: handing}
        given, most = (path.read_bytes(), with_header, place, task, path.stem[:60]), settings.max_rows
        try:
            job = await DeskJob.begin(api, known, *given, most=most, desk=wants_desk)
        except ApiError as error:
            yield {**free, start: gr.update(interactive=True), said: show.notice(told(error))}
            return
        yield {kept: {"job": job.main}, start: gr.update(interactive=True), said: ""}
        async with aclosing(watch(job)) as changes:
            async for changed in changes:
                yield changed

    async def watch(job: DeskJob) -> AsyncGenerator[Changes, None]:
        """Show how far a file is until it is done, then what came of it."""
        yield {running: job, **fixed, **busy, bar: job.progress()}
        answered, looks = monotonic(), iter(_LOOKS_S)
        while not job.over:
            await asyncio.sleep(next(looks, _LONGEST_LOOK_S))
            try:
                await job.look()
            except ApiError as error:
                if error.status == 404 or monotonic() - answered > _PATIENCE_S:
                    yield {**free, **idle, said: show.notice(f"{told(error)}。重新打开这一页会再去看")}
                    return
                continue
            answered = monotonic()
            yield {bar: job.progress()}
        try:
            await job.fetch()
            found = await job.desk()
        except ApiError as error:
            yield {**free, **idle, said: show.notice(f"{told(error)}。重新打开这一页会再去看")}
            return
        shown = {**free, **idle, **_labels(job.labelled), bar: job.progress(), discard: gr.update(visible=True)}
        shown[said] = show.notice(job.problem)
        with TemporaryDirectory() as folder:
            stem = f"{job.name}-{job.labelled.task.name}"
            shown[download] = _made(folder, f"{stem}.csv", found.file() if found else job.labelled.file())
            if found:
                shown[alarms] = found.alarms()
                shown |= {page: show.document("报告", found.report), report: gr.update(visible=True)}
                shown[report_file] = _made(folder, f"{stem}-report.html", found.report.encode("utf-8", "replace"))
            if found and found.figures.alarmed:
                shown[alarm_file] = _made(folder, f"{stem}-alerts.csv", found.alarm_file())
            yield shown

    def _labels(labelled: Labelled) -> Changes:
        return {chart: labelled.shares(), rows: labelled.table(), bad: labelled.bad()}

    async def come_back(known: About | None, stored: dict[str, Any] | None, now: Any) -> AsyncIterator[Changes]:
        """Go on showing the file that this browser has at the service."""
        job_id = stored.get("job") if isinstance(stored, dict) else None
        if known is None or not known.batches or not isinstance(job_id, str) or now is not None:
            yield {said: gr.skip()}
            return
        try:
            job = await DeskJob.resume(api, known, job_id)
        except ApiError as error:
            yield {kept: None} if error.status == 404 else {said: show.notice(told(error))}
            return
        yield {said: show.notice(f"接着显示上次的文件：{job.name}", kind="hint")}
        async with aclosing(watch(job)) as changes:
            async for changed in changes:
                yield changed

    async def throw_away(known: About | None, stored: dict[str, Any] | None) -> Changes:
        job_id = stored.get("job") if isinstance(stored, dict) else None
        if known is not None and isinstance(job_id, str):
            try:
                await (await DeskJob.resume(api, known, job_id)).discard()
            except ApiError as error:
                if error.status != 404:
                    return {said: show.notice(told(error))}
        gone = show.notice("服务里的文件和结果已经删除", kind="hint")
        return {**results, kept: None, discard: gr.update(visible=False), said: gone}

    def offer(name: str | None, known: About | None) -> Any:
        return gr.update(visible=offers_desk(known, known.task(name) if known else None))

    shown = [*results, *chosen, start, halt, said, discard, running, kept]
    for change in (file.change, header.change):
        change(look, inputs=[file, header], outputs=[*results, column, start, said], **QUIET)
    task.change(offer, inputs=[task, about], outputs=desk, queue=False, **QUIET)
    start.click(
        label,
        inputs=[*chosen, about],
        outputs=shown,
        concurrency_limit=MOST_AT_ONCE,
        trigger_mode="once",
        **QUIET,
    )

    async def stop(run: Batch | DeskJob | None) -> Any:
        if run:
            try:
                await run.stop()
            except ApiError as error:
                return show.notice(told(error))
        return gr.skip()

    halt.click(stop, inputs=running, outputs=said, queue=False, **QUIET)
    discard.click(throw_away, inputs=[about, kept], outputs=[*results, kept, discard, said], **QUIET)
    return task, WhenConnected(come_back, [about, kept, running], shown)


def _download(label: str, name: str, **look: Any) -> gr.DownloadButton:
    return gr.DownloadButton(label, visible=False, min_width=140, elem_id=name, **look)


def _made(folder: str, name: str, data: bytes) -> Any:
    """A file for a download: Gradio takes a copy when it gets this; ours goes afterwards."""
    path = Path(folder) / name
    path.write_bytes(data)
    return gr.update(visible=True, value=str(path))


def _read(path: str, header: bool, settings: Settings) -> feedback.Sheet:
    return feedback.read(Path(path).read_bytes(), header=header, most=settings.max_rows)


def _found(sheet: feedback.Sheet) -> str:
    beyond = f"；文件太长，只处理前 {len(sheet.rows)} 行，其余 {sheet.beyond} 行不处理" if sheet.beyond else ""
    return f"读到 {len(sheet.rows)} 行，{sheet.encoding} 编码{beyond}"
