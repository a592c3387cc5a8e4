"""Prompts as token ids, cut around what changes: a batch's rows share what stands before the user's text.

The ids are exactly those the service computes; `Prompts.check` and `Prompts.check_conversation` compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import yaml

from demo.corpus.dialogues import CALM
from qwen_allinone.model.tokenizer import Tokenizer
from qwen_allinone.strict_yaml import StrictLoader
from qwen_allinone.tasks import Task, clean, load_task, render
from qwen_allinone.tasks.render import Chat, Completion

ROOT = Path(__file__).parents[1]
PLACE = "口"  # any text that is one token
TASKS = (
    "sentiment", "chat", "intent", "keywords", "summary", "translate", "sentiment_en", "route", "care", "suggest",
    "remember", "ticket", "aspects", "urgency", "handover", "category", "satisfaction",
)  # fmt: skip
_SHORT = 40  # characters of an example in a prompt
_MOST_EXAMPLES = 6

Example = tuple[str, str]  # a text and its label


@dataclass(frozen=True)
class Seams:
    """What stands around a user's text."""

    before: list[int]
    after: list[int]


def _corpus(name: str) -> dict[str, Any]:
    data = yaml.load((ROOT / "demo" / "corpus" / f"{name}.yaml").read_text(encoding="utf-8"), Loader=StrictLoader)
    assert isinstance(data, dict), name
    return data


class Prompts:
    """The taught tasks' prompts, and others of the same kind, for one tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.tasks = {name: load_task(ROOT / "prompts" / name) for name in TASKS}
        self.sentiment, self.chat = self.tasks["sentiment"], self.tasks["chat"]
        self.labels = {name: tokenizer.encode(name) for name in self.sentiment.labels}
        self.ends = (self._control("<|endoftext|>"), self._control("<|im_end|>"))
        self._start = self._control("<|im_start|>")
        self._wordings, self._systems = _corpus("wordings"), _corpus("systems")
        [self._mark] = tokenizer.encode(PLACE)
        self.to_reply = self.conversation("x").after
        self.to_user = self._line("user")
        self.system_starts = 1 + len(tokenizer.encode("system\n"))  # tokens that all conversations begin with

    def _control(self, token: str) -> int:
        found = self.tokenizer.control_id(token)
        assert found is not None, token
        return found

    def _line(self, role: str) -> list[int]:
        """What stands between the end of a message and the next one's content."""
        return [*self.tokenizer.encode("\n"), self._start, *self.tokenizer.encode(f"{role}\n")]

    def late_system(self, system: str) -> list[int]:
        """A system message between a reply and the user's next text, up to that text."""
        return [*self._line("system"), *self.tokenizer.encode(system), self.ends[1], *self.to_user]

    def cut(self, task: Task, **fixed: str) -> tuple[list[int], list[int]]:
        """Ids before and after the user's text."""
        seams = self._seams(self.tokenizer.encode_rendered(render(task, {"text": PLACE, **fixed})))
        return seams.before, seams.after

    def conversation(self, system: str) -> Seams:
        """Around the first text of a conversation with this system prompt, "" for none."""
        messages = [("system", system)] if system else []
        return self._seams(self.tokenizer.encode_rendered(Chat((*messages, ("user", PLACE)))))

    def _seams(self, ids: list[int]) -> Seams:
        seam = len(ids) - 1 - ids[::-1].index(self._mark)
        return Seams(ids[:seam], ids[seam + 1 :])

    def answer(self, task: Task, answer: str) -> list[int]:
        """The ids a right answer begins with: a label's first, which tells labels apart, or the whole with its end."""
        ids = self.tokenizer.encode(answer)
        return ids[:1] if task.labels else [*ids, self.ends[1]]

    def other_wording(self, name: str, examples: Sequence[Example], rng: Random) -> Seams:
        """A prompt for the label task `name` that is not the shipped one, with some of `examples` in it."""
        wording = self._wordings[name]
        instruction, text, answer = (rng.choice(wording[key]) for key in ("instructions", "texts", "answers"))
        shown = [(t, a) for t, a in examples if len(t) <= _SHORT and "\n" not in t][: rng.randint(0, _MOST_EXAMPLES)]
        if name == "sentiment_en" and rng.random() < 0.5:
            turns = [turn for t, a in shown for turn in (("user", t), ("assistant", a))]
            return self._seams(self.tokenizer.encode_rendered(Chat((("system", instruction), *turns, ("user", PLACE)))))
        colon, end = ("：", "") if name != "sentiment_en" else (":", " ")
        gap = rng.choice(("\n\n", "\n"))
        blocks = [f"{text}{colon}{end}{t}\n{answer}{colon}{end}{a}" for t, a in shown]
        blocks.append(f"{text}{colon}{end}{PLACE}\n{answer}{colon}")
        parts = [instruction, *blocks] if instruction else blocks
        return self._seams(self.tokenizer.encode_rendered(Completion(gap.join(parts))))

    def system(self, mood: str, memories: Sequence[str], rng: Random, *, brief: bool = False) -> str:
        """A system prompt made of several sentences; `mood` is told by some and left out by others."""
        data = self._systems
        parts = [rng.choice(data["roles"]) if rng.random() < 0.85 else ""]
        parts += rng.sample(data["manners"], rng.choice((0, 1, 1, 2, 3)))
        if brief:
            parts.append(rng.choice(data["brief"]))
        text = rng.choice(("", "", " ")).join(part for part in parts if part)
        blocks = [text] if text else []
        if memories:
            blocks.append(rng.choice(data["memories"]) + "".join(f"\n- {memory}" for memory in memories))
        if mood and rng.random() < 0.4:
            blocks.append(rng.choice(data["moods"]).replace("{mood}", mood))
        return rng.choice(("\n", "\n", "\n\n")).join(blocks)

    def shipped_system(self, mood: str, memories: Sequence[str] = ()) -> str:
        """The system prompt of the chat task as the service fills it, with what is remembered behind it."""
        rendered = render(self.chat, {"text": PLACE, "sentiment": mood})
        assert isinstance(rendered, Chat)
        system = str(rendered.messages[0][1])
        remembered = "".join(f"\n- {memory}" for memory in memories)
        return system + (f"\n你记得：{remembered}" if remembered else "")

    def check(self, text: str) -> None:
        """Before + text + after are the service's ids."""
        for task in self.tasks.values():
            fixed = {name: self.sentiment.labels[0] for name in task.spec.inputs if name != "text"}
            given = clean(text) if task.spec.clean else text
            before, after = self.cut(task, **fixed)
            whole = self.tokenizer.encode_rendered(render(task, {"text": given, **fixed}))
            assert before + self.tokenizer.encode(given) + after == whole, (task.name, text)

    def check_conversation(self, texts: Sequence[str]) -> None:
        """The same for a conversation with a late system message: texts of user, model, user."""
        first, second = self.shipped_system(CALM), self.shipped_system(self.sentiment.labels[0])
        encode = self.tokenizer.encode
        seams = self.conversation(first)
        ids = [*seams.before, *encode(texts[0]), *self.to_reply, *encode(texts[1]), self.ends[1]]
        ids += [*self.late_system(second), *encode(texts[2]), *self.to_reply]
        roles = ("system", "user", "assistant", "system", "user")
        chat = Chat(tuple(zip(roles, (first, *texts[:2], second, texts[2]), strict=True)))
        assert ids == self.tokenizer.encode_rendered(chat), texts
