"""A real nginx with deploy/nginx.conf.template on free ports, and clients that speak TLS to it."""

from __future__ import annotations

import http.client
import os
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
# Debian keeps servers out of an ordinary user's PATH.
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])


def proxy_settings() -> dict[str, str]:
    """deploy/proxy.env as a shell would read it."""
    return dict(word.split("=", 1) for word in shlex.split((DEPLOY / "proxy.env").read_text("utf-8"), comments=True))


def rendered(**changed: str) -> str:
    """What envsubst makes of the template with the shipped values, but for those in `changed`."""
    template = (DEPLOY / "nginx.conf.template").read_text(encoding="utf-8")
    values = proxy_settings() | changed
    return re.sub(r"\$\{(PROXY_[A-Z_]+)\}", lambda found: values[found[1]], template)


def find(*names: str) -> tuple[str, ...]:
    """Paths of the programs; skips the test if one is missing."""
    paths = [shutil.which(name, path=SEARCH_PATH) for name in names]
    for name, path in zip(names, paths, strict=True):
        if path is None:
            pytest.skip(f"{name} is not installed (Debian: apt-get install nginx-light openssl)")
    return tuple(path for path in paths if path)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: list[tuple[str, str]]
    data: bytes

    def header(self, name: str) -> str | None:
        """The header's value; it must not be there twice."""
        values = [value for given, value in self.headers if given.lower() == name.lower()]
        assert len(values) < 2, f"{name} is there {len(values)} times: {values}"
        return values[0] if values else None


@dataclass
class Proxy:
    """A running nginx. `source` in its methods is the client's own address, any of 127.0.0.0/8."""

    process: subprocess.Popen[bytes]
    http_port: int
    https_port: int
    folder: Path

    @property
    def errors(self) -> str:
        return (self.folder / "stderr.txt").read_text(encoding="utf-8", errors="replace")

    @property
    def access_log(self) -> str:
        return (self.folder / "access.log").read_text(encoding="utf-8", errors="replace")

    def connect(self, source: str = "127.0.0.1", seconds: float = 60.0) -> ssl.SSLSocket:
        """A TLS connection that trusts the test's own certificate only."""
        plain = socket.create_connection(("127.0.0.1", self.https_port), timeout=seconds, source_address=(source, 0))
        return self.tls().wrap_socket(plain, server_hostname="localhost")

    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.folder / "fullchain.pem"))

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        source: str = "127.0.0.1",
    ) -> Answer:
        """One request on a connection of its own."""
        connection = http.client.HTTPSConnection(
            "localhost", self.https_port, timeout=60, source_address=(source, 0), context=self.tls()
        )
        try:
            connection.request(method, path, body, {"Connection": "close"} | (headers or {}))
            response = connection.getresponse()
            return Answer(response.status, response.getheaders(), response.read())
        finally:
            connection.close()

    def raw(self, *parts: bytes, source: str = "127.0.0.1", seconds: float = 30.0) -> bytes:
        """Send bytes as they are; returns all that comes back until nginx closes."""
        with self.connect(source, seconds) as connection:
            for part in parts:
                connection.sendall(part)
            return drain(connection)


def drain(connection: socket.socket) -> bytes:
    """Everything until the other side closes."""
    received = b""
    with suppress(ConnectionResetError, ssl.SSLEOFError):
        while block := connection.recv(65536):
            received += block
    return received


def certificate(folder: Path, openssl: str) -> None:
    """A self-signed certificate for localhost, as fullchain.pem and privkey.pem."""
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
        + ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-addext", "keyUsage=critical,digitalSignature"]
        + ["-keyout", str(folder / "privkey.pem"), "-out", str(folder / "fullchain.pem")],
        check=True,
        capture_output=True,
    )


@contextmanager
def proxy(upstreams: list[int], *, edit: tuple[str, str] = ("", ""), **changed: str) -> Iterator[Proxy]:
    """nginx before services on the ports `upstreams`.

    `changed` are PROXY_* values to differ in. `edit` replaces one text of the file by another, to show that a test
    would find what is wrong then.
    """
    nginx, openssl = find("nginx", "openssl")
    # Not below pytest's folder: nginx's workers are nobody, and must be able to enter.
    with tempfile.TemporaryDirectory(prefix="qaio-nginx-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        certificate(folder, openssl)
        http_port, https_port = free_ports(2)
        places = {
            "PROXY_HTTP": f"127.0.0.1:{http_port}",
            "PROXY_HTTPS": f"127.0.0.1:{https_port}",
            "PROXY_PUBLIC_URL": f"https://localhost:{https_port}",
            "PROXY_TLS": name,
            "PROXY_RUN": name,
            "PROXY_ACCESS_LOG": f"{name}/access.log",
            "PROXY_UPSTREAMS": " ".join(f"server 127.0.0.1:{port} max_fails=2 fail_timeout=5s;" for port in upstreams),
        }
        config = folder / "nginx.conf"
        text = rendered(**places | changed)
        assert edit[0] in text
        config.write_text(text.replace(*edit) if edit[0] else text, encoding="utf-8")
        with (folder / "stderr.txt").open("wb") as errors:
            process = subprocess.Popen(
                [nginx, "-c", str(config), "-g", "daemon off;"], stdin=subprocess.DEVNULL, stdout=errors, stderr=errors
            )
        running = Proxy(process, http_port, https_port, folder)
        try:
            wait_until_it_listens(running)
            yield running
        finally:
            process.terminate()  # the master takes its workers along, open connections too
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


def wait_until_it_listens(running: Proxy) -> None:
    for _ in range(600):
        assert running.process.poll() is None, running.errors
        with suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", running.https_port), timeout=10).close()
            return
        with suppress(subprocess.TimeoutExpired):
            running.process.wait(0.1)
    raise AssertionError(f"nginx does not listen: {running.errors}")


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on now, all different."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()
