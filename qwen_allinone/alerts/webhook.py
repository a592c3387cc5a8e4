"""A POST to a program of the operator's: signed as Standard Webhooks are, to an address that was looked at, bounded."""

from __future__ import annotations

import base64
import hmac
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from qwen_allinone.alerts.addresses import AddressRefused, Network, allowed_addresses, is_within
from qwen_allinone.wording import message_of, said

TIMEOUT_S = 10.0


class SendFailed(Exception):
    """A message did not get through. `is_final`: asking again changes nothing until somebody mends something.
    `wait_s`: the receiver said for how long to wait."""

    def __init__(self, message: str, *, is_final: bool = False, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.is_final = is_final
        self.wait_s = wait_s


def read_secret(text: str) -> bytes:
    """The secret as Standard Webhooks write it: `whsec_` and base64, or base64 alone. Raises ValueError."""
    secret = base64.b64decode(text.strip().removeprefix("whsec_"), validate=True)
    if not 24 <= len(secret) <= 64:
        raise ValueError(said("secret_bytes", count=len(secret)))
    return secret


def signature(secret: bytes, id: str, at: int, body: bytes) -> str:
    """`v1,` and what a receiver computes from the three with the same secret."""
    digest = hmac.digest(secret, f"{id}.{at}.".encode() + body, "sha256")
    return "v1," + base64.b64encode(digest).decode()


@dataclass(frozen=True)
class Webhook:
    """A receiver. `networks`: private ones that may be reached, and without TLS."""

    url: str
    secret: bytes
    networks: Sequence[Network] = ()
    timeout_s: float = TIMEOUT_S

    def send(self, id: str, body: bytes, attempt: int) -> None:
        """Raises SendFailed unless the receiver says 2xx in time."""
        at = int(time.time())
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "User-Agent": "qwen-allinone",
            "Connection": "close",
            "webhook-id": id,
            "webhook-timestamp": str(at),
            "webhook-signature": signature(self.secret, id, at, body),
            "webhook-attempt": str(attempt),
        }
        status, wait_s = self._post(body, headers)
        if 200 <= status < 300:
            return
        # Told to wait or at fault itself: later it may take it. The others say that it never will.
        final = status < 500 and status not in (408, 425, 429)
        hint = said("redirects_not_followed") if 300 <= status < 400 else ""
        raise SendFailed(said("channel_answered", status=status, hint=hint), is_final=final, wait_s=wait_s)

    def _post(self, body: bytes, headers: dict[str, str]) -> tuple[int, float]:
        parts = urlsplit(self.url)
        host, secure = parts.hostname or "", parts.scheme == "https"
        ends = time.monotonic() + self.timeout_s
        try:
            port = parts.port or (443 if secure else 80)
            addresses = allowed_addresses(host, port, self.networks)
            if not secure and not all(is_within(address, self.networks) for address in addresses):
                raise SendFailed(said("asked_without_tls"), is_final=True)
            connection = _Pinned(host, port, addresses, secure=secure, timeout_s=self.timeout_s)
            with _ended(connection, ends):
                target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
                connection.request("POST", target, body, headers)
                response = connection.getresponse()
                wait = response.headers.get("Retry-After", "")
                return response.status, min(float(wait), 3600.0) if wait.isascii() and wait.isdigit() else 0.0
        except AddressRefused as error:
            raise SendFailed(message_of(error), is_final=True) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            late = time.monotonic() >= ends
            told = said("silent", seconds=f"{self.timeout_s:g}") if late else f"{type(error).__name__}: {error}"
            raise SendFailed(told) from None


class _Pinned(http.client.HTTPConnection):
    """Connects to addresses that were looked at, not to what the name means a moment later."""

    def __init__(self, host: str, port: int, addresses: Sequence[str], *, secure: bool, timeout_s: float) -> None:
        super().__init__(host, port, timeout=timeout_s)
        self._addresses = addresses
        self._secure = secure

    def connect(self) -> None:
        self.sock = self._first_that_answers()
        if self._secure:
            context = ssl.create_default_context()
            self.sock = context.wrap_socket(self.sock, server_hostname=self.host)

    def _first_that_answers(self) -> socket.socket:
        for number, address in enumerate(self._addresses, start=1):
            try:
                return socket.create_connection((address, self.port), self.timeout)
            except OSError:
                if number == len(self._addresses):
                    raise
        raise OSError("the name has no address")


class _ended:
    """Cuts a connection off at its time: a receiver that sends a byte now and then holds up nobody for longer."""

    def __init__(self, connection: http.client.HTTPConnection, ends: float) -> None:
        self._connection = connection
        self._timer = threading.Timer(max(0.01, ends - time.monotonic()), self._cut)
        self._timer.daemon = True

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self._connection.close()

    def _cut(self) -> None:
        with suppress(OSError, AttributeError):
            self._connection.sock.shutdown(socket.SHUT_RDWR)
