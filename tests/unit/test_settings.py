"""Settings: every name is known, every value possible, and nothing else is read."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from qwen_allinone.errors import SettingsError
from qwen_allinone.settings import Settings


def test_without_an_environment_every_setting_has_its_default(prompts_folder: Path) -> None:
    settings = Settings.load({})
    assert settings.model_dump() == {
        "model": "Qwen/Qwen1.5-0.5B",
        "model_revision": "main",
        "weights": "fp32",
        "prompts": prompts_folder,
        "host": "0.0.0.0",
        "port": 5000,
        "workers": 1,
        "threads": 0,
        "slots": 8,
        "context": 1536,
        "kv_tokens": 4096,
        "step_tokens": 256,
        "max_waiting": 32,
        "deadline_s": 120.0,
        "max_body_bytes": 1_048_576,
        "log_level": "info",
    }


@pytest.mark.parametrize(
    ("name", "value", "field", "expected"),
    [
        ("QAIO_MODEL", "demo", "model", "demo"),
        ("QAIO_MODEL_REVISION", "abc123", "model_revision", "abc123"),
        ("QAIO_WEIGHTS", "fp16", "weights", "fp16"),
        ("QAIO_PROMPTS", "/srv/prompts", "prompts", Path("/srv/prompts")),
        ("QAIO_HOST", "127.0.0.1", "host", "127.0.0.1"),
        ("QAIO_PORT", "65535", "port", 65535),
        ("QAIO_WORKERS", "2", "workers", 2),
        ("QAIO_THREADS", "16", "threads", 16),
        ("QAIO_SLOTS", "64", "slots", 64),
        ("QAIO_CONTEXT", "4096", "context", 4096),
        ("QAIO_KV_TOKENS", "1536", "kv_tokens", 1536),
        ("QAIO_STEP_TOKENS", "16", "step_tokens", 16),
        ("QAIO_MAX_WAITING", "0", "max_waiting", 0),
        ("QAIO_DEADLINE_S", "0.5", "deadline_s", 0.5),
        ("QAIO_MAX_BODY_BYTES", "1024", "max_body_bytes", 1024),
        ("QAIO_LOG_LEVEL", "debug", "log_level", "debug"),
    ],
)
def test_every_setting_is_read_from_its_variable(name: str, value: str, field: str, expected: object) -> None:
    settings = Settings.load({name: value})
    assert getattr(settings, field) == expected
    assert type(getattr(settings, field)) is type(expected) or isinstance(expected, Path)


def test_the_table_above_names_every_setting() -> None:
    marks = test_every_setting_is_read_from_its_variable.pytestmark
    named = [row[0] for row in marks[0].args[1]]
    assert named == Settings.names()


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"QAIO_MODLE": "demo"}, ["QAIO_MODLE", "no such setting", "QAIO_MODEL,"]),
        ({"QAIO_model": "demo"}, ["QAIO_model", "no such setting"]),
        ({"QAIO_": "x"}, ["QAIO_:", "no such setting"]),
        ({"QAIO_MODEL": ""}, ["QAIO_MODEL=''"]),
        ({"QAIO_PORT": "http"}, ["QAIO_PORT='http'", "integer"]),
        ({"QAIO_PORT": "0"}, ["QAIO_PORT='0'", "greater than or equal to 1"]),
        ({"QAIO_PORT": "65536"}, ["QAIO_PORT='65536'", "less than or equal to 65535"]),
        ({"QAIO_PORT": "5000.5"}, ["QAIO_PORT='5000.5'", "integer"]),
        ({"QAIO_PORT": ""}, ["QAIO_PORT=''"]),
        ({"QAIO_WORKERS": "0"}, ["QAIO_WORKERS='0'"]),
        ({"QAIO_THREADS": "-1"}, ["QAIO_THREADS='-1'"]),
        ({"QAIO_SLOTS": "0"}, ["QAIO_SLOTS='0'"]),
        ({"QAIO_SLOTS": "65"}, ["QAIO_SLOTS='65'"]),
        ({"QAIO_CONTEXT": "63"}, ["QAIO_CONTEXT='63'"]),
        ({"QAIO_STEP_TOKENS": "15"}, ["QAIO_STEP_TOKENS='15'"]),
        ({"QAIO_MAX_WAITING": "-1"}, ["QAIO_MAX_WAITING='-1'"]),
        ({"QAIO_DEADLINE_S": "0"}, ["QAIO_DEADLINE_S='0'", "greater than 0"]),
        ({"QAIO_DEADLINE_S": "nan"}, ["QAIO_DEADLINE_S='nan'"]),
        ({"QAIO_DEADLINE_S": "inf"}, ["QAIO_DEADLINE_S='inf'"]),
        ({"QAIO_MAX_BODY_BYTES": "1"}, ["QAIO_MAX_BODY_BYTES='1'"]),
        ({"QAIO_WEIGHTS": "int4"}, ["QAIO_WEIGHTS='int4'", "'fp32'", "'fp16'", "'int8'"]),
        ({"QAIO_LOG_LEVEL": "INFO"}, ["QAIO_LOG_LEVEL='INFO'", "'info'"]),
        ({"QAIO_KV_TOKENS": "1000"}, ["QAIO_KV_TOKENS=1000", "QAIO_CONTEXT=1536", "raise the first or lower the second"]),
        ({"QAIO_CONTEXT": "8192"}, ["QAIO_KV_TOKENS=4096", "QAIO_CONTEXT=8192"]),
        ({"QAIO_SLOTS": "32", "QAIO_STEP_TOKENS": "31"}, ["QAIO_STEP_TOKENS=31", "QAIO_SLOTS=32", "lower the second"]),
    ],
)  # fmt: skip
def test_an_impossible_environment_stops_startup(environ: dict[str, str], words: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.load(environ)
    for word in words:
        assert word in str(caught.value)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.load({"QAIO_PORT": "0", "QAIO_SLOTS": "none", "QAIO_COLOUR": "red"})
    for word in ("QAIO_PORT='0'", "QAIO_SLOTS='none'", "QAIO_COLOUR"):
        assert word in str(caught.value)


def test_settings_that_just_fit_together_are_taken() -> None:
    settings = Settings.load(
        {"QAIO_KV_TOKENS": "64", "QAIO_CONTEXT": "64", "QAIO_SLOTS": "16", "QAIO_STEP_TOKENS": "16"}
    )
    assert (settings.kv_tokens, settings.context, settings.slots, settings.step_tokens) == (64, 64, 16, 16)


def test_other_variables_are_left_alone() -> None:
    assert Settings.load({"PORT": "1", "MODEL": "x", "HF_HOME": "/x", "qaio_port": "1"}) == Settings.load({})


def test_the_processs_environment_is_read_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QAIO_PORT", "8080")
    assert Settings.load().port == 8080
    assert Settings.load({}).port == 5000, "and only by default"


def test_a_dotenv_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("QAIO_PORT=8080\n")
    monkeypatch.chdir(tmp_path)
    assert Settings.load({}).port == 5000


def test_settings_are_frozen() -> None:
    settings = Settings.load({})
    with pytest.raises(ValidationError, match="frozen"):
        settings.port = 1


def test_every_setting_says_what_it_is_for() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description and len(field.description) > 10, name
