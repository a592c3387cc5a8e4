"""The health check that containers run."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from qwen_allinone.serving.health import main, problem
from qwen_allinone.settings import Settings


class Loopback6(HTTPServer):
    address_family = socket.AF_INET6


@contextmanager
def listening(status: int, kind: type[HTTPServer] = HTTPServer, host: str = "127.0.0.1") -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with kind((host, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def settings(host: str, port: int) -> Settings:
    return Settings.load({"QAIO_HOST": host, "QAIO_PORT": str(port)})


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1", "localhost"])
def test_a_service_that_is_well_is_found_where_it_listens(host: str) -> None:
    with listening(200) as port:
        assert problem(settings(host, port)) == ""


@pytest.mark.parametrize("host", ["::", "::1"])
def test_ipv6_is_followed(host: str) -> None:
    try:
        with listening(200, Loopback6, "::1") as port:
            assert problem(settings(host, port)) == ""
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")


def test_what_is_wrong_is_told_by_exit_status_and_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with listening(503) as port:
        monkeypatch.setenv("QAIO_PORT", str(port))
        assert main() == 1 and "503" in capsys.readouterr().err
    assert main() == 1 and "refused" in capsys.readouterr().err
    monkeypatch.setenv("QAIO_PORT", "x")
    assert main() == 1 and "QAIO_PORT" in capsys.readouterr().err


def test_no_proxy_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    with listening(200) as port:
        monkeypatch.setenv("QAIO_PORT", str(port))
        assert main() == 0
