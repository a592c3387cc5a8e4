"""The channels of alerts.yaml, ready to send: a webhook of our own, and robots and mail through Apprise."""

from __future__ import annotations

import importlib.util
import json
import logging
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from qwen_allinone.alerts.addresses import AddressRefused, Network, allowed_addresses
from qwen_allinone.alerts.rules import Channel, MailChannel, TokenChannel, WebhookChannel
from qwen_allinone.alerts.webhook import SendFailed, Webhook, read_secret
from qwen_allinone.state import Message
from qwen_allinone.strict_yaml import Wrong
from qwen_allinone.wording import message_of, said

EXTRA = "pip install -r requirements-alerts.txt"
_SOURCES = {"live": "请求", "batch": "批处理", "feedback": "文件"}


class Sender(Protocol):
    """Takes messages to one channel."""

    def send(self, message: Message) -> None:
        """Raises SendFailed."""


class ChannelProblem(Wrong):
    """A channel cannot be made; `key`: which of its keys is at fault, if it is one of them."""

    def __init__(self, problem: str, fix: str, *, key: str = "") -> None:
        super().__init__(said("of_setting", setting=key, error=problem) if key else problem, fix)
        self.key = key


def make(channel: Channel, folder: Path, networks: Sequence[Network]) -> Sender:
    """A channel, ready to send. Files are looked for in `folder`. Raises ChannelProblem."""
    if isinstance(channel, WebhookChannel):
        try:
            secret = read_secret(_read(folder / channel.secret_file))
        except ValueError as error:
            problem = said("no_secret_in", file=channel.secret_file, error=error)
            raise ChannelProblem(problem, said("write_secret"), key="secret_file") from None
        return _OwnWebhook(Webhook(channel.url, secret, networks))
    if importlib.util.find_spec("apprise") is None:
        raise ChannelProblem(said("needs_apprise", kind=channel.kind), EXTRA, key="kind")
    if isinstance(channel, MailChannel):
        return _Mail(channel, _read(folder / channel.password_file) if channel.password_file else "", networks)
    secret_text = _read(folder / channel.secret_file) if channel.secret_file else None
    return _Robot(channel, _read(folder / channel.token_file), secret_text)


def _read(file: Path) -> str:
    try:
        text = file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else said("it_is_no_text")
        raise ChannelProblem(said("file_unreadable", file=file, error=why), said("make_file_readable")) from None
    if not text or len(text.splitlines()) > 1:
        raise ChannelProblem(said("not_one_line", file=file), said("write_what_channel_needs"))
    return text


class _OwnWebhook:
    def __init__(self, webhook: Webhook) -> None:
        self._webhook = webhook

    def send(self, message: Message) -> None:
        told = {"type": "qaio.alert", "id": message.id, "data": json.loads(message.body)}
        self._webhook.send(message.id, json.dumps(told, ensure_ascii=False).encode("utf-8", "replace"), message.tries)


class _Robot:
    """WeCom, DingTalk, Feishu or Slack: at addresses that Apprise knows, none of which a file can change."""

    def __init__(self, channel: TokenChannel, token: str, secret: str | None) -> None:
        self._apprise = _notifier(_robot_fields(channel.kind, token, secret), channel.token_file, key="token_file")

    def send(self, message: Message) -> None:
        _notify(self._apprise, message)


class _Mail:
    def __init__(self, channel: MailChannel, password: str, networks: Sequence[Network]) -> None:
        self._host, self._port, self._networks = channel.host, channel.port, networks
        mode = "insecure" if channel.security == "none" else channel.security
        fields: dict[str, Any] = {
            "schema": "mailto" if mode == "insecure" else "mailtos",
            "host": channel.host,
            "smtp_host": channel.host,
            "port": channel.port,
            "secure_mode": mode,
            "from_addr": channel.sender,
            "targets": list(channel.to),
            "format": "text",
        }
        if channel.user:
            fields |= {"user": channel.user, "password": password}
        self._apprise = _notifier(fields, "mail")

    def send(self, message: Message) -> None:
        try:
            allowed_addresses(self._host, self._port, self._networks)
        except AddressRefused as error:
            raise SendFailed(message_of(error), is_final=True) from None
        except OSError as error:
            raise SendFailed(f"{self._host}: {error}") from None
        _notify(self._apprise, message)


