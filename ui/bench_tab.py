"""The fourth tab, where the service lets prompts be edited: change one, see what it does to the gold cases, save it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import gradio as gr

from ui import bench, show
from ui.client import About, Api, ApiError
from ui.parts import MOST_AT_ONCE, QUIET, WhenConnected, html
from ui.talking import told

_ABOUT = "改动只在这里试，不影响别人；存成新任务并重新载入后才生效。"

Changes = dict[Any, Any]


def add(api: Api, about: gr.State, tab: gr.Tab) -> WhenConnected:
    """Build it in `tab`, which is shown once the service is known to have a bench."""
    served = gr.State("")
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            task = gr.Dropdown([], label="任务", filterable=False, elem_id="bench-task")
            html(f'<p class="remark">{_ABOUT}</p>')
            prompt = gr.Textbox(
                label="提示词（prompt.md）", lines=16, max_lines=30, elem_id="bench-prompt", elem_classes="mono"
            )
            with gr.Row():
                run = gr.Button(
                    "运行标准用例", variant="primary", min_width=120, interactive=False, elem_id="bench-run"
                )
                undo = gr.Button("恢复原样", min_width=100, interactive=False, elem_id="bench-undo")
            name = gr.Textbox(
                label="新任务的名字",
                info="a-z、0-9 和 _，以字母开头",
                max_lines=1,
                max_length=40,
                elem_id="bench-name",
            )
            save = gr.Button("存成新任务", interactive=False, elem_id="bench-save")
            said = html(elem_id="bench-said")
        with gr.Column(scale=2, min_width=280):
            result = html(elem_id="bench-result")

    async def open_bench(known: About | None) -> Changes:
        if known is None or not known.bench:
            return {tab: gr.update(visible=False)}
        tasks = sorted(known.tasks, key=lambda one: one.name != "sentiment")  # what most come for stands first
        choices = [(f"{one.description}（{one.name}）", one.name) for one in tasks]
        return {
            tab: gr.update(visible=True),
            task: gr.update(choices=choices, value=choices[0][1] if choices else None),
        }

    async def read(which: str | None, known: About | None) -> Changes:
        off = dict.fromkeys((run, undo, save), gr.update(interactive=False))
        if known is None or not known.bench or not which:
            return {**off, prompt: "", served: "", result: "", said: ""}
        try:
            found = await bench.read(api, which)
        except ApiError as error:
            return {**off, prompt: "", served: "", result: "", said: show.notice(told(error))}
        on = dict.fromkeys((run, undo, save), gr.update(interactive=True))
        hint = f"{found.cases} 条标准用例" if found.cases else "这个任务没有标准用例，不能试"
        on[run] = gr.update(interactive=bool(found.cases))
        return {**on, prompt: found.text, served: found.text, result: "", said: show.notice(hint, kind="hint")}

    async def try_it(which: str | None, text: str) -> AsyncIterator[Changes]:
        if not which:
            return
        yield {result: show.working(), said: "", run: gr.update(interactive=False)}
        try:
            trial = await bench.try_prompt(api, which, text)
        except ApiError as error:
            yield {result: "", said: show.notice(told(error)), run: gr.update(interactive=True)}
        else:
            yield {result: show.trial(trial), run: gr.update(interactive=True)}

    async def keep(which: str | None, new: str, text: str) -> str:
        if not which or not new.strip():
            return show.notice("请先填写新任务的名字", kind="hint")
        try:
            how = await bench.save(api, which, new.strip(), text)
        except ApiError as error:
            return show.notice(told(error))
        return show.notice(f"已存成任务文件夹 {new.strip()}；在服务器上运行 {how} 后生效", kind="hint")

    task.change(read, inputs=[task, about], outputs=[run, undo, save, prompt, served, result, said], **QUIET)
    run.click(
        try_it,
        inputs=[task, prompt],
        outputs=[result, said, run],
        concurrency_limit=MOST_AT_ONCE,
        trigger_mode="once",
        **QUIET,
    )
    undo.click(lambda text: text, inputs=served, outputs=prompt, queue=False, **QUIET)
    save.click(keep, inputs=[task, name, prompt], outputs=said, trigger_mode="once", **QUIET)
    return WhenConnected(open_bench, [about], [tab, task])
