"""Under the conversation: what the service remembers of the visitor, and how it is made to forget."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ui import remembering, show
from ui.client import About, Api, ApiError
from ui.parts import QUIET, WhenConnected, html
from ui.talking import told

# What a visitor told is looked through behind his answer, when the service has nothing else to do.
_LOOKS_AFTER_S = (1.0, 2.0, 4.0, 8.0)
_ABOUT = (
    "只有在这里打勾以后说的话才会被记住。记住的事只凭下面的编号找到，所以别告诉别人。"
    "“忘掉”会把它从服务里删除；对话本身另由“新对话”删除。"
)
_NO_ID = "这不是本页的编号：它以 web- 开头，后面有 22 个字符，请整个复制过来"

Changes = dict[Any, Any]


@dataclass(frozen=True)
class Panel:
    """What the conversation needs of it: whether to remember and whose it is; and what to do after an answer."""

    on: gr.Checkbox
    user: gr.Textbox
    follow: Callable[..., AsyncIterator[Changes]]
    inputs: Sequence[Any]
    outputs: Sequence[Any]
    when_connected: WhenConnected


def add(api: Api, about: gr.State, kept: gr.BrowserState) -> Panel:
    """Build it, out of sight until the service is known to remember. `kept` is where the browser has its id."""
    with gr.Accordion("记忆", open=False, visible=False, elem_id="memory") as panel:
        on = gr.Checkbox(False, label="记住我说的关于自己的事", elem_id="remember")
        html(f'<p class="remark">{_ABOUT}</p>')
        listed = gr.CheckboxGroup([], label="记得的事", elem_id="memories", visible=False)
        said = html(elem_id="memory-said")
        with gr.Row(elem_classes="below"):
            fresh = gr.Button("刷新", size="sm", min_width=80, elem_id="memory-fresh")
            one = gr.Button("忘掉选中的", size="sm", min_width=100, interactive=False, elem_id="forget")
            everything = gr.Button("全部忘掉", size="sm", min_width=80, elem_id="forget-all")
        with gr.Row(elem_classes="below", visible=False) as asking:
            sure = gr.Button("确定，全部忘掉", variant="stop", size="sm", min_width=120, elem_id="forget-sure")
            not_sure = gr.Button("先不忘", size="sm", min_width=80, elem_id="forget-not")
        user = gr.Textbox(
            label="我的编号",
            info="在另一个浏览器里填同一个编号，就能接着用",
            max_lines=1,
            max_length=80,
            elem_id="memory-user",
        )
    outputs = [listed, said, one]

    async def look(name: str) -> Changes:
        """All that is remembered, as it is now."""
        if not remembering.is_id(name):
            return {said: show.notice(_NO_ID), listed: gr.update(visible=False)}
        try:
            found = await remembering.memories(api, name)
        except ApiError as error:
            return {said: show.notice(told(error))}
        return _shown(found)

    def _shown(found: Sequence[remembering.Memory], message: str = "") -> Changes:
        choices = [(memory.shown, memory.id) for memory in found[: remembering.SHOWN]]
        beyond = f"共 {len(found)} 件，这里只列出最近的 {len(choices)} 件" if len(found) > len(choices) else ""
        message = message or beyond or ("" if found else "还没有记得的事")
        return {
            listed: gr.update(choices=choices, value=[], visible=bool(choices)),
            said: show.notice(message, kind="hint"),
            one: gr.update(interactive=False),
        }

    async def open_panel(known: About | None, stored: dict[str, Any] | None) -> Changes:
        stored = stored if isinstance(stored, dict) else {}
        name = str(stored.get("user", ""))
        name = name if remembering.is_id(name) else remembering.new_id()
        if known is None or not known.memory:
            return {panel: gr.update(visible=False), on: False, user: name}
        return {panel: gr.update(visible=True), on: stored.get("on") is True, user: name, **await look(name)}

    def keep(remembers: bool, name: str) -> dict[str, Any] | Any:
        return {"user": name, "on": remembers} if remembering.is_id(name) else gr.skip()

    async def follow(remembers: bool, name: str) -> AsyncIterator[Changes]:
        """List what is remembered once more, for as long as something may be found in what was said last."""
        yield {said: gr.skip()}
        before: list[remembering.Memory] | None = None
        for pause in _LOOKS_AFTER_S if remembers and remembering.is_id(name) else ():
            await asyncio.sleep(pause)
            try:
                found = await remembering.memories(api, name)
            except ApiError as error:
                yield {said: show.notice(told(error))}
                return
            # What is gone was forgotten here, and that was told; what is ticked meanwhile stays ticked.
            if before is None or any(memory not in before for memory in found):
                shown = _shown(found)
                yield {listed: gr.update(choices=shown[listed]["choices"], visible=bool(found)), said: shown[said]}
            before = found

    async def forget(name: str, chosen: list[str]) -> Changes:
        try:
            await remembering.forget(api, name, chosen)
            found = await remembering.memories(api, name)
        except ApiError as error:
            return {said: show.notice(told(error))}
        return _shown(found, f"忘掉了 {len(chosen)} 件事")

    async def forget_all(name: str) -> Changes:
        hidden = {asking: gr.update(visible=False)}
        if not remembering.is_id(name):
            return {**hidden, said: show.notice(_NO_ID)}
        try:
            count = await remembering.forget_all(api, name)
        except ApiError as error:
            return {**hidden, said: show.notice(told(error))}
        return {**hidden, **_shown([], f"全部忘掉了，共 {count} 件事")}

    fresh.click(look, inputs=user, outputs=outputs, **QUIET)
    user.change(look, inputs=user, outputs=outputs, **QUIET)
    for change in (on.input, user.input):
        change(keep, inputs=[on, user], outputs=kept, queue=False, **QUIET)
    listed.change(lambda chosen: gr.update(interactive=bool(chosen)), inputs=listed, outputs=one, queue=False, **QUIET)
    one.click(forget, inputs=[user, listed], outputs=outputs, **QUIET)
    everything.click(lambda: gr.update(visible=True), outputs=asking, queue=False, **QUIET)
    not_sure.click(lambda: gr.update(visible=False), outputs=asking, queue=False, **QUIET)
    sure.click(forget_all, inputs=user, outputs=[*outputs, asking], **QUIET)
    ready = WhenConnected(open_panel, [about, kept], [panel, on, user, *outputs])
    return Panel(on, user, follow, [on, user], outputs, ready)
