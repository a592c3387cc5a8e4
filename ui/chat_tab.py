"""The first tab: a conversation."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from typing import Any

import gradio as gr

from ui import memory_panel, show
from ui.client import Api
from ui.parts import MOST_AT_ONCE, QUIET, WhenConnected, html
from ui.remembering import is_id
from ui.talking import Talk

_EXAMPLES = ("今天心情特别差，工作也不顺利", "终于通过了面试，开心！", "等了一个小时菜才上，不会再来了")
# In the browser, which alone knows what has been typed meanwhile.
_GIVE_BACK = "(typed, unanswered) => typed.trim() ? typed : unanswered"


def add(api: Api, about: gr.State, kept: gr.BrowserState) -> WhenConnected:
    """Build it; returns what is still to be done when the service is known. `kept` is the memory's, in the browser."""
    talk = gr.State(None)
    unanswered = gr.Textbox(visible="hidden", label="没有得到回答的话")
    shown = html(show.conversation([]), elem_id="conversation")
    with gr.Row(elem_classes="composer"):
        box = gr.Textbox(
            placeholder="想说点什么？回车发送",
            label="想说的话",
            show_label=False,
            container=False,
            lines=1,
            max_lines=6,
            scale=8,
            min_width=160,
            elem_id="say",
        )
        send = gr.Button("发送", variant="primary", scale=1, min_width=72, elem_id="send")
        halt = gr.Button("停止", variant="stop", scale=1, min_width=72, visible=False, elem_id="halt")
    with gr.Row(elem_classes="below"):
        examples = [gr.Button(text, size="sm", elem_classes="example", min_width=120) for text in _EXAMPLES]
        fresh = gr.Button("新对话", size="sm", scale=0, min_width=80, elem_id="fresh")

    memory = memory_panel.add(api, about, kept)

    async def say(text: str, mine: Talk | None, remembers: bool, user: str) -> AsyncIterator[list[Any]]:
        mine = mine or Talk()
        if not text.strip() or mine.answering:
            yield [mine, *[gr.skip()] * 5]
            return
        # The box is emptied and the buttons change places once, when the turn stands in the conversation.
        others = ["", "", gr.update(visible=False), gr.update(visible=True)]
        async with aclosing(mine.say(api, text, user if remembers and is_id(user) else None)) as growing:
            async for _ in growing:
                if not mine.abandoned:
                    yield [mine, show.conversation(mine.turns), *others]
                    others = [gr.skip()] * 4
        changed = [gr.skip()] * 2 if mine.abandoned else [mine, show.conversation(mine.turns)]
        unsent = "" if mine.abandoned else mine.failed
        yield [*changed, gr.skip(), unsent, gr.update(visible=True), gr.update(visible=False)]

    def stop(mine: Talk | None) -> None:
        if mine:
            mine.stop()

    async def start_over(mine: Talk | None) -> list[Any]:
        if mine:
            await mine.abandon(api)
        return [Talk(), show.conversation([])]

    said = gr.on(
        [send.click, box.submit],
        say,
        inputs=[box, talk, memory.on, memory.user],
        outputs=[talk, shown, box, unanswered, send, halt],
        concurrency_limit=MOST_AT_ONCE,
        trigger_mode="once",
        **QUIET,
    )
    said.then(None, inputs=[box, unanswered], outputs=box, js=_GIVE_BACK, **QUIET)
    # What was told is looked through behind the answer.
    said.then(memory.follow, inputs=memory.inputs, outputs=memory.outputs, concurrency_limit=MOST_AT_ONCE, **QUIET)
    halt.click(stop, inputs=talk, queue=False, **QUIET)
    fresh.click(start_over, inputs=talk, outputs=[talk, shown], queue=False, **QUIET)
    for button, text in zip(examples, _EXAMPLES, strict=True):
        button.click(partial(str, text), outputs=box, queue=False, **QUIET)
    return memory.when_connected
