"""Replies as streams of chunks, as OpenAI's clients know them: what chat and text completions have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from qwen_allinone.engine import Logprobs
from qwen_allinone.http import sse
from qwen_allinone.http.reply_fields import ReplyFields, usage
from qwen_allinone.service import Answer


class Shape(Protocol):
    """How a choice looks. `number` counts the replies of the request."""

    def begun(self, number: int) -> dict[str, Any]:
        """Before anything is said."""

    def piece(self, number: int, text: str, logprobs: Sequence[Logprobs]) -> dict[str, Any]:
        """The next part."""

    def ended(self, number: int) -> dict[str, Any]:
        """After everything is said."""


class Chunks:
    """Tells of the replies to so many `prompts` as they are made; the last chunk of each says why it ended."""

    def __init__(
        self, out: sse.Writer, body: ReplyFields, head: dict[str, Any], shape: Shape, prompts: int = 1
    ) -> None:
        self._out, self._body, self._head, self._shape, self._prompts = out, body, head, shape, prompts

    def submitted(self) -> None:
        for number in range(self._body.n * self._prompts):
            self._send(self._shape.begun(number))  # and the headers leave

    def labelled(self, sentiment: Answer, care: Answer | None) -> None:
        raise AssertionError("a completion has no sentiment")

    def delta(self, text: str, choice: int = 0, logprobs: Sequence[Logprobs] = ()) -> None:
        self._send(self._shape.piece(choice, text, logprobs))

    def end(self, answers: Sequence[Answer], memories: int | None = None) -> None:
        """Send what comes after the replies; `memories` as in `usage`."""
        for number, answer in enumerate(answers):
            self._send(self._shape.ended(number) | {"finish_reason": answer.result.finish_reason.value})
        if self._body.wants_usage:
            self._out.send(self._head | {"choices": [], "usage": usage(answers, self._prompts, memories)})
        self._out.end("[DONE]")

    def _send(self, choice: dict[str, Any]) -> None:
        no_usage_yet = {"usage": None} if self._body.wants_usage else {}
        self._out.send(self._head | {"choices": [choice]} | no_usage_yet)
