"""What the parts of the page have in common: how handlers run, how HTML is shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

# Visitors have the page, not an interface: that is the service's own.
QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
# Visitors that may wait for the service at the same time; the service itself says when it is full.
MOST_AT_ONCE = 64


def html(value: str = "", **given: Any) -> gr.HTML:
    """HTML in the look of style.css alone, shown as it is: Gradio does not read the value as a template."""
    return gr.HTML(value, apply_default_css=False, **given)


def kept_in_browser(name: str) -> gr.BrowserState:
    """Something that a browser has again when it comes back."""
    # The secret hides nothing: who can read a browser's storage has the browser. It is the same after a restart.
    return gr.BrowserState(None, storage_key=f"qwen-allinone-{name}", secret="qwen-allinone")


@dataclass(frozen=True)
class WhenConnected:
    """What a part of the page does once it is known what the service can do: `run` with `inputs`, into `outputs`."""

    run: Callable[..., Any]
    inputs: Sequence[Any]
    outputs: Sequence[Any]
