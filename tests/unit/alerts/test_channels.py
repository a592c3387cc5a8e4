"""Robots and mail through Apprise, each against a stand-in on loopback that speaks as the real one does."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from qwen_allinone.alerts import SendFailed, channels
from qwen_allinone.alerts.channels import ChannelProblem, as_text
from qwen_allinone.alerts.rules import MailChannel, TokenChannel
from qwen_allinone.state import Message

# Of a module of Python that Apprise looks at pictures with.
pytestmark = pytest.mark.filterwarnings("ignore:.imghdr. is deprecated:DeprecationWarning")

TOLD = {
    "rule": "a",
    "title": "退款投诉增多",
    "source": "live",
    "place": "req-1",
    "labels": {"intent": {"label": "投诉", "probability": 0.91}},
    "held_back": 3,
}
MESSAGE = Message("msg_1", "ops", "a", 0.0, json.dumps(TOLD), "waiting", 2, 0.0)
TOKENS = {
    "wecom": "12345678-1234-1234-1234-123456789abc",
    "dingtalk": "a" * 64,
    "feishu": "12345678-1234-1234-1234-123456789abc",
    "slack": "T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ",
}


class Robot:
    """Keeps what it is asked, and answers as it is told."""

    def __init__(self) -> None:
        robot, self.asked, self.status, self.answer = self, list[tuple[str, str]](), 200, b'{"errcode":0}'

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                robot.asked.append((self.path, body))
                self.send_response(robot.status)
                self.send_header("Content-Length", str(len(robot.answer)))
                self.end_headers()
                self.wfile.write(robot.answer)

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def robot() -> Iterator[Robot]:
    made = Robot()
    yield made
    made.server.shutdown()
    made.server.server_close()


def channel(kind: str, folder: Path, robot: Robot) -> Any:
    """As the loader makes it; only where the real robots are is exchanged for the stand-in."""
    pytest.importorskip("apprise")
    (folder / "token").write_text(TOKENS[kind])
    secret = None
    if kind == "dingtalk":
        (folder / "secret").write_text("SEC" + "b" * 30)
        secret = "secret"
    made: Any = channels.make(
        TokenChannel.model_validate({"name": "ops", "kind": kind, "token_file": "token", "secret_file": secret}),
        folder,
        (),
    )
    notifier = made._apprise
    notifier.request_rate_per_sec = 0
    if kind == "wecom":
        notifier.api_url = f"{robot.url}/wecom"
    elif kind == "slack":
        notifier.webhook_url = f"{robot.url}/slack"
    else:
        notifier.notify_url = f"{robot.url}/{kind}?token={{token}}"
    return made


@pytest.mark.parametrize("kind", TOKENS)
def test_a_robot_gets_what_people_are_to_read(kind: str, tmp_path: Path, robot: Robot) -> None:
    robot.answer = b"ok" if kind == "slack" else robot.answer
    channel(kind, tmp_path, robot).send(MESSAGE)
    ((path, body),) = robot.asked
    said = json.dumps(json.loads(body), ensure_ascii=False)
    for part in ("退款投诉增多", "投诉 (0.91)", "msg_1", "第 2 次发送", "另有 3 条"):
        assert part in said, said
    assert kind != "dingtalk" or "sign=" in path, "signed"


@pytest.mark.parametrize("kind", ["wecom", "dingtalk", "feishu"])
def test_a_robot_that_refuses_with_a_good_status_was_not_told(kind: str, tmp_path: Path, robot: Robot) -> None:
    robot.answer = b'{"errcode": 45009, "code": 45009, "errmsg": "api freq out of limit", "msg": "too many"}'
    with pytest.raises(SendFailed, match="45009") as raised:
        channel(kind, tmp_path, robot).send(MESSAGE)
    assert not raised.value.is_final


@pytest.mark.parametrize("kind", ["wecom", "slack"])
@pytest.mark.parametrize(("status", "final"), [(500, False), (429, False), (404, True), (302, True)])
def test_a_robot_s_error_is_one(kind: str, status: int, final: bool, tmp_path: Path, robot: Robot) -> None:
    robot.status, robot.answer = status, b"no"
    with pytest.raises(SendFailed) as raised:
        channel(kind, tmp_path, robot).send(MESSAGE)
    assert raised.value.is_final is final


def test_a_token_that_is_none_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("apprise")
    (tmp_path / "token").write_text("T1/B2")
    slack = TokenChannel.model_validate({"name": "ops", "kind": "slack", "token_file": "token"})
    with pytest.raises(ChannelProblem, match="three parts"):
        channels.make(slack, tmp_path, ())
    with pytest.raises(ChannelProblem, match="is not what wecombot takes"):
        channels.make(slack.model_copy(update={"kind": "wecom"}), tmp_path, ())


class _Mails(socketserver.StreamRequestHandler):
    """As much SMTP as a client needs that wants neither TLS nor a login."""

    def handle(self) -> None:
        self.wfile.write(b"220 here\r\n")
        while line := self.rfile.readline():
            word = line[:4].upper()
            if word == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                lines = []
                while (part := self.rfile.readline()) != b".\r\n":
                    lines.append(part)
                self.server.mails.append(b"".join(lines))  # type: ignore[attr-defined]
            self.wfile.write(b"221 bye\r\n" if word == b"QUIT" else b"250 ok\r\n")
            if word == b"QUIT":
                return


def test_a_mail_is_sent_where_its_server_may_be_reached(tmp_path: Path) -> None:
    pytest.importorskip("apprise")
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Mails) as server:
        server.mails = list[bytes]()  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        mail = MailChannel.model_validate(
            {
                "name": "boss",
                "kind": "mail",
                "host": "127.0.0.1",
                "port": server.server_address[1],
                "security": "none",
                "sender": "qaio@example.com",
                "to": "boss@example.com",
            }
        )
        with pytest.raises(SendFailed, match="QAIO_ALERTS_NETWORKS"):
            channels.make(mail, tmp_path, ()).send(MESSAGE)
        made: Any = channels.make(mail, tmp_path, [ip_network("127.0.0.0/8")])
        made._apprise.request_rate_per_sec = 0
        made.send(MESSAGE)
        server.shutdown()
        (raw,) = server.mails  # type: ignore[attr-defined]
    told = message_from_bytes(raw, policy=policy.default)
    body = told.get_body(("plain",))
    assert "退款投诉增多" in told["Subject"] and told["To"] == "boss@example.com"
    assert body and "msg_1" in body.get_content()


def test_what_people_read_has_the_text_only_where_it_is_told() -> None:
    assert "原文" not in as_text(MESSAGE, TOLD)
    assert "原文: 我要退款" in as_text(MESSAGE, TOLD | {"text": "我要退款"})
