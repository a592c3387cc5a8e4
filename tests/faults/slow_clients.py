"""Clients that begin a request through TLS and never end it: `python -m tests.faults.slow_clients PORT COUNT`.

A process of its own, so that the honest client beside them is measured and not this one. A line on stdout when all are
connected; when stdin is closed, one with the fewest that were connected since. Who is cut off comes again.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from contextlib import suppress

# nginx limits connections by address: these come from many.
PER_ADDRESS = 10
DRIP_S = 2.0


class Crowd:
    def __init__(self, port: int, count: int) -> None:
        self._port, self._count = port, count
        self._tls = ssl.create_default_context()
        self._tls.check_hostname, self._tls.verify_mode = False, ssl.CERT_NONE
        self._gate = asyncio.Semaphore(20)  # handshakes at the same time
        self.connected = 0

    async def run(self) -> None:
        slow = [asyncio.create_task(self._client(number)) for number in range(self._count)]
        while self.connected < 0.95 * self._count:
            await asyncio.sleep(0.05)
        print("connected", flush=True)
        closed = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        fewest = self.connected
        while not closed.done():
            await asyncio.sleep(0.1)
            fewest = min(fewest, self.connected)
        print(fewest, flush=True)
        for task in slow:
            task.cancel()

    async def _client(self, number: int) -> None:
        """A third never begins TLS, a third drips a head, a third a body."""
        kind = number % 3
        source = (f"127.0.1.{number // PER_ADDRESS + 1}", 0)
        while True:
            with suppress(OSError, ssl.SSLError):
                async with self._gate:
                    tls = self._tls if kind else None
                    _, writer = await asyncio.open_connection("127.0.0.1", self._port, ssl=tls, local_addr=source)
                await self._drip(kind, writer)
            await asyncio.sleep(0.1)

    async def _drip(self, kind: int, writer: asyncio.StreamWriter) -> None:
        self.connected += 1
        try:
            if kind == 1:
                writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-A: ")
            elif kind == 2:
                writer.write(b"POST /chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n")
            while not writer.is_closing():
                await asyncio.sleep(DRIP_S)
                if kind:
                    writer.write(b"a")
                    await writer.drain()
        finally:
            self.connected -= 1
            writer.close()


if __name__ == "__main__":
    asyncio.run(Crowd(int(sys.argv[1]), int(sys.argv[2])).run())
