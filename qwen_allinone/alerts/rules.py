"""What alerts.yaml may say: rules, and the channels through which people are told. Wrong values are refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from qwen_allinone.alerts.bounded_pattern import BoundedPattern, bounded
from qwen_allinone.strict_yaml import Wrong
from qwen_allinone.wording import said

Source = Literal["live", "batch", "feedback"]
INTENT = "intent"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def _seconds(value: Any) -> float:
    match = re.fullmatch(r"(\d{1,6})([smhd])", value, re.ASCII) if isinstance(value, str) else None
    if not match:
        raise Wrong(said("no_time"), said("time_form"))
    return float(match[1]) * _UNITS[match[2]]


def _at_most_a_week(seconds: float) -> float:
    if seconds > 7 * 86_400:
        raise Wrong(said("time_long"), said("week_at_most"))
    return seconds


def _names(value: Any) -> Any:
    """One name may stand where several could."""
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


def _pattern(value: Any) -> BoundedPattern:
    if not isinstance(value, str):
        raise Wrong(said("is_no_text"), said("quote_pattern"))
    return bounded(value)


Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,39}$")]
Word = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Words = Annotated[tuple[Word, ...], BeforeValidator(_names), Field(min_length=1, max_length=200)]
Span = Annotated[float, BeforeValidator(_seconds), AfterValidator(_at_most_a_week)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, arbitrary_types_allowed=True)


class Rating(_Frozen):
    """The stars that came with a text; both ends belong to it."""

    at_least: float | None = None
    at_most: float | None = None

    @model_validator(mode="after")
    def _can_be(self) -> Rating:
        if self.at_least is None and self.at_most is None:
            raise Wrong(said("says_nothing"), said("give_bounds"))
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise Wrong(said("bounds_crossed"), said("exchange_them"))
        return self

    def holds(self, stars: float) -> bool:
        low = -float("inf") if self.at_least is None else self.at_least
        return low <= stars <= (float("inf") if self.at_most is None else self.at_most)


class When(_Frozen):
    """All that must hold for one text. Lists: any of them.

    `labels`: by task; `probability`: by task, what its label must have at least. `keywords`: in the text, or among the
    items that a list task found.
    """

    labels: dict[str, Words] = {}
    probability: dict[str, Share] = {}
    intent: Words | None = None
    keywords: Words | None = None
    pattern: Annotated[BoundedPattern, BeforeValidator(_pattern)] | None = None
    rating: Rating | None = None

    @model_validator(mode="after")
    def _says_something(self) -> When:
        if not (self.labels or self.probability or self.intent or self.keywords or self.pattern or self.rating):
            raise Wrong(said("fires_always"), said("name_condition"))
        if self.intent and INTENT in self.labels:
            raise Wrong(said("intent_twice"), said("keep_one_intent"))
        return self

    @property
    def wanted(self) -> Mapping[str, tuple[str, ...]]:
        """The labels that may be, by task."""
        return self.labels | ({INTENT: self.intent} if self.intent else {})

    @property
    def tasks(self) -> frozenset[str]:
        """Whose labels must be known."""
        return frozenset(self.wanted) | frozenset(self.probability)


class Rate(_Frozen):
    """So many texts at which the rule would fire, within so much time."""

    count: Annotated[int, Field(ge=2, le=100_000)]
    within: Span

    @model_validator(mode="after")
    def _takes_time(self) -> Rate:
        if self.within <= 0:
            raise Wrong(said("rate_without_time"), said("write_within"))
        return self


class Rule(_Frozen):
    """When whom to tell what. `cooldown`: after an alert, for so long no further one of this rule; with a rate its
    window if nothing is said. `show_text`: the alert quotes what the user wrote."""

    name: Name
    title: Annotated[str, StringConstraints(max_length=100)] = ""
    when: When
    rate: Rate | None = None
    channels: Annotated[tuple[str, ...], BeforeValidator(_names), Field(min_length=1, max_length=20)]
    cooldown: Span | None = None
    show_text: bool = False
    sources: Annotated[tuple[Source, ...], BeforeValidator(_names), Field(min_length=1)] = ("live", "batch", "feedback")

    @property
    def pause_s(self) -> float:
        """Seconds after an alert in which there is no other of this rule."""
        if self.cooldown is not None:
            return self.cooldown
        return self.rate.within if self.rate else 0.0


class _Channel(_Frozen):
    name: Name


class WebhookChannel(_Channel):
    """Any program of one's own: JSON by POST, signed as Standard Webhooks are."""

    kind: Literal["webhook"]
    url: Annotated[str, StringConstraints(pattern=r"^https?://[^\s/?#@]+([/?][^\s#]*)?$", max_length=2000)]
    secret_file: str


class TokenChannel(_Channel):
    """A robot in a group chat: `token_file` holds what comes last in its address."""

    kind: Literal["wecom", "dingtalk", "feishu", "slack"]
    token_file: str
    secret_file: str | None = None

    @model_validator(mode="after")
    def _can_sign(self) -> TokenChannel:
        if self.secret_file and self.kind != "dingtalk":
            raise Wrong(said("not_signed_here", kind=self.kind), said("remove_it"))
        return self


class MailChannel(_Channel):
    """Mail through a server."""

    kind: Literal["mail"]
    host: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.:-]{1,253}$")]
    port: Annotated[int, Field(ge=1, le=65535)] = 587
    security: Literal["starttls", "ssl", "none"] = "starttls"
    sender: Annotated[str, StringConstraints(pattern=r"^[^\s<>@]+@[^\s<>@]+$")]
    to: Annotated[tuple[Annotated[str, StringConstraints(pattern=r"^[^\s<>@,]+@[^\s<>@,]+$")], ...],
                  BeforeValidator(_names), Field(min_length=1, max_length=50)]  # fmt: skip
    user: str | None = None
    password_file: str | None = None


Channel = WebhookChannel | TokenChannel | MailChannel
CHANNELS: Mapping[str, type[Channel]] = {
    "webhook": WebhookChannel,
    **dict.fromkeys(("wecom", "dingtalk", "feishu", "slack"), TokenChannel),
    "mail": MailChannel,
}
