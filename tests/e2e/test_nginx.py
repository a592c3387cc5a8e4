"""deploy/nginx.conf.template in a real nginx before real Gunicorn: TLS, limits, what arrives, what an error looks like."""

from __future__ import annotations

import http.client
import json
import ssl
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.conftest import Echo, Service
from tests.support.nginx import Answer, Proxy, certificate, find, proxy, rendered

MIB = 1_048_576
JSON = {"Content-Type": "application/json"}


def assert_is_error(answer: Answer, path: str) -> None:
    """The contract's shape, and the headers of every answer."""
    assert answer.header("Content-Type") == "application/json; charset=utf-8"
    error = json.loads(answer.data)
    if path.startswith("/v1"):
        error = error["error"]
        assert list(error) == ["message", "type", "param", "code"]
        assert error["type"] == ("server_error" if answer.status >= 500 else "invalid_request_error")
    else:
        assert list(error) == ["error", "code"]
    assert error["code"].isidentifier()
    assert any("\u4e00" <= char <= "\u9fff" for char in error.get("message", error.get("error")))
    assert answer.header("X-Request-Id") and answer.header("Cache-Control") == "no-store"


def test_the_shipped_file_with_the_shipped_values_passes_nginx_t(tmp_path: Path) -> None:
    nginx, openssl = find("nginx", "openssl")
    certificate(tmp_path, openssl)
    config = tmp_path / "nginx.conf"
    # The certificate's place and a host name that only compose knows are all that differ.
    text = rendered(PROXY_TLS=str(tmp_path), PROXY_RUN=str(tmp_path))
    config.write_text(text.replace("qwen:5000", "127.0.0.1:5000"), encoding="utf-8")
    done = subprocess.run([nginx, "-t", "-c", str(config)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "test is successful" in done.stderr and "[warn]" not in done.stderr


def test_the_real_service_answers_through_nginx(service: Service) -> None:
    with proxy([service.port]) as front:
        answer = front.ask("POST", "/chat", '{"text": "今天很开心"}'.encode(), JSON)
        assert (answer.status, answer.header("X-Model")) == (200, "demo")
        assert list(json.loads(answer.data)) == ["sentiment", "response"]
        refused = front.ask("POST", "/chat", b"{}", JSON)
        assert (refused.status, json.loads(refused.data)["code"]) == (400, "empty_input")
        assert front.ask("POST", "/chat", b" " * MIB, JSON).status == 400
        assert [front.ask("GET", path).status for path in ("/livez", "/readyz", "/health", "/v1/tasks")] == [200] * 4
        assert front.ask("GET", "/docs/swagger").status == 200


# ---- TLS ----


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_1_2_and_1_3_are_spoken_with_forward_secrecy(front: Proxy, version: ssl.TLSVersion) -> None:
    context = front.tls()
    context.minimum_version = context.maximum_version = version
    connection = http.client.HTTPSConnection("localhost", front.https_port, timeout=30, context=context)
    connection.request("GET", "/livez", headers={"Connection": "close"})
    cipher = connection.sock.cipher()  # type: ignore[union-attr]
    assert connection.getresponse().status == 200
    connection.close()
    assert cipher is not None and cipher[0].startswith(("ECDHE-", "TLS_")) and "SHA1" not in cipher[0]


def test_tls_1_1_is_refused_by_the_server(front: Proxy) -> None:
    context = front.tls()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    connection = http.client.HTTPSConnection("localhost", front.https_port, timeout=30, context=context)
    with pytest.raises(ssl.SSLError) as refused:
        connection.request("GET", "/livez")
    assert refused.value.reason == "TLSV1_ALERT_PROTOCOL_VERSION"  # the server's word, not the client's own


def test_a_cipher_without_forward_secrecy_is_refused(front: Proxy) -> None:
    context = front.tls()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AES128-GCM-SHA256:AES128-SHA")
    connection = http.client.HTTPSConnection("localhost", front.https_port, timeout=30, context=context)
    with pytest.raises(ssl.SSLError) as refused:
        connection.request("GET", "/livez")
    assert refused.value.reason == "SSLV3_ALERT_HANDSHAKE_FAILURE"


def test_http_is_redirected_to_the_public_address_whatever_host_is_claimed(front: Proxy) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", front.http_port, timeout=30)
    connection.request("POST", "/chat?a=b", b"{}", {"Host": "evil.example"})
    response = connection.getresponse()
    assert response.status == 308
    assert response.getheader("Location") == f"https://localhost:{front.https_port}/chat?a=b"
    connection.close()


def test_plain_http_on_the_tls_port_is_a_json_400(front: Proxy) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", front.https_port, timeout=30)
    connection.request("GET", "/livez")
    response = connection.getresponse()
    assert response.status == 400 and json.load(response)["code"] == "bad_request"
    connection.close()


# ---- Sizes ----


@pytest.mark.parametrize("path", ["/chat", "/v1/tasks/sentiment"])
@pytest.mark.parametrize("chunked", [False, True], ids=["by length", "chunked"])
def test_a_body_over_the_limit_never_reaches_the_service(front: Proxy, echo: Echo, path: str, chunked: bool) -> None:
    before = len(echo.seen(path))
    block = b" " * (MIB // 8)
    if chunked:
        head, block = b"Transfer-Encoding: chunked", b"%x\r\n%s\r\n" % (len(block), block)
    else:
        head = b"Content-Length: %d" % (9 * len(block))
    request = b"POST %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%s\r\n\r\n" % (path.encode(), head)
    received = front.raw(request, *[block] * 9, b"0\r\n\r\n" if chunked else b"")
    assert received.startswith(b"HTTP/1.1 413 ")
    assert b'"code": "payload_too_large"' in received
    assert len(echo.seen(path)) == before


def test_a_body_of_exactly_the_limit_arrives_whole(front: Proxy, echo: Echo) -> None:
    assert front.ask("POST", "/exactly", b" " * MIB).status == 200
    assert [entry["bytes"] for entry in echo.seen("/exactly")] == [MIB]


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/" + "a" * 5000, {}, 414),
        ("/v1/tasks", {"X-Long": "a" * 9000}, 431),
        ("/long-header", {"X-Long": "a" * 9000}, 431),
        ("/many-headers", {f"X-{number}": "a" * 200 for number in range(101)}, 431),
    ],
    ids=["URI of 5 KB", "header of 9 KB under /v1", "header of 9 KB", "101 headers of 200 B"],
)
def test_too_long_a_head_is_refused_in_the_contract_s_shape(
    front: Proxy, echo: Echo, path: str, headers: dict[str, str], status: int
) -> None:
    answer = front.ask("GET", path, headers=headers)
    assert answer.status == status
    assert_is_error(answer, path)
    assert echo.seen(path) == []


def test_a_token_of_8_kb_passes_as_it_passes_gunicorn(front: Proxy, echo: Echo) -> None:
    longest = 8190 - len("Authorization: Bearer \r\n")
    token = "Bearer " + "a" * longest
    assert echo.service.ask("GET", "/token", Authorization=token).status == 200
    assert front.ask("GET", "/token", headers={"Authorization": token}).status == 200
    assert [len(entry["headers"]["AUTHORIZATION"]) for entry in echo.seen("/token")] == [len(token)] * 2
    refused = front.ask("GET", "/token", headers={"Authorization": token + "a" * 10})
    assert refused.status == 431
    assert_is_error(refused, "/token")


def test_101_short_headers_are_refused_by_gunicorn(front: Proxy, echo: Echo) -> None:
    assert front.ask("GET", "/short-headers", headers={f"X-{number}": "1" for number in range(101)}).status == 431
    assert echo.seen("/short-headers") == []


# ---- What arrives ----


def test_nothing_a_client_claims_about_itself_arrives(front: Proxy, echo: Echo) -> None:
    claims = dict.fromkeys(["X-Forwarded-For", "X-Real-IP", "X_Forwarded_For", "X-Forwarded-Host"], "203.0.113.9")
    claims |= {"Forwarded": "for=203.0.113.9", "X-Forwarded-Proto": "http", "X-Forwarded-Protocol": "ssl"}
    claims |= {"X-Forwarded-Ssl": "on", "X-Forwarded-Prefix": "/x", "X-Forwarded-Port": "1", "Proxy": "http://evil"}
    claims |= {"SCRIPT_NAME": "/x", "PATH_INFO": "/x"}
    assert front.ask("GET", "/claims", headers=claims, source="127.0.0.7").status == 200
    (seen,) = echo.seen("/claims")
    assert "203.0.113.9" not in json.dumps(seen) and "evil" not in json.dumps(seen)
    assert (seen["scheme"], seen["script"]) == ("https", "")
    headers = seen["headers"]
    assert (headers["X_FORWARDED_FOR"], headers["X_REAL_IP"]) == ("127.0.0.7", "127.0.0.7")
    assert headers["X_FORWARDED_PROTO"] == "https" and headers["CONNECTION"] == "close"
    assert not {"FORWARDED", "PROXY", "X_FORWARDED_SSL", "X_FORWARDED_PREFIX", "X_FORWARDED_PORT"} & set(headers)


@pytest.mark.parametrize("given", ["abc-1.2_3", "x" * 128, "x" * 129, "a b", "a\tb", "a\x1b[31mb", "标", ""])
def test_a_request_id_is_kept_if_it_is_one_and_made_if_not(front: Proxy, echo: Echo, given: str) -> None:
    before = len(echo.seen("/id"))
    answer = front.ask("GET", "/id", headers={"X-Request-Id": given.encode().decode("latin-1")})
    seen = echo.seen("/id")[before]["headers"]["X_REQUEST_ID"]
    assert answer.header("X-Request-Id") == seen
    assert (seen == given) == (given in ("abc-1.2_3", "x" * 128))
    assert seen.replace("-", "").replace(".", "").replace("_", "").isalnum() and seen.isascii()


def test_the_callers_trace_arrives(front: Proxy, echo: Echo) -> None:
    given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    assert front.ask("GET", "/trace", headers={"traceparent": given}).status == 200
    assert echo.seen("/trace")[-1]["headers"]["TRACEPARENT"] == given


def test_every_answer_carries_the_security_headers_once(front: Proxy) -> None:
    for path in ("/anything", "/" + "a" * 5000):
        answer = front.ask("GET", path)
        assert answer.header("Server") == "nginx"
        assert answer.header("Strict-Transport-Security") == "max-age=31536000"
        assert answer.header("X-Content-Type-Options") == "nosniff"
        assert answer.header("X-Frame-Options") == "DENY"
        assert answer.header("Referrer-Policy") == "no-referrer"
        assert "frame-ancestors 'none'" in (answer.header("Content-Security-Policy") or "")


@pytest.mark.parametrize("path", ["/metrics", "//metrics", "/metrics/", "/%6detrics", "/a/../metrics", "/metrics?a=b"])
def test_metrics_are_not_there_for_the_outside(front: Proxy, echo: Echo, path: str) -> None:
    before = len(echo.seen())
    answer = front.ask("GET", path, source="127.0.0.2", headers={"X-Forwarded-For": "127.0.0.1"})
    assert answer.status == 404
    assert_is_error(answer, path)
    assert len(echo.seen()) == before


def test_metrics_are_there_for_this_machine(front: Proxy, echo: Echo) -> None:
    assert front.ask("GET", "/metrics").status == 200
    assert len(echo.seen("/metrics")) == 1


def test_the_access_log_is_json_without_query_and_without_control_characters(front: Proxy) -> None:
    front.ask("POST", "/%1b%5b31mred%0d%0aline?secret=1", b"body-secret", {"Authorization": "Bearer header-secret"})
    front.ask("POST", "/v1/" + "b" * 5000, b"")
    lines = [json.loads(line) for line in front.access_log.splitlines()]
    assert any(line["path"] == "/%1b%5b31mred%0d%0aline" and line["method"] == "POST" for line in lines)
    assert "secret" not in front.access_log and "\x1b" not in front.access_log


# ---- Limits by address ----


def test_a_flood_from_one_address_is_429_and_others_do_not_feel_it(echo: Echo) -> None:
    with proxy([echo.service.port], PROXY_REQUESTS_PER_S="1", PROXY_BURST="3") as front:
        for path in ("/flood", "/v1/flood"):
            answers = [front.ask("GET", path) for _ in range(12)]
            refused = [answer for answer in answers if answer.status == 429]
            assert len(refused) >= 6
            for answer in refused:
                assert_is_error(answer, path)
                assert answer.header("Retry-After") == "1"
        assert front.ask("GET", "/flood", headers={"X-Forwarded-For": "127.0.0.9"}).status == 429
        assert front.ask("GET", "/flood", source="127.0.0.9").status == 200
        assert {front.ask("GET", "/livez").status for _ in range(12)} == {200}


def test_too_many_requests_at_a_time_from_one_address_are_429(echo: Echo) -> None:
    with proxy([echo.service.port], PROXY_CONNECTIONS="2", PROXY_REQUESTS_PER_S="1000") as front:
        with ThreadPoolExecutor(8) as pool:
            statuses = sorted(answer.status for answer in pool.map(lambda _: front.ask("GET", "/slow"), range(8)))
        assert statuses[0] == 200 and statuses[-1] == 429 and set(statuses) == {200, 429}
        assert front.ask("GET", "/slow").status == 200


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("en-US,en;q=0.9", "there is nothing at this address, see /docs for what there is"),
        ("EN", "there is nothing at this address, see /docs for what there is"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "没有这个地址，接口说明见 /docs"),
        ("enough", "没有这个地址，接口说明见 /docs"),
        ("", "没有这个地址，接口说明见 /docs"),
    ],
)
def test_its_own_errors_are_in_the_language_that_a_client_names_first(front: Proxy, header: str, told: str) -> None:
    headers = {"Accept-Language": header} if header else {}
    answer = front.ask("GET", "/metrics", source="127.0.0.2", headers=headers)
    assert (answer.status, json.loads(answer.data)["error"]) == (404, told)
