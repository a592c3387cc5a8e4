"""Where the service is reached: IPv6, kept connections, under a path of a proxy."""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
import sys
import time
from urllib.parse import urljoin

import pytest

from tests.e2e.conftest import PROJECT, StartService, environment, until
from tests.support.nginx import proxy


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on this machine")
@pytest.mark.parametrize(("host", "reached"), [("::", ("::1", "127.0.0.1")), ("[::1]", ("::1",))])
def test_an_ipv6_address_listens_and_the_health_check_follows(
    start_service: StartService, tmp_path: object, host: str, reached: tuple[str, ...]
) -> None:
    service = start_service(ready=False, QAIO_HOST=host)
    check = [sys.executable, "-m", "qwen_allinone.serving.health"]
    environ = environment(
        service.port, PROJECT, {"QAIO_HOST": host, "http_proxy": "http://127.0.0.1:9", "NO_PROXY": ""}
    )
    until(lambda: subprocess.run(check, cwd=PROJECT, env=environ, check=False).returncode == 0, "it is well")
    for address in reached:
        connection = http.client.HTTPConnection(address, service.port, timeout=30)
        connection.request("GET", "/livez", headers={"Connection": "close"})
        assert connection.getresponse().status == 200
        connection.close()


@pytest.mark.parametrize(("keepalive_s", "kept"), [("1", False), ("30", True)])
def test_an_idle_connection_is_kept_as_long_as_set(start_service: StartService, keepalive_s: str, kept: bool) -> None:
    service = start_service(QAIO_KEEPALIVE_S=keepalive_s)
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
    connection.request("GET", "/livez")
    connection.getresponse().read()
    time.sleep(7)
    connection.auto_open = False  # type: ignore[assignment]  # a new connection would hide that the old one is gone
    try:
        connection.request("GET", "/livez")
        assert connection.getresponse().status == 200
        assert kept
    except (OSError, http.client.HTTPException):
        assert not kept
    finally:
        connection.close()


def test_the_documentation_works_under_a_path_of_a_tls_proxy(start_service: StartService) -> None:
    service = start_service(QAIO_TRUSTED_PROXIES="127.0.0.1")
    # As people write it: the path is cut off before the service sees it.
    here = ("location / {\n            limit_req", "location /qwen/ {\n            limit_req")
    under = "proxy_pass http://qwen_allinone/;\n        }\n\n        # May be streams"
    with proxy([service.port], edit=here) as front:
        file = front.folder / "nginx.conf"
        file.write_text(
            file.read_text().replace("proxy_pass http://qwen_allinone;\n        }\n\n        # May be streams", under)
        )
        front.process.send_signal(1)  # SIGHUP: read it again
        until(lambda: front.ask("GET", "/qwen/livez").status == 200, "nginx has read its file")

        def get(address: str) -> tuple[str, bytes]:
            answer = front.ask("GET", address)
            while answer.status in (301, 302, 307, 308):
                target = answer.header("Location") or ""
                assert not target.startswith("http:")
                address = urljoin(f"https://localhost{address}", target).removeprefix("https://localhost")
                answer = front.ask("GET", address)
            assert answer.status == 200, (address, answer)
            return address, answer.data

        about = json.loads(get("/qwen/")[1])
        page, html = get(urljoin("/qwen/", about["docs"]))
        assert page.startswith("/qwen/docs/")
        for part in re.findall(rb"""(?:src|href)\s*=\s*["']([^"']+)["']""", html):
            assert get(urljoin(page, part.decode()))[0].startswith("/qwen/docs/")
        (found,) = re.findall(rb'new URL\("([^"]+)", window\.location\.href\)', html)
        address, document = get(urljoin(page, found.decode()))
        assert address == "/qwen/openapi.json"
        (server,) = json.loads(document)["servers"]
        assert urljoin(address, server["url"]) == "/qwen/", "what the page sends goes there"
