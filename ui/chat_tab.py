"""The first tab: a conversation."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import gradio as gr

from ui import show
from ui.client import Api
from ui.events import MOST_AT_ONCE, QUIET
from ui.talking import Talk

_EXAMPLES = ("今天心情特别差，工作也不顺利", "终于通过了面试，开心！", "等了一个小时菜才上，不会再来了")


def add(api: Api) -> None:
    """Build it."""
    talk = gr.State(None)
    shown = gr.HTML(show.conversation([]), elem_id="conversation", autoscroll=True, max_height=560)
    with gr.Row(elem_classes="composer"):
        box = gr.Textbox(
            placeholder="想说点什么？回车发送，Shift+回车换行",
            show_label=False,
            container=False,
            lines=1,
            max_lines=6,
            scale=8,
            min_width=160,
            elem_id="say",
            html_attributes=gr.InputHTMLAttributes(**{"aria-label": "想说的话"}),
        )
        send = gr.Button("发送", variant="primary", scale=1, min_width=72, elem_id="send")
        halt = gr.Button("停止", variant="stop", scale=1, min_width=72, visible=False, elem_id="halt")
    with gr.Row(elem_classes="below"):
        examples = [gr.Button(text, size="sm", elem_classes="example", min_width=120) for text in _EXAMPLES]
        fresh = gr.Button("新对话", size="sm", scale=0, min_width=80, elem_id="fresh")

    async def say(text: str, mine: Talk | None) -> AsyncIterator[list[Any]]:
        mine = mine or Talk()
        if not text.strip() or mine.answering:
            hint = show.conversation(mine.turns) if mine.turns else show.conversation([])
            yield [mine, hint, gr.skip(), gr.skip(), gr.skip()]
            return
        first = True
        async for _ in mine.say(api, text):
            buttons = [gr.update(visible=False), gr.update(visible=True)] if first else [gr.skip(), gr.skip()]
            yield [mine, show.conversation(mine.turns), "" if first else gr.skip(), *buttons]
            first = False
        yield [mine, show.conversation(mine.turns), gr.skip(), gr.update(visible=True), gr.update(visible=False)]

    def give_back(text: str, mine: Talk | None) -> Any:
        """What failed is typed already when the visitor tries again, unless he has typed on."""
        failed = mine is not None and mine.turns and mine.turns[-1].state == "failed"
        return mine.turns[-1].text if failed and mine and not text.strip() else gr.skip()

    def stop(mine: Talk | None) -> None:
        if mine:
            mine.stop()

    async def start_over(mine: Talk | None) -> list[Any]:
        if mine:
            mine.stop()
            if mine.session:
                await _forget(api, mine.session)
        return [Talk(), show.conversation([])]

    said = gr.on(
        [send.click, box.submit],
        say,
        inputs=[box, talk],
        outputs=[talk, shown, box, send, halt],
        concurrency_limit=MOST_AT_ONCE,
        trigger_mode="once",
        **QUIET,
    )
    said.then(give_back, inputs=[box, talk], outputs=box, queue=False, **QUIET)
    halt.click(stop, inputs=talk, queue=False, **QUIET)
    fresh.click(start_over, inputs=talk, outputs=[talk, shown], queue=False, **QUIET)
    for button, text in zip(examples, _EXAMPLES, strict=True):
        button.click(lambda text=text: text, outputs=box, queue=False, **QUIET)
