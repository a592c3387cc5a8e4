"""What a task is: frozen data, checked field by field. Reading it from files is the loader's job."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from qwen_allinone.strict_yaml import Wrong
from qwen_allinone.tasks.adapter_files import AdapterFiles
from qwen_allinone.tasks.masking import Masking, MaskKind
from qwen_allinone.wording import said

SENTIMENT, CHAT = "sentiment", "chat"  # the halves of /chat
ROUTE = "route"  # the task whose labels stand for other tasks
REMEMBER = "remember"  # the task that finds what people tell of themselves
MEMORIES = "memories"  # the input of `chat` that the service fills: no caller gives it
CARE = "care"  # the task whose first label has /chat answer with a text that people wrote

Kind = Literal["label", "text", "list", "json"]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=200)]


# No real text has this many characters a token; what has is refused before it costs any time.
MOST_CHARS_PER_TOKEN = 16
# What a request body may hold beside the inputs.
RESERVED = frozenset({"detail", "below"})

_HAN = re.compile(r"[\u3400-\u9fff\U00020000-\U0003ffff]")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Unsure(_Frozen):
    """What a prompt hears in place of a label whose probability is under `below`."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^\S(.*\S)?$")]
    below: float = Field(gt=0.0, lt=1.0)


class Input(_Frozen):
    """One variable of the prompt. `max_tokens` caps what a caller may put in. `mask`: numbers of these kinds are hidden
    from the model. `unsure` is for `sentiment` only; `heading` for `memories`, the line above them."""

    max_tokens: int = Field(ge=1, le=32768)
    mask: tuple[MaskKind, ...] = Field((), strict=False)
    unsure: Unsure | None = None
    heading: Text | None = None

    def block(self, statements: Sequence[str]) -> str:
        """What stands in the place of `memories`: lines of its own behind what is before, nothing if there are none."""
        return "".join([f"\n{self.heading}", *(f"\n- {text}" for text in statements)]) if statements else ""


class Label(_Frozen):
    """One allowed answer; `emoji` is for people, `task` names the task that `route` runs for it.

    `at_least`: it is the answer as soon as its probability reaches this, though another label's be higher. For what may
    not be missed.
    """

    name: Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^\S(.*\S)?$")]
    emoji: str | None = None
    task: Name | None = None
    at_least: float | None = Field(None, gt=0.0, lt=1.0)


