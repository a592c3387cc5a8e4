"""Thousands of requests made from /openapi.json, right, wrong and with odd values in every field, and bytes that are no
request: never a 500, and the memory comes back."""

from __future__ import annotations

import http.client
import json
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from requests.adapters import HTTPAdapter
from schemathesis import GenerationMode

from tests.e2e.conftest import Service
from tests.faults.process import resident_mib
from tests.faults.scenario import Bench, Scenario

THREADS = 4
PATIENCE_S = 30.0
LONGEST_S = 900.0
MOST_GROWTH_MIB = 50.0
# Memory is compared with what it was when this share of the requests had been sent.
_WARM = 0.2
ALLOWED = (503, 504)  # full, and a time limit that the request itself set
POSTS = ("/chat", "/v1/tasks/sentiment", "/v1/tasks/chat")


class Tally:
    """What came back, from all threads; says when it is enough."""

    def __init__(self, wanted: int, say: Callable[[str], None], longest_s: float, *, to_the_first: bool) -> None:
        self.ends: Counter[str] = Counter()
        self.bad: list[str] = []
        self._to_the_first = to_the_first
        self._wanted, self._say = wanted, say
        self._deadline = time.monotonic() + longest_s
        self._lock = threading.Lock()

    @property
    def count(self) -> int:
        return self.ends.total()

    @property
    def enough(self) -> bool:
        found = self._to_the_first and bool(self.bad)
        return found or self.count >= self._wanted or time.monotonic() > self._deadline

    def add(self, end: str, *, bad: bool, what: object) -> None:
        with self._lock:
            self.ends[end] += 1
            if bad:
                self.bad.append(f"{end} to {what!r:.300}")
            if self.count % 100 == 0:
                self._say(f"{self.count} of {self._wanted}, {len(self.bad)} bad")


def run(bench: Bench) -> None:
    bodies(bench, bench.size(20_000, 400), 0, LONGEST_S)


def bodies(bench: Bench, wanted: int, start: int, longest_s: float) -> int:
    """Send `wanted` requests, others for each `start`, for `longest_s` seconds at most; returns how many had an end."""
    service = bench.start(
        QAIO_WORKERS="2",
        QAIO_MAX_BODY_BYTES="65536",
        QAIO_PROMPTS=str(bench.short_prompts(2)),
        QAIO_DEADLINE_S="20",
    )
    workers = service.workers
    tally = Tally(wanted, bench.say, longest_s, to_the_first=bool(bench.plant))
    numbers = range(start, start + THREADS)
    threads = [threading.Thread(target=_fuzz, args=(service, tally, number), daemon=True) for number in numbers]
    for thread in threads:
        thread.start()
    before, ends = 0.0, time.monotonic() + longest_s + 120
    while any(thread.is_alive() for thread in threads) and time.monotonic() < ends:
        if not before and tally.count >= _WARM * wanted:
            before = _memory(service)
        time.sleep(0.1)
    hanging = sum(thread.is_alive() for thread in threads)
    shown = ", ".join(f"{end}: {count}" for end, count in tally.ends.most_common())
    ok = not tally.bad and tally.count >= wanted and not hanging and tally.ends["200"] > 0 and tally.ends["400"] > 0
    example = f"; {len(tally.bad)} bad, such as {tally.bad[0]}" if tally.bad else ""
    bench.check(f"{wanted} generated requests: no 500, none without an answer", f"{tally.count}: {shown}{example}", ok)
    growth = _memory(service) - before
    asked = f"memory is back within {MOST_GROWTH_MIB:g} MiB of what it was after {_WARM:.0%} of them"
    bench.check(asked, f"{growth:+.0f} MiB", before > 0 and growth <= MOST_GROWTH_MIB)
    bench.check("the same workers before and after", str(service.workers == workers), service.workers == workers)
    traces = service.log.count("Traceback")
    bench.check("no traceback in the log", traces, not traces)
    return tally.count


def _memory(service: Service) -> float:
    return sum(map(resident_mib, service.workers))


