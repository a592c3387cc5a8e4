"""The page's own settings, and the files that name them."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from ui.__main__ import check_address, main
from ui.settings import PREFIX, Settings, SettingsError

PROJECT = Path(__file__).resolve().parents[3]


def test_values_come_from_the_environment_and_other_names_are_left_alone() -> None:
    settings = Settings.load({"QWEN_UI_SERVICE": "https://qwen.example/api/", "QWEN_UI_PORT": "80", "QAIO_PORT": "x"})
    assert (settings.service, settings.port, settings.parallel) == ("https://qwen.example/api", 80, 4)


def test_what_kubernetes_sets_for_a_service_named_qwen_ui_is_ignored(caplog: pytest.LogCaptureFixture) -> None:
    links = {"QWEN_UI_PORT": "tcp://10.0.0.7:80", "QWEN_UI_SERVICE_HOST": "10.0.0.7", "QWEN_UI_PORT_80_TCP_PORT": "80"}
    assert Settings.load(links) == Settings.load({})
    assert "enableServiceLinks" in caplog.text and all(name in caplog.text for name in links)


@pytest.mark.parametrize("key", ["two words", "two\nlines", "schlüssel"])
def test_a_key_that_no_header_takes_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(SettingsError, match="QWEN_UI_API_KEY") as caught:
        Settings.load({"QWEN_UI_API_KEY": key})
    assert not any(part in str(caught.value) for part in ("two", "lines", "words\n", "schl"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("QWEN_UI_PROT", "1"),
        ("QWEN_UI_PORT", "0"),
        ("QWEN_UI_SERVICE", "localhost:5000"),
        ("QWEN_UI_SERVICE", "http://me:secret@localhost"),
        ("QWEN_UI_PARALLEL", "many"),
    ],
)
def test_a_wrong_setting_is_named_and_its_value_is_not_shown(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name) as caught:
        Settings.load({name: value})
    assert "secret" not in str(caught.value)


def test_a_port_that_is_taken_ends_the_page_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        monkeypatch.setenv("QWEN_UI_PORT", str(port))
        assert main() == 2
    told = capsys.readouterr().err
    assert told == f"QWEN_UI_PORT={port}: another program listens on 127.0.0.1 port {port}; stop it, or set another\n"
    check_address("127.0.0.1", port)  # which nobody holds any more
    check_address("localhost", port)


def test_an_address_that_is_not_this_machine_s_is_told() -> None:
    with pytest.raises(SettingsError, match="QWEN_UI_HOST=192.0.2.1: nobody can listen there"):
        check_address("192.0.2.1", 7860)


def test_the_key_is_not_shown() -> None:
    assert "a-key" not in repr(Settings.load({"QWEN_UI_API_KEY": "a-key"}))


def test_every_setting_stands_in_the_documentation_with_its_default_and_meaning() -> None:
    page = (PROJECT / "docs" / "page.md").read_text(encoding="utf-8")
    for name, field in Settings.model_fields.items():
        shown = "unset" if field.default is None else f"`{field.default}`"
        assert f"| `{PREFIX}{name.upper()}` | {shown} | {field.description} |" in page
    listed = [line.split("`")[1] for line in page.splitlines() if line.startswith(f"| `{PREFIX}")]
    assert listed == Settings.names()


def test_what_both_need_is_pinned_to_the_same_version_so_that_one_environment_can_hold_both() -> None:
    def pins(name: str) -> dict[str, str]:
        lines = (PROJECT / name).read_text(encoding="utf-8").splitlines()
        return dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))

    service, tests, page = pins("requirements.txt"), pins("tests/requirements.txt"), pins("requirements-ui.txt")
    shared = page.keys() & (service.keys() | tests.keys())
    assert shared >= {"pydantic", "httpx"}
    assert {name: page[name] for name in shared} == {name: (service | tests)[name] for name in shared}
