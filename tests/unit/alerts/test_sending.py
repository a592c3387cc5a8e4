"""Messages on their way to a real receiver: one that takes them, refuses them, is out of order, hangs, or is away."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest

from qwen_allinone.alerts.channels import _OwnWebhook
from qwen_allinone.alerts.sending import ChannelThread, Senders, pause_s
from qwen_allinone.alerts.webhook import SendFailed, Webhook, read_secret, signature
from qwen_allinone.state import AlertEvent, SqliteOutbox, now
from tests.support.alerting_process import Uncounted
from tests.support.receiver import SECRET, Receiver

LOCAL = (ip_network("127.0.0.0/8"),)
PATIENCE_S = 60.0


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.down()


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[SqliteOutbox]:
    made = SqliteOutbox(tmp_path / "alerts.db")
    yield made
    made.close()


def until(holds: Callable[[], object]) -> None:
    ends = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.02)


def put(outbox: SqliteOutbox, *ids: str, channels: tuple[str, ...] = ("ops",), at: float | None = None) -> None:
    body = json.dumps({"rule": "a", "n": 1})
    outbox.add([AlertEvent(id, "a", now() if at is None else at, channels, body) for id in ids])


def channel(receiver: Receiver, outbox: SqliteOutbox) -> ChannelThread:
    return ChannelThread("ops", _OwnWebhook(Webhook(receiver.url, SECRET, LOCAL)), outbox, None)


def test_a_message_is_signed_as_the_standard_has_it(receiver: Receiver, outbox: SqliteOutbox) -> None:
    put(outbox, "1")
    assert channel(receiver, outbox).send_next() == 0
    (taken,) = receiver.taken
    assert taken.signed and taken.attempt == 1 and taken.body["type"] == "qaio.alert"
    assert taken.body["id"] == taken.id and taken.body["data"]["rule"] == "a"
    assert outbox.counts() == {"waiting": 0, "dead": 0, "sent": 1}


def test_the_signature_is_that_of_the_standard_s_own_example() -> None:
    secret = read_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    assert signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body) == (
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


def test_a_receiver_that_is_out_of_order_is_asked_again_with_the_same_id(
    receiver: Receiver, outbox: SqliteOutbox
) -> None:
    receiver.behave = lambda number: 500 if number <= 2 else 204
    put(outbox, "1")
    senders = Senders({"ops": _OwnWebhook(Webhook(receiver.url, SECRET, LOCAL))}, outbox)
    senders.start()
    try:
        until(lambda: receiver.taken)
    finally:
        senders.stop()
    assert receiver.taken[0].attempt == 3 and receiver.asked == 3


def test_whoever_counts_hears_of_each_channel_before_anything_is_sent(receiver: Receiver, outbox: SqliteOutbox) -> None:
    class Heard(Uncounted):
        channels: tuple[str, ...] = ()

        def expect_channel(self, channel: str) -> None:
            self.channels += (channel,)

    heard, sender = Heard(), _OwnWebhook(Webhook(receiver.url, SECRET, LOCAL))
    Senders({"ops": sender, "mail": sender}, outbox, heard)
    assert heard.channels == ("ops", "mail")


def test_a_channel_that_hangs_holds_up_no_other_and_nothing_is_lost(receiver: Receiver, outbox: SqliteOutbox) -> None:
    released = threading.Event()
    hanging = Receiver(lambda number: 204 if released.wait(PATIENCE_S) else 500)
    put(outbox, "1", "2", channels=("ops", "stuck"))
    senders = Senders(
        {
            "stuck": _OwnWebhook(Webhook(hanging.url, SECRET, LOCAL, timeout_s=0.5)),
            "ops": _OwnWebhook(Webhook(receiver.url, SECRET, LOCAL)),
        },
        outbox,
    )
    senders.start()
    try:
        until(lambda: len(receiver.taken) == 2)
        until(lambda: any("no answer within" in m.error for m in outbox.messages("waiting", 10)))
        released.set()
        until(lambda: outbox.counts()["sent"] == 4)
    finally:
        senders.stop()
        hanging.down()
    doubles = [taken for taken in hanging.taken if taken.attempt > 1]
    assert {taken.id for taken in doubles} <= {taken.id for taken in hanging.taken} and doubles, "marked by their id"


def test_a_receiver_that_drips_is_cut_off_at_its_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            connection, _ = server.accept()
            with connection:
                try:
                    while True:
                        connection.sendall(b"H")
                        time.sleep(0.05)
                except OSError:
                    pass

        thread = threading.Thread(target=drip)
        thread.start()
        hook = Webhook(f"http://127.0.0.1:{server.getsockname()[1]}/", SECRET, LOCAL, timeout_s=1.0)
        with pytest.raises(SendFailed):
            hook.send("msg", b"{}", 1)
        thread.join(PATIENCE_S)
        assert not thread.is_alive(), "the connection was closed"


@pytest.mark.parametrize("status", [400, 404, 410, 301])
def test_what_a_receiver_refuses_for_good_is_dead_after_some_tries(
    status: int, receiver: Receiver, outbox: SqliteOutbox
) -> None:
    receiver.behave = lambda number: status
    put(outbox, "1")
    sending = channel(receiver, outbox)
    for _ in range(4):
        outbox.retry(None)  # due now, without the pauses
        assert sending.send_next() == 0, "the next message need not wait"
    (dead,) = outbox.messages("dead", 10)
    assert dead.tries == 4 and str(status) in dead.error and receiver.asked == 4
    receiver.behave = lambda number: 204
    outbox.retry([dead.id])
    assert sending.send_next() == 0 and receiver.taken[0].id == dead.id


def test_after_a_day_a_message_is_given_up(receiver: Receiver, outbox: SqliteOutbox) -> None:
    receiver.behave = lambda number: 503
    put(outbox, "1", at=now() - 86_401)
    channel(receiver, outbox).send_next()
    assert outbox.counts()["dead"] == 1


def test_a_channel_that_is_away_is_left_alone_for_longer_each_time(receiver: Receiver, outbox: SqliteOutbox) -> None:
    receiver.down()
    put(outbox, "1", "2", "3")
    sending = channel(receiver, outbox)
    first, second, third = (sending.send_next() for _ in range(3))
    assert 0.8 <= first <= 1.2 and 1.6 <= second <= 2.4 and 3.2 <= third <= 4.8
    assert 720 <= pause_s(50) <= 1080


def test_a_private_address_is_refused_before_anything_is_sent(receiver: Receiver) -> None:
    with pytest.raises(SendFailed, match="QAIO_ALERTS_NETWORKS") as raised:
        Webhook(receiver.url, SECRET).send("msg", b"{}", 1)
    assert raised.value.is_final and receiver.asked == 0


def test_a_name_that_leads_to_a_private_address_is_refused(receiver: Receiver) -> None:
    with pytest.raises(SendFailed, match="no public address"):
        Webhook(f"http://localhost:{receiver.port}/", SECRET).send("msg", b"{}", 1)
    assert receiver.asked == 0