def _fuzz(service: Service, tally: Tally, number: int) -> None:
    """One client: rounds of requests by schema, bodies of any kind, raw bytes, until there are enough."""
    base = f"http://127.0.0.1:{service.port}"
    session = requests.Session()
    session.trust_env = False
    session.mount("http://", HTTPAdapter(max_retries=0))
    schema = schemathesis.openapi.from_dict(json.loads(service.ask("GET", "/openapi.json").data))
    operations = [result.ok() for result in schema.get_all_operations()]
    strategies = [
        operation.as_strategy(generation_mode=mode)
        for operation in operations
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
        # Half of the work goes where there is a body.
        for _ in range(3 if operation.method == "post" else 1)
    ]
    odd = _odd([operation for operation in operations if operation.method == "post"])
    others = [*[BODIES] * 6, *[RAW] * 2, *[odd] * (len(strategies) // 2)]
    rounds = random.Random(number)
    while not tally.enough:
        strategy = rounds.choice([*strategies, *others])
        with suppress(Exception):  # of hypothesis, for a strategy that can make nothing
            _round(strategy, lambda made: _send(made, service, session, base, tally), rounds.randrange(1 << 30), tally)


def _round(strategy: st.SearchStrategy[Any], send: Callable[[Any], None], start: int, tally: Tally) -> None:
    @seed(start)
    @settings(
        max_examples=25,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def ask(made: Any) -> None:
        if not tally.enough:
            send(made)

    ask()


def _send(made: Any, service: Service, session: requests.Session, base: str, tally: Tally) -> None:
    if isinstance(made, bytes):
        _send_raw(made, service, tally)
        return
    for attempt in (1, 2):  # an idle connection may have been closed in the moment of sending
        try:
            if isinstance(made, tuple):
                path, kind, body = made
                answer: Any = session.post(base + path, data=body, headers={"Content-Type": kind}, timeout=PATIENCE_S)
            else:
                answer = made.call(base_url=base, session=session, timeout=PATIENCE_S)
            break
        except requests.Timeout:
            tally.add("hang", bad=True, what=made)
            return
        except requests.ConnectionError as error:
            if attempt == 2:
                tally.add("no answer", bad=True, what=(made, str(error)))
                return
        except (ValueError, UnicodeError, requests.RequestException, http.client.HTTPException):
            return  # the client's library cannot even send it
    status = int(answer.status_code)
    tally.add(str(status), bad=status >= 500 and status not in ALLOWED, what=made)


def _send_raw(made: bytes, service: Service, tally: Tally) -> None:
    """Any bytes on a connection, then its end: an answer or a closed connection, but no waiting and no 500."""
    try:
        with socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE_S) as connection:
            received = b""
            with suppress(ConnectionError):
                connection.sendall(made)
                connection.shutdown(socket.SHUT_WR)
                while block := connection.recv(65536):
                    received += block
    except TimeoutError:
        tally.add("hang", bad=True, what=made)
        return
    status = received[9:12].decode("latin-1") if received.startswith(b"HTTP/1.1 ") else "closed"
    tally.add(f"raw {status}", bad=status.startswith("5") and int(status) not in ALLOWED, what=made)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
TEXT_OBJECTS = st.fixed_dictionaries({"text": st.text(max_size=80) | JSON_VALUES}).map(json.dumps)


@st.composite
def _broken(draw: st.DrawFn) -> bytes:
    """Something that was JSON, cut and with a few bytes in the wrong place."""
    whole = bytearray(draw(TEXT_OBJECTS | JSON_VALUES.map(json.dumps)).encode("utf-8", "surrogatepass"))
    for _ in range(draw(st.integers(0, 3))):
        whole.insert(draw(st.integers(0, len(whole))), draw(st.integers(0, 255)))
    return bytes(whole[: draw(st.integers(0, len(whole)))])


NESTED = st.integers(1, 30_000).map(lambda depth: b"[" * depth)
BODIES = st.tuples(
    st.sampled_from(POSTS),
    st.sampled_from(["application/json"] * 6 + ["application/json; charset=gbk", "text/plain", "x"]),
    st.binary(max_size=300) | _broken() | TEXT_OBJECTS.map(str.encode) | NESTED,
)
# Values as they stand in JSON, each of which some parser or check somewhere has stumbled over.
_ODD_VALUES = (
    *(r'"\ud800"', r'"\udfff\ud800a"', r'"\u0000"', '"\u202e\u200d"', '""', '" "', '"' + "长" * 3000 + '"', '"-1"'),
    *("NaN", "Infinity", "-Infinity", "1e999", "-1e-999", "9" * 400, "-" + "9" * 5000, "18446744073709551616", "-0", "0.1"),
    *("null", "true", "[]", "{}", "[null]", '{"": 1}', r'{"\ud800": 1}', "[" * 60 + "]" * 60, '{"a":' * 60 + "1" + "}" * 60),
    *("[" * 200 + "]" * 200, '{"a":1,"a":2}', "[" + "1," * 3000 + "1]"),
)  # fmt: skip
_MARK = "where the odd value goes"


def _places(value: Any) -> Iterator[tuple[Any, ...]]:
    """The way to each value inside, and to the whole."""
    yield ()
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for part, item in inner:
        yield from ((part, *place) for place in _places(item))


def _with_mark(value: Any, place: Sequence[Any]) -> Any:
    """`value` with the mark at `place`."""
    if not place:
        return _MARK
    if isinstance(value, dict):
        return value | {place[0]: _with_mark(value[place[0]], place[1:])}
    return [_with_mark(item, place[1:]) if number == place[0] else item for number, item in enumerate(value)]


@st.composite
def _odd(draw: st.DrawFn, operations: Sequence[Any]) -> tuple[str, str, bytes]:
    """A right body but for one field, which has an odd value."""
    case = draw(draw(st.sampled_from(operations)).as_strategy(generation_mode=GenerationMode.POSITIVE))
    body = case.body if isinstance(case.body, dict) else {"text": "a"}
    marked = json.dumps(_with_mark(body, draw(st.sampled_from(list(_places(body))))))
    whole = marked.replace(json.dumps(_MARK), draw(st.sampled_from(_ODD_VALUES)))
    return case.formatted_path, "application/json", whole.encode("utf-8", "surrogatepass")


_HEADS = (
    b"GET / HTTP/1.1\r\n",
    b"POST /chat HTTP/1.1\r\nHost: localhost\r\n",
    b"POST /chat HTTP/1.1\r\nContent-Length: 9\r\n\r\n",
)
RAW = st.binary(max_size=400) | st.tuples(st.sampled_from(_HEADS), st.binary(max_size=200)).map(b"".join)

SCENARIO = Scenario("fuzz", run, plant="crash", finds="no 500")