class Unknown(_Frozen):
    """The abstain label, answered when the best label's probability is under `below`."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    below: float = Field(gt=0.0, lt=1.0)


class Output(_Frozen):
    """`label`: one of `labels`, with a probability for each. `text`: free text. `list`: at most `max_items` items.
    `json`: what fits the JSON schema in the file `schema`, beside prompt.md.

    `contextual`: what the prompt prefers with nothing to judge is taken out of the probabilities.
    """

    kind: Kind
    labels: tuple[Label, ...] = Field((), strict=False)
    unknown: Unknown | None = None
    max_items: int = Field(10, ge=1, le=100)
    contextual: bool = False
    schema_file: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,60}\.json$")] | None = Field(
        None, alias="schema"
    )

    @model_validator(mode="after")
    def _labels_belong_to_label_tasks(self) -> Output:
        names = [label.name for label in self.labels]
        if self.kind != "list" and "max_items" in self.model_fields_set:
            raise Wrong(said("list_alone_has_most"), said("remove_it_or_change_kind"))
        if (self.kind == "json") != (self.schema_file is not None):
            raise Wrong(said("json_has_schema"), said("write_both_or_neither"))
        if self.kind != "label":
            if names or self.unknown or self.contextual:
                raise Wrong(said("label_alone_has_labels"), said("remove_them_or_change_kind"))
            return self
        if len(names) < 2:
            raise Wrong(said("two_labels_needed"), said("list_labels"))
        for name in names:
            for other in names:
                if name is not other and other.startswith(name):
                    why = said("listed_twice") if name == other else said("begins_another", other=other)
                    raise Wrong(said("label_not_told_apart", name=name, why=why), said("rename_one"))
        if self.unknown and self.unknown.name in names:
            raise Wrong(said("unknown_is_label", name=self.unknown.name), said("choose_another_name"))
        return self


class Decoding(_Frozen):
    """How tokens are chosen. `greedy` takes the likeliest and has no further knobs."""

    strategy: Literal["greedy", "sample"]
    max_new_tokens: int = Field(ge=1, le=4096)
    temperature: float = Field(1.0, ge=0.01, le=5.0)
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    top_k: int = Field(0, ge=0)
    min_p: float = Field(0.0, ge=0.0, le=1.0)  # a share of the likeliest token's probability; arXiv:2407.01082
    repetition_penalty: float = Field(1.0, ge=0.01, le=5.0)

    @model_validator(mode="after")
    def _greedy_has_no_knobs(self) -> Decoding:
        if self.strategy == "greedy":
            useless = sorted(self.model_fields_set & {"temperature", "top_p", "top_k", "min_p"})
            if useless:
                raise Wrong(said("greedy_ignores", useless=useless), said("remove_or_sample"))
        return self


class Plain(_Frozen):
    """The words that stand before a text and before its label where a chat prompt is written as a plain text."""

    text: Annotated[str, StringConstraints(min_length=1, max_length=40, pattern=r"^\S(.*\S)?$")]
    label: Annotated[str, StringConstraints(min_length=1, max_length=40, pattern=r"^\S(.*\S)?$")]


class FrontMatter(_Frozen):
    """The keys between the `---` lines of prompt.md."""

    description: Text
    inputs: dict[Name, Input] = Field(min_length=1)
    clean: bool = False
    output: Output
    decoding: Decoding
    plain: Plain | None = None

    @model_validator(mode="after")
    def _inputs_do_not_take_the_requests_own_words(self) -> FrontMatter:
        for name in RESERVED & set(self.inputs):
            raise Wrong(said("input_name_taken", name=name), said("rename_input"))
        return self

    @model_validator(mode="after")
    def _only_a_mood_is_unsure(self) -> FrontMatter:
        for name, spec in self.inputs.items():
            if spec.unsure and name != "sentiment":
                raise Wrong(said("sentiment_alone_unsure", name=name), said("remove_it"))
        return self

    @model_validator(mode="after")
    def _only_memories_have_a_heading(self) -> FrontMatter:
        for name, spec in self.inputs.items():
            if (spec.heading is not None) != (name == MEMORIES):
                raise Wrong(said("memories_alone_have_heading", name=name), said("correct_that"))
        return self

    @cached_property
    def given(self) -> dict[str, Input]:
        """The inputs that callers give."""
        return {name: spec for name, spec in self.inputs.items() if name != MEMORIES}

    @cached_property
    def masks(self) -> dict[str, tuple[MaskKind, ...]]:
        """The inputs that numbers are hidden in, and which numbers."""
        return {name: spec.mask for name, spec in self.inputs.items() if spec.mask}

    @model_validator(mode="after")
    def _only_labels_have_a_plain_form(self) -> FrontMatter:
        if self.plain and self.output.kind != "label":
            raise Wrong(said("label_alone_is_plain"), said("remove_it_or_change_kind"))
        return self

    @model_validator(mode="after")
    def _labels_are_greedy(self) -> FrontMatter:
        if self.output.kind == "label" and self.decoding.strategy != "greedy":
            raise Wrong(said("labels_are_greedy"), said("write_greedy"))
        return self


@dataclass(frozen=True)
class Variable:
    """A place in the prompt that takes an input."""

    name: str


Part = str | Variable
Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Message:
    """One turn of a chat prompt, or the whole of a plain completion (role None)."""

    role: Role | None
    parts: tuple[Part, ...]


class Quality(_Frozen):
    """How good and how honest the answers to labelled data were: shares of 1."""

    accuracy: float = Field(ge=0.0, le=1.0)
    ece: float = Field(ge=0.0, le=1.0)


class Calibration(_Frozen):
    """What `qwen-allinone calibrate` found out: calibration.yaml. It holds for one model and one prompt."""

    temperature: float = Field(gt=0.0, le=100.0)
    model: str = Field(min_length=1)
    prompt: str = Field(min_length=1, description="`prompt_hash` of the task it was fitted for")
    data: str = Field(min_length=1, description="SHA-256 of the labelled file")
    rows: int = Field(ge=1)
    date: str = Field(min_length=1)
    before: Quality
    after: Quality


@dataclass(frozen=True)
class Vetted:
    """A reply that people wrote. `english` is for texts without any Chinese."""

    chinese: str
    english: str

    def reply_to(self, text: str) -> str:
        return self.chinese if _HAN.search(text) else self.english


@dataclass(frozen=True)
class Task:
    """A job the model does by prompt alone. `vetted` is the task `care`'s, None for all others. `grammar` is what the
    answers of a `json` task follow, see json_schema.grammar_of; empty for the other kinds. `prompt_hash` changes with
    the prompt and with the adapter."""

    name: str
    spec: FrontMatter
    messages: tuple[Message, ...]
    prompt_hash: str = ""
    calibration: Calibration | None = None
    vetted: Vetted | None = None
    grammar: str = ""
    adapter: AdapterFiles | None = None

    @property
    def version(self) -> str:
        """A short name for prompt.md and its calibration as they are now."""
        if self.calibration is None:
            return self.prompt_hash
        fitted = f"{self.prompt_hash} {self.calibration.temperature!r} {self.calibration.model}"
        return short_hash(fitted)

    @property
    def as_plain(self) -> Task | None:
        """The same task with its chat prompt as a plain text, if it may be written so: some models know only such.

        An adapter was taught the prompt as it stands.
        """
        words = self.spec.plain
        if words is None or not self.is_chat or self.adapter:
            return None
        parts = list[Part]()
        for message in self.messages[:-1]:
            before = {"user": f"{words.text}: ", "assistant": f"{words.label}: "}.get(str(message.role), "")
            parts += [before, *message.parts, "\n" if message.role == "user" else "\n\n"]
        parts += [f"{words.text}: ", *self.messages[-1].parts, f"\n{words.label}:"]
        whole = Message(None, tuple(part for part in parts if part))
        return replace(self, messages=(whole,))

    def hidden(self, inputs: Mapping[str, str], masking: Masking) -> Mapping[str, str]:
        """The inputs as the model may see them. What is too long to be asked is left as it is, to be refused."""
        masks = {name: kinds for name, kinds in self.spec.masks.items() if name in inputs}
        most = {name: self.spec.inputs[name].max_tokens * MOST_CHARS_PER_TOKEN for name in masks}
        hidden = {name: masking.hide(inputs[name], masks[name]) for name in masks if len(inputs[name]) <= most[name]}
        return {**inputs, **hidden}

    @property
    def is_chat(self) -> bool:
        return self.messages[0].role is not None

    @cached_property
    def labels(self) -> tuple[str, ...]:
        return tuple(label.name for label in self.spec.output.labels)


def short_hash(text: str) -> str:
    """12 characters that stand for `text`."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


class Case(_Frozen):
    """A gold case: what a task must answer. `label` is for label tasks, `fields` for json tasks that answer an object,
    the rest for all but label tasks."""

    inputs: dict[Name, str]
    label: str | None = None
    any: tuple[str, ...] = Field((), strict=False, description="at least one of these must occur")
    all: tuple[str, ...] = Field((), strict=False, description="all of these must occur")
    none: tuple[str, ...] = Field((), strict=False, description="none of these may occur")
    max_chars: int | None = Field(None, ge=1)
    fields: dict[str, Any] = Field({}, description="what these fields of the answer must be")
