"""Which browsers' requests the page takes."""

from __future__ import annotations

import pytest

from ui.settings import Settings
from ui.visitors import refusal


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:7860", "LOCALHOST", "[::1]:7860", "192.168.1.7", ""])
def test_addresses_and_localhost_are_always_answered(host: str) -> None:
    assert refusal({"host": host}, ()) is None


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "localhost.evil.example"]
)
def test_a_name_that_was_pointed_here_is_refused_and_the_setting_named(host: str) -> None:
    assert "QWEN_UI_ALLOWED_HOSTS" in str(refusal({"host": host}, ()))
    assert refusal({"host": host}, None) is None


def test_names_that_the_operator_gave_are_answered() -> None:
    allowed = Settings.load({"QWEN_UI_ALLOWED_HOSTS": "Qwen.example, other"}).answers_to
    assert refusal({"host": "qwen.example:8443"}, allowed) is None
    assert refusal({"host": "www.qwen.example"}, allowed)
    assert refusal({"host": "any.example"}, ("*",)) is None


def test_only_a_page_on_the_loopback_asks_for_its_name_unasked() -> None:
    assert Settings.load({}).answers_to == ()
    assert Settings.load({"QWEN_UI_HOST": "0.0.0.0"}).answers_to is None


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1.evil.example", "file://", "x"])
def test_a_page_of_another_site_is_turned_away(origin: str) -> None:
    assert refusal({"host": "127.0.0.1:7860", "origin": origin}, ())


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "127.0.0.1:7860", "origin": "http://127.0.0.1:7860"},
        {"host": "qwen.example", "origin": "https://qwen.example"},
        {"host": "127.0.0.1:7860", "x-forwarded-host": "qwen.example", "origin": "https://qwen.example"},
        {"host": "localhost:7860"},
    ],
)
def test_the_pages_own_requests_are_taken_behind_a_proxy_too(headers: dict[str, str]) -> None:
    assert refusal(headers, None) is None
