"""The page in Gradio: its tabs over one service. What they show comes from show.py, what they do from the rest."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from ui import bench_tab, chat_tab, feedback_tab, show, tasks_tab
from ui.client import About, Api, ApiError, Task
from ui.parts import MOST_AT_ONCE, QUIET, html, kept_in_browser
from ui.settings import Settings
from ui.talking import told

TITLE = "Qwen All-in-One"
MAX_FILE_BYTES = 20 * 1024 * 1024
STYLE = Path(__file__).with_name("style.css")
# Nothing is fetched, so these are fonts that systems have; Chinese ones first where they carry good Latin letters too.
_FONT = ("system-ui", "-apple-system", "Segoe UI", "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC",
    "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Micro Hei", "sans-serif", "Noto Color Emoji")  # fmt: skip
_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "Noto Sans Mono CJK SC", "monospace")


def theme() -> gr.themes.Base:
    """Gradio's own look with fonts of the system and the colours of style.css."""
    base = gr.themes.Base(
        primary_hue="teal", secondary_hue="teal", neutral_hue="slate", radius_size="lg", font=_FONT, font_mono=_MONO
    )
    # White on Gradio's own teal is too faint to read.
    return base.set(
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_hover_dark="*primary_600",
        color_accent="*primary_700",
        input_placeholder_color_dark="*neutral_400",
    )


def build(api: Api, settings: Settings) -> gr.Blocks:
    """The whole page."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(600, 3600)) as page:
        about = gr.State(None)
        # Outside the tabs: what is in one is read only once that is opened.
        my_memory, my_file = kept_in_browser("memory"), kept_in_browser("feedback")
        with gr.Row(elem_classes="masthead"):
            banner = html(_banner(None))
            again = gr.Button("重新连接", size="sm", visible=False, scale=0, elem_id="again")
        trouble = html()
        with gr.Tabs():
            with gr.Tab("对话", id="chat"):
                memory = chat_tab.add(api, about, my_memory)
            with gr.Tab("更多任务", id="tasks"):
                task = tasks_tab.add(api, about)
            with gr.Tab("批量反馈", id="feedback"):
                labeller, files = feedback_tab.add(api, settings, about, my_file)
            with gr.Tab("试验台", id="bench", visible=False) as bench_page:
                bench = bench_tab.add(api, about, bench_page)

        async def connect() -> list[Any]:
            try:
                known, message = await api.about(fresh=True), ""
            except ApiError as error:
                known, message = None, told(error)
            # What most come for stands first, and so is chosen.
            tasks = sorted(known.jobs, key=_rank) if known else []
            jobs = [_choice(task) for task in tasks if task.name != "chat"]
            labels = [_choice(task) for task in tasks if _labels_one_text(task)]
            return [
                known,
                _banner(known),
                gr.update(visible=known is None),
                show.notice(message),
                gr.update(choices=jobs, value=jobs[0][1] if jobs else None),
                gr.update(choices=labels, value=labels[0][1] if labels else None),
            ]

        found = [about, banner, again, trouble, task, labeller]
        for event in (page.load, again.click):
            connected = event(connect, outputs=found, **QUIET)
            for part in (memory, files, bench):
                connected.then(
                    part.run,
                    inputs=part.inputs,
                    outputs=part.outputs,
                    concurrency_limit=MOST_AT_ONCE,
                    **QUIET,
                )
    return page


def _banner(known: About | None) -> str:
    where = f"模型 {known.model or '未知'} · {len(known.tasks)} 个任务" if known else "一个小模型，多种任务"
    kept = "" if known is None or known.sessions else " · 不保存会话，每句话单独回答"
    return f'<h1>{TITLE}</h1><p class="model">{escape(where + kept)}</p>'


def _rank(task: Task) -> int:
    return 0 if task.name == "sentiment" else 1 if task.kind == "any" else 2


def _choice(task: Task) -> tuple[str, str]:
    return task.description, task.name


def _labels_one_text(task: Task) -> bool:
    return task.kind == "label" and len(task.inputs) == 1
