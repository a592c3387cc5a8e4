"""The shipped nginx before the service: TLS, streams, forged addresses, and five hundred clients that never finish."""

from __future__ import annotations

import http.client
import json
import ssl
import subprocess
import time
import warnings
from collections import Counter
from statistics import median

from tests.e2e.conftest import echoes
from tests.e2e.test_nginx_faults import pieces, spread
from tests.faults.scenario import Bench, Scenario, milliseconds, percentile, python
from tests.support.echo_app import PIECES
from tests.support.nginx import Proxy, proxy

LIMIT = 5
SLOWER = 2.0
# Below these no one can tell slower from another day: the scheduler's own grain.
GRAIN_S = 0.005
JSON = {"Content-Type": "application/json"}
WITHOUT_LIMITS = {"PROXY_REQUESTS_PER_S": "1000", "PROXY_BURST": "1000", "PROXY_CONNECTIONS": "1000"}


def run(bench: Bench) -> None:
    _streams(bench)
    if bench.plant:
        return
    service = bench.start(QAIO_TRUSTED_PROXIES="127.0.0.1", QAIO_RATE_REQUESTS=str(LIMIT))
    with proxy([service.port]) as front:
        _tls(bench, front)
        _forged(bench, front)
    service.end()
    service = bench.start()
    with proxy([service.port], **WITHOUT_LIMITS) as front:
        _slow_clients(bench, front)


def _streams(bench: Bench) -> None:
    bench.say("a stream through nginx")
    edit = ("proxy_buffering off", "proxy_buffering on") if bench.plant else ("", "")
    with echoes(bench.home) as start_echo, proxy([start_echo().service.port], edit=edit) as front:
        pauses = spread(pieces(front))
    asked = "a stream's pieces come as they are sent"
    bench.check(asked, f"{pauses} of {PIECES} pauses seen by the client", pauses >= PIECES - 2)


def _tls(bench: Bench, front: Proxy) -> None:
    bench.say("TLS versions")
    versions = (ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
    spoken = [speaks(front, version) for version in versions]
    measured = ", ".join(f"{version.name}: {word}" for version, word in zip(versions, spoken, strict=True))
    ok = spoken == ["TLSV1_ALERT_PROTOCOL_VERSION", "200", "200"]
    bench.check("TLS 1.1 is refused, 1.2 and 1.3 are spoken", measured, ok)


def speaks(front: Proxy, version: ssl.TLSVersion) -> str:
    """The status of /livez over that version, or the server's reason not to."""
    context = front.tls()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        if version < ssl.TLSVersion.TLSv1_2:
            context.set_ciphers("ALL:@SECLEVEL=0")  # else this client would refuse, not the server
        context.minimum_version = context.maximum_version = version
    connection = http.client.HTTPSConnection("localhost", front.https_port, timeout=30, context=context)
    try:
        connection.request("GET", "/livez", headers={"Connection": "close"})
        return str(connection.getresponse().status)
    except ssl.SSLError as error:
        return str(error.reason)
    finally:
        connection.close()


def _forged(bench: Bench, front: Proxy) -> None:
    bench.say("forged X-Forwarded-For")

    def ask(number: int, source: str) -> int:
        return front.ask("GET", "/v1/tasks", headers={"X-Forwarded-For": f"198.51.100.{number}"}, source=source).status

    forger = Counter(ask(number, "127.0.0.5") for number in range(4 * LIMIT))
    other = Counter(ask(number, "127.0.0.6") for number in range(LIMIT))
    measured = f"forger: {dict(forger)}, another: {dict(other)}"
    ok = forger == {200: LIMIT, 429: 3 * LIMIT} and other == {200: LIMIT}
    bench.check(f"{4 * LIMIT} forged X-Forwarded-For, limit {LIMIT}: counted by the real peer", measured, ok)


def _slow_clients(bench: Bench, front: Proxy) -> None:
    clients, asked = bench.size(500, 100), bench.size(300, 30)
    body = json.dumps({"text": "今天很开心"}).encode()

    def honest() -> list[float]:
        took = []
        for _ in range(asked):
            began = time.monotonic()
            assert front.ask("POST", "/v1/tasks/sentiment", body, JSON).status == 200
            took.append(time.monotonic() - began)
        return took

    bench.say(f"an honest client alone, then beside {clients} slow ones")
    honest()
    before = honest()
    crowd = subprocess.Popen(
        python("tests.faults.slow_clients", str(front.https_port), str(clients)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert crowd.stdin and crowd.stdout
        crowd.stdout.readline()  # all are there
        during = honest()
        crowd.stdin.close()
        held = int(crowd.stdout.readline())
        crowd.wait(30)
    finally:
        crowd.kill()
        crowd.wait(10)
    ratios, shown = [], []
    for name, of in (("median", median), ("p95", lambda values: percentile(values, 95))):
        then, now = of(before), of(during)
        ratios.append(now / max(then, GRAIN_S))
        shown.append(f"{name} {milliseconds(then)}, then {milliseconds(now)}")
    measured = f"{'; '.join(shown)}; never fewer than {held} slow"
    ok = max(ratios) <= SLOWER and held >= 0.8 * clients
    bench.check(f"{clients} slow clients: an honest one is at most {SLOWER:g} x slower", measured, ok)


SCENARIO = Scenario("nginx", run, plant="buffered", finds="stream")
