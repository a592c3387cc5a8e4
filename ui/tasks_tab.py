"""The second tab: every other task of the service, with a box for each of its inputs."""

from __future__ import annotations

from collections.abc import AsyncIterator

import gradio as gr

from ui import show
from ui.client import About, Api, ApiError
from ui.parts import MOST_AT_ONCE, QUIET, html
from ui.talking import told

_INPUTS = {"text": "文字", "sentiment": "情感", "question": "问题", "context": "上下文", "labels": "标签"}


def add(api: Api, about: gr.State) -> gr.Dropdown:
    """Build it; returns the choice of task, empty until the service has been asked."""
    task = gr.Dropdown([], label="任务", elem_id="task", filterable=False)
    result: gr.HTML

    @gr.render(inputs=[task, about])  # type: ignore[untyped-decorator]
    def form(name: str | None, known: About | None) -> None:
        chosen = known.task(name) if known else None
        if chosen is None:
            return
        boxes = [
            gr.Textbox(
                label=_INPUTS.get(field, field),
                lines=4 if number == 0 else 1,
                max_lines=12,
                key=f"input-{field}",
                preserved_by_key="value",
                elem_id=f"input-{field}",
            )
            for number, field in enumerate(chosen.inputs)
        ]
        run = gr.Button("运行", variant="primary", key="run", elem_id="run")

        async def ask(*texts: str) -> AsyncIterator[str]:
            empty = [_INPUTS.get(f, f) for f, text in zip(chosen.inputs, texts, strict=True) if not text.strip()]
            if empty:
                yield show.notice(f"请先填写：{'、'.join(empty)}", kind="hint")
                return
            yield show.working()
            try:
                given = await api.run(chosen, dict(zip(chosen.inputs, texts, strict=True)))
            except ApiError as error:
                yield show.notice(told(error))
            else:
                # The one that was asked may have picked another.
                answered = (known.task(given.task) if known else None) or chosen
                yield show.answer(answered, given, picked=answered != chosen)

        run.click(ask, inputs=boxes, outputs=result, concurrency_limit=MOST_AT_ONCE, key="ran", **QUIET)

    result = html(elem_id="result")
    # In the browser: by way of the server it could come behind the answer, and take that away.
    task.change(None, outputs=result, js="() => ''", **QUIET)
    return task
