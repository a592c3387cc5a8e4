"""A crowd of clients in one process of its own, on one asyncio loop, so that it costs the service little.

It shares the machine with the service all the same. Per request it spends about 0.2 ms of a core, and what it takes the
service lacks: goodput is a little too low, and latencies include the time until this loop looks at an answer (some
milliseconds while a hundred answers come at once). Both are against the service, never for it.

Started with a Plan as JSON on stdin; ends after `seconds`, or when stdin is closed, and writes its outcomes to stdout.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from tests.faults.scenario import python

_MOST_TURNS = 20  # of one conversation
TEXTS = ("今天心情特别差，工作也不顺利", "我升职了，今天好开心！", "房间干净，前台也很热情", "等了两个小时没人理我")


@dataclass(frozen=True)
class Plan:
    """`clients` ask one after the other (closed loop); with `rate`, requests come at random, so many a second, and no
    more than `clients` at once wait for an answer. Every second client of a closed loop keeps its connection if `keep_alive`."""

    port: int
    clients: int
    seconds: float
    rate: float = 0.0
    path: str = "/chat"
    texts: tuple[str, ...] = TEXTS
    timeout_s: float = 60.0
    leave_after_s: float = 0.0  # hang up then, answer or not
    keep_alive: bool = False
    obey: bool = True  # wait as Retry-After says
    key: str = ""  # shown as X-API-Key
    callers: bool = False  # each request from an address of its own, as a proxy would tell
    mixed: bool = False  # by turns: a question alone, a turn of a conversation, a stream


@dataclass(frozen=True)
class Outcome:
    """`end`: an HTTP status, or `refused` (nobody listened), `reset`, `closed` (without a whole answer), `hang`, `left`."""

    id: str
    began: float  # seconds on the machine's monotonic clock
    took: float
    end: str
    code: str = ""  # the reason in an error's body
    retry_after: bool = False

    @property
    def answered(self) -> bool:
        return self.end.isdigit()

    @property
    def clean(self) -> bool:
        """Answered, or told before anything was sent that nobody is there."""
        return self.answered or self.end == "refused"


class Load:
    """A running crowd, seen from the harness."""

    def __init__(self, plan: Plan) -> None:
        self._process = subprocess.Popen(python("tests.faults.load"), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(asdict(plan)).encode() + b"\n")
        self._process.stdin.flush()
        self._limit_s = plan.seconds + plan.timeout_s + 60

    def end(self) -> list[Outcome]:
        """Stop asking, wait for the answers under way."""
        return self._outcomes()

    def wait(self) -> list[Outcome]:
        """Until the plan's time is over."""
        assert self._process.stdin
        return self._outcomes(early=False)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(10)

    def _outcomes(self, *, early: bool = True) -> list[Outcome]:
        killer = threading.Timer(self._limit_s, self._process.kill)
        killer.start()
        try:
            assert self._process.stdin and self._process.stdout
            if early:
                self._process.stdin.close()
            lines = self._process.stdout.read().splitlines()
            assert self._process.wait(10) == 0, "the load generator failed"
            return [Outcome(*json.loads(line)) for line in lines]
        finally:
            killer.cancel()
            self._process.stdin.close()


def counts(outcomes: list[Outcome]) -> str:
    """`200: 512, 503 server_busy: 3`, most frequent first."""
    found = Counter(f"{outcome.end} {outcome.code}".strip() for outcome in outcomes)
    return ", ".join(f"{end}: {count}" for end, count in found.most_common()) or "nothing"


# ---- In the process of the crowd ----


