from __future__ import annotations

import multiprocessing
import select
import socket
import sys
import time
from collections.abc import Iterator

import pytest

from qwen_allinone.serving.listener import _plug, close_listener

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what the kernel keeps for a listener is Linux's")


@pytest.fixture(params=["127.0.0.1", "0.0.0.0", "::1"])
def listener(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    try:
        made = socket.create_server((request.param, 0), family=family, backlog=16)
    except OSError as error:
        pytest.skip(f"no {request.param} here: {error}")
    made.setblocking(False)
    with made:
        yield made


def address_of(listener: socket.socket) -> tuple[str, int]:
    host, port = listener.getsockname()[:2]
    return ("127.0.0.1" if host == "0.0.0.0" else host), port


def all_of(listener: socket.socket, taken: list[socket.socket]) -> None:
    while True:
        try:
            taken.append(listener.accept()[0])
        except BlockingIOError:
            return


def test_who_comes_in_the_moment_of_closing_is_accepted_or_refused(listener: socket.socket) -> None:
    address, taken, late = address_of(listener), [], []

    def accept_waiting() -> None:
        all_of(listener, taken)
        if len(late) < 3:  # the moment between the last accept and the close
            late.append(socket.create_connection(address))

    close_listener(listener, accept_waiting)
    assert len(taken) >= len(late) == 3
    for client in late:
        poller = select.poll()
        poller.register(client, select.POLLIN)
        assert poller.poll(100) == [], "reset"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=10)
    for connection in (*taken, *late):
        connection.close()


def test_who_comes_after_the_place_is_taken_is_refused(listener: socket.socket) -> None:
    address = address_of(listener)
    plug = _plug(listener)
    assert plug is not None
    client = socket.socket(listener.family)
    client.setblocking(False)
    client.connect_ex(address)
    time.sleep(0.1)
    listener.close()
    client.setblocking(True)
    poller = select.poll()
    poller.register(client, select.POLLOUT)
    assert poller.poll(10_000)
    assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 111  # ECONNREFUSED, not ECONNRESET
    client.close()
    plug.close()


def test_a_listener_others_hold_too_stays_as_it_is(listener: socket.socket) -> None:
    address = address_of(listener)
    connections = multiprocessing.get_context("fork").Pipe()
    child = multiprocessing.get_context("fork").Process(target=_close_and_tell, args=(listener, connections[1]))
    child.start()
    assert connections[0].poll(20) and connections[0].recv() == "closed"
    child.join(20)
    clients = [socket.create_connection(address, timeout=5) for _ in range(8)]  # its queue is as long as it was
    for client in clients:
        client.close()


def _close_and_tell(listener: socket.socket, told: object) -> None:
    close_listener(listener, lambda: None)
    told.send("closed")  # type: ignore[attr-defined]
