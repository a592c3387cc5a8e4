"""What a request tells the rules of alerts: its text, and what tasks said of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from qwen_allinone.alerts import Heard, Notices, Subject
from qwen_allinone.http.request_state import RequestState
from qwen_allinone.service import Answer
from qwen_allinone.tasks import Masking, MaskKind


def teller(notices: Notices, masks: Collection[MaskKind]) -> Callable[[RequestState], None]:
    """What tells of a request that was answered. `masks` are kinds of numbers that nobody outside may see."""

    def tell(state: RequestState) -> None:
        asked = [answer for answer in state.answers if answer.inputs]
        if asked and asked[0].inputs:
            text = Masking().hide(_text(asked[0].inputs), masks)
            answers = {answer.task: _heard(answer) for answer in asked}
            if state.is_behind:
                notices.tell(Subject("batch", state.key, text, state.key, answers))
            else:
                again = state.has_own_key
                notices.tell(Subject("live", state.key, text, state.id, answers, may_come_again=again))

    return tell


def _text(inputs: Mapping[str, str]) -> str:
    """What a user wrote: the input of that name, of tasks without one all of them."""
    return inputs["text"] if "text" in inputs else "\n".join(inputs.values())


def _heard(answer: Answer) -> Heard:
    label = answer.label or ""
    return Heard(label, (answer.probabilities or {}).get(label, 0.0), answer.items or ())