class Connection:
    """One connection at a time; kept open between requests if `keep`."""

    def __init__(self, port: int, keep: bool) -> None:
        self._port, self._keep = port, keep
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, head: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        fresh = self._streams is None or self._streams[0].at_eof()
        try:
            return await self._ask(head, body)
        except (ConnectionResetError, BrokenPipeError, asyncio.IncompleteReadError) as error:
            self.close()
            # Closed by the server, idle, in the moment of sending: a client sends once more (RFC 9112, 9.3.1).
            if fresh or getattr(error, "partial", b""):
                raise
            return await self._ask(head, body)

    async def _ask(self, head: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if self._streams is None or self._streams[0].at_eof():
            self.close()
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(f"{head}Connection: {'keep-alive' if self._keep else 'close'}\r\n\r\n".encode() + body)
        first, *rest = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
        answer = await _whole(reader, headers)
        if not self._keep or headers.get("connection") == "close":
            self.close()
        return int(first.split()[1]), headers, answer

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def _whole(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    """The body of an answer, of known length or in chunks (RFC 9112, 7.1)."""
    if headers.get("transfer-encoding") != "chunked":
        return await reader.readexactly(int(headers["content-length"]))
    body = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readuntil(b"\r\n")
    return body


class Crowd:
    """Runs a Plan and collects outcomes."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._ends = time.monotonic() + plan.seconds
        self._random = random.Random(1)
        self._numbers = 0
        self._talks: list[tuple[str, int]] = []  # conversations nobody is in: id and turns
        self.outcomes: list[Outcome] = []

    @property
    def _over(self) -> bool:
        return time.monotonic() >= self._ends

    def stop(self) -> None:
        self._ends = 0.0

    async def run(self) -> None:
        if self._plan.rate:
            await self._open_loop()
        else:
            await asyncio.gather(*[self._client(number) for number in range(self._plan.clients)])

    async def _client(self, number: int) -> None:
        connection = Connection(self._plan.port, self._plan.keep_alive and number % 2 == 0)
        while not self._over:
            wait_s = await self._ask(connection)
            await self._sleep(wait_s)
        connection.close()

    async def _open_loop(self) -> None:
        places = asyncio.Semaphore(self._plan.clients)
        waiting: set[asyncio.Task[None]] = set()

        async def ask() -> None:
            connection = Connection(self._plan.port, keep=False)
            async with places:
                await self._ask(connection)
            connection.close()

        due = time.monotonic()
        while not self._over:
            due += self._random.expovariate(self._plan.rate)
            await self._sleep(due - time.monotonic())
            task = asyncio.create_task(ask())
            waiting.add(task)
            task.add_done_callback(waiting.discard)
        await asyncio.gather(*waiting)

    async def _sleep(self, seconds: float) -> None:
        ends = time.monotonic() + seconds
        while (left := min(ends, self._ends) - time.monotonic()) > 0:
            await asyncio.sleep(min(left, 0.5))

    async def _ask(self, connection: Connection) -> float:
        """One request; returns the seconds to wait before the next."""
        plan = self._plan
        self._numbers += 1
        name = f"load-{self._numbers}"
        asked: dict[str, object] = {"text": self._random.choice(plan.texts)}
        kind = ("alone", "talk", "stream")[self._numbers % 3] if plan.mixed else "alone"
        talk = self._talks.pop(0) if kind == "talk" and self._talks else ("", 0)
        if kind == "talk":
            asked |= {"session_id": talk[0]} if talk[0] else {"session": True}
        elif kind == "stream":
            asked["stream"] = True
        body = json.dumps(asked).encode()
        head = f"POST {plan.path} HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: {name}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        if plan.key:
            head += f"X-API-Key: {plan.key}\r\n"
        if plan.callers:
            head += (
                f"X-Forwarded-For: 10.{self._numbers >> 16 & 255}.{self._numbers >> 8 & 255}.{self._numbers & 255}\r\n"
            )
        began, code, wait_s, told = time.monotonic(), "", 0.0, False
        try:
            limit = plan.leave_after_s or plan.timeout_s
            status, headers, answer = await asyncio.wait_for(connection.ask(head, body), limit)
            end = str(status)
            if kind == "talk" and status == 200 and talk[1] < _MOST_TURNS:
                self._talks.append((json.loads(answer)["session_id"], talk[1] + 1))
            if kind == "stream" and status == 200 and b"event: done" not in answer:
                end = "closed"
            if status >= 400:
                error = json.loads(answer)
                code = error["code"] if "code" in error else error["error"]["code"]
            told = "retry-after" in headers
            if told and plan.obey:  # not all at once: clients that back off spread their next tries
                wait_s = int(headers["retry-after"]) + self._random.random()
        except ConnectionRefusedError:
            end, wait_s = "refused", 0.05
        except TimeoutError:
            end = "left" if plan.leave_after_s else "hang"
        except asyncio.IncompleteReadError:
            end, wait_s = "closed", 0.05
        except OSError:
            end, wait_s = "reset", 0.05
        if not end.isdigit():
            connection.close()
        self.outcomes.append(Outcome(name, began, time.monotonic() - began, end, code, told))
        return wait_s


async def _main() -> None:
    plan: dict[str, Any] = json.loads(sys.stdin.readline())
    crowd = Crowd(Plan(**plan))
    loop = asyncio.get_running_loop()

    def watch() -> None:
        with suppress(RuntimeError):  # the loop has ended by itself
            sys.stdin.read()
            loop.call_soon_threadsafe(crowd.stop)

    threading.Thread(target=watch, daemon=True).start()
    await crowd.run()
    for outcome in crowd.outcomes:
        row = (outcome.id, outcome.began, outcome.took, outcome.end, outcome.code, outcome.retry_after)
        sys.stdout.write(json.dumps(row) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_main())