def _robot_fields(kind: str, token: str, secret: str | None) -> dict[str, Any]:
    if kind == "wecom":
        return {"schema": "wecombot", "key": token}
    if kind == "dingtalk":
        return {"schema": "dingtalk", "token": token, "secret": secret}
    if kind == "feishu":
        return {"schema": "feishu", "token": token}
    parts = token.split("/")
    if len(parts) != 3:
        raise ChannelProblem(said("slack_token"), said("slack_token_form"), key="token_file")
    return {"schema": "slack", "mode": "hook", **dict(zip(("token_a", "token_b", "token_c"), parts, strict=True))}


def _notifier(fields: Mapping[str, Any], what: str, key: str = "") -> Any:
    """Apprise's object for one channel. Raises ChannelProblem."""
    import apprise

    # At debug it would log what it sends, and where: what users wrote, and tokens.
    logging.getLogger("apprise").setLevel(logging.CRITICAL)
    made = apprise.Apprise.instantiate(
        {**fields, "rto": 10.0, "cto": 10.0, "redirect": False}, suppress_exceptions=True
    )
    if made is None:
        raise ChannelProblem(
            said("not_what_is_taken", what=what, schema=fields["schema"]), said("copy_from_there"), key=key
        )
    _note_answers(made)
    return made


def _notify(notifier: Any, message: Message) -> None:
    told = json.loads(message.body)
    _answers.last = None
    good = notifier.notify(title=f"[报警] {told['title']}", body=as_text(message, told))
    if not good:
        raise _failure()
    if problem := _refusal():
        raise SendFailed(problem)


def as_text(message: Message, told: Mapping[str, Any]) -> str:
    """An alert as people read it in a chat or a mail; the last line tells doubles apart."""
    lines = [f"{_SOURCES.get(told['source'], told['source'])} {told['place']}".strip()]
    if rate := told.get("rate"):
        lines.append(f"{rate['within_s']:g} 秒内 {rate['count']} 条")
    for task, heard in told["labels"].items():
        lines.append(f"{task}: {heard['label']} ({heard['probability']:.2f})")
    if "rating" in told:
        lines.append(f"评分: {told['rating']:g}")
    if told.get("keywords"):
        lines.append("关键词: " + "、".join(told["keywords"]))
    if "text" in told:
        lines.append("原文: " + told["text"])
    if told.get("held_back"):
        lines.append(f"此前另有 {told['held_back']} 条未单独发送")
    again = f"（第 {message.tries} 次发送）" if message.tries > 1 else ""
    return "\n".join([*lines, f"编号: {message.id}{again}"])


# Apprise says only whether a request got through. What the robots answered is kept here, by thread: WeCom and DingTalk
# refuse with a 200 and a number in the body, and a refused alert must not count as told.
_answers = threading.local()


class _Noting:
    """Stands for `requests` in one of Apprise's modules, and keeps the last answer."""

    def __init__(self, requests: ModuleType) -> None:
        self._requests = requests

    def __getattr__(self, name: str) -> Any:
        return getattr(self._requests, name)

    def post(self, *args: Any, **kwargs: Any) -> Any:
        _answers.last = self._requests.post(*args, **kwargs)
        return _answers.last

    def request(self, *args: Any, **kwargs: Any) -> Any:
        _answers.last = self._requests.request(*args, **kwargs)
        return _answers.last


def _note_answers(notifier: Any) -> None:
    module = importlib.import_module(type(notifier).__module__)
    requests = getattr(module, "requests", None)
    if isinstance(requests, ModuleType):
        module.requests = _Noting(requests)  # type: ignore[attr-defined]


def _failure() -> SendFailed:
    answer = _answers.last
    if answer is None:
        return SendFailed(said("channel_unreachable"))
    status = int(answer.status_code)
    wait = str(answer.headers.get("Retry-After", ""))
    final = 300 <= status < 500 and status not in (408, 425, 429)
    wait_s = min(float(wait), 3600.0) if wait.isascii() and wait.isdigit() else 0.0
    return SendFailed(_refusal() or said("channel_answered", status=status, hint=""), is_final=final, wait_s=wait_s)


def _refusal() -> str:
    """Why a robot refused what it answered with a good status; empty if it took it."""
    if _answers.last is None:
        return ""
    try:
        body = _answers.last.json()
        code = body.get("errcode", body.get("code", 0))
        why = str(body.get("errmsg", body.get("msg", "")))[:200]
        return said("refused", problem=f"{code} {why}") if code else ""
    except (ValueError, AttributeError):  # Slack says "ok"
        return ""
