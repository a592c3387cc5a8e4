"""Settings: every name is known, every value possible, and nothing else is read."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from qwen_allinone.errors import SettingsError
from qwen_allinone.settings import Settings
from qwen_allinone.wording import in_language, message_of

JWT = {
    "QAIO_JWT_ALGORITHM": "RS256",
    "QAIO_JWT_KEY_FILE": "/key",
    "QAIO_JWT_ISSUER": "us",
    "QAIO_JWT_AUDIENCE": "qaio",
}


def test_without_an_environment_every_setting_has_its_default(prompts_folder: Path) -> None:
    settings = Settings.load({})
    assert settings.model_dump() == {
        "model": "Qwen/Qwen1.5-0.5B",
        "model_revision": "main",
        "weights": "fp32",
        "kernels": "auto",
        "kv": "auto",
        "packed_dir": None,
        "drafts": "auto",
        "prompts": prompts_folder,
        "prompts_kept": Path("data/prompts"),
        "prompts_may_lose": 0.05,
        "fit": "gold",
        "fit_s": 15.0,
        "fit_file": Path("data/fits.json"),
        "host": None,
        "port": 5000,
        "workers": 1,
        "threads": 0,
        "slots": 8,
        "context": 1536,
        "kv_tokens": 4096,
        "step_tokens": 256,
        "share_tokens": 16,
        "caller_slots": 87,
        "max_waiting": 32,
        "deadline_s": 120.0,
        "grace_s": 0.0,
        "stuck_s": 60.0,
        "ping_s": 10.0,
        "keepalive_s": 5,
        "max_body_bytes": 1_048_576,
        "model_aliases": (),
        "allowed_hosts": None,
        "cors_origins": (),
        "api_keys_file": None,
        "jwt_algorithm": None,
        "jwt_key_file": None,
        "jwt_issuer": None,
        "jwt_audience": None,
        "trusted_proxies": (),
        "rate_requests": 0,
        "rate_tokens": 0,
        "redis_url": None,
        "state_url": None,
        "sessions_file": Path("data/sessions.db"),
        "sessions_max_mb": 1000,
        "sessions_key_mb": 100,
        "session_ttl_s": 86_400.0,
        "session_turns": 100,
        "memory": False,
        "memory_items": 1000,
        "memory_key_mb": 100,
        "memory_ttl_s": 31_536_000.0,
        "memory_chat_completions": False,
        "feedback_file": None,
        "feedback_days": 90.0,
        "feedback_max_mb": 100,
        "batch_at_once": 2,
        "batches_file": Path("data/batches.db"),
        "batches_max_mb": 4000,
        "batch_file_mb": 200,
        "batch_key_mb": 1000,
        "batch_key_lines": 200_000,
        "batch_key_open": 10,
        "batch_days": 30.0,
        "idempotency_ttl_s": 86_400.0,
        "idempotency_key_mb": 16,
        "usage_days": 90,
        "admins": (),
        "prompt_edit": False,
        "shares": {},
        "priority_keys": (),
        "cache_mb": 16,
        "cache_ttl_s": 3600,
        "alerts": None,
        "alerts_outbox": Path("data/alerts.db"),
        "alerts_networks": (),
        "log_level": "info",
        "log_format": "auto",
        "log_text": False,
        "audit_file": None,
        "audit_max_mb": 100,
        "audit_keep": 10,
    }


@pytest.mark.parametrize(
    ("name", "value", "field", "expected"),
    [
        ("QAIO_MODEL", "demo", "model", "demo"),
        ("QAIO_MODEL_REVISION", "abc123", "model_revision", "abc123"),
        ("QAIO_WEIGHTS", "fp16", "weights", "fp16"),
        ("QAIO_KERNELS", "torch", "kernels", "torch"),
        ("QAIO_KV", "fp16", "kv", "fp16"),
        ("QAIO_PACKED_DIR", "/p", "packed_dir", Path("/p")),
        ("QAIO_DRAFTS", "off", "drafts", "off"),
        ("QAIO_PROMPTS", "/srv/prompts", "prompts", Path("/srv/prompts")),
        ("QAIO_PROMPTS_KEPT", "/srv/kept", "prompts_kept", Path("/srv/kept")),
        ("QAIO_PROMPTS_MAY_LOSE", "1", "prompts_may_lose", 1.0),
        ("QAIO_FIT", "off", "fit", "off"),
        ("QAIO_FIT_S", "3.5", "fit_s", 3.5),
        ("QAIO_FIT_FILE", "/srv/fits.json", "fit_file", Path("/srv/fits.json")),
        ("QAIO_HOST", "127.0.0.1", "host", "127.0.0.1"),
        ("QAIO_PORT", "65535", "port", 65535),
        ("QAIO_WORKERS", "2", "workers", 2),
        ("QAIO_THREADS", "16", "threads", 16),
        ("QAIO_SLOTS", "64", "slots", 64),
        ("QAIO_CONTEXT", "4096", "context", 4096),
        ("QAIO_KV_TOKENS", "1536", "kv_tokens", 1536),
        ("QAIO_STEP_TOKENS", "16", "step_tokens", 16),
        ("QAIO_SHARE_TOKENS", "64", "share_tokens", 64),
        ("QAIO_CALLER_SLOTS", "50", "caller_slots", 50),
        ("QAIO_MAX_WAITING", "0", "max_waiting", 0),
        ("QAIO_DEADLINE_S", "0.5", "deadline_s", 0.5),
        ("QAIO_GRACE_S", "30", "grace_s", 30.0),
        ("QAIO_STUCK_S", "5", "stuck_s", 5.0),
        ("QAIO_PING_S", "0.5", "ping_s", 0.5),
        ("QAIO_KEEPALIVE_S", "65", "keepalive_s", 65),
        ("QAIO_MAX_BODY_BYTES", "1024", "max_body_bytes", 1024),
        ("QAIO_MODEL_ALIASES", "gpt-4o-mini, 小模型", "model_aliases", ("gpt-4o-mini", "小模型")),
        ("QAIO_ALLOWED_HOSTS", "qaio,.example.com", "allowed_hosts", ("qaio", ".example.com")),
        (
            "QAIO_CORS_ORIGINS",
            "https://a.example:8443, http://[::1]:3000",
            "cors_origins",
            ("https://a.example:8443", "http://[::1]:3000"),
        ),
        ("QAIO_API_KEYS_FILE", "/srv/keys", "api_keys_file", Path("/srv/keys")),
        ("QAIO_JWT_ALGORITHM", "ES256", "jwt_algorithm", "ES256"),
        ("QAIO_JWT_KEY_FILE", "/srv/jwt.pem", "jwt_key_file", Path("/srv/jwt.pem")),
        ("QAIO_JWT_ISSUER", "https://login", "jwt_issuer", "https://login"),
        ("QAIO_JWT_AUDIENCE", "qaio", "jwt_audience", "qaio"),
        ("QAIO_TRUSTED_PROXIES", "10.0.0.0/8, ::1", "trusted_proxies", (ip_network("10.0.0.0/8"), ip_network("::1"))),
        ("QAIO_RATE_REQUESTS", "60", "rate_requests", 60),
        ("QAIO_RATE_TOKENS", "6000", "rate_tokens", 6000),
        ("QAIO_REDIS_URL", "redis://:pw@h:6379/0", "redis_url", SecretStr("redis://:pw@h:6379/0")),
        ("QAIO_STATE_URL", "postgresql://u:pw@h/db", "state_url", SecretStr("postgresql://u:pw@h/db")),
        ("QAIO_SESSIONS_FILE", "/srv/sessions.db", "sessions_file", Path("/srv/sessions.db")),
        ("QAIO_SESSIONS_MAX_MB", "50", "sessions_max_mb", 50),
        ("QAIO_SESSIONS_KEY_MB", "5", "sessions_key_mb", 5),
        ("QAIO_SESSION_TTL_S", "60", "session_ttl_s", 60.0),
        ("QAIO_SESSION_TURNS", "7", "session_turns", 7),
        ("QAIO_MEMORY", "1", "memory", True),
        ("QAIO_MEMORY_ITEMS", "7", "memory_items", 7),
        ("QAIO_MEMORY_KEY_MB", "7", "memory_key_mb", 7),
        ("QAIO_MEMORY_TTL_S", "60", "memory_ttl_s", 60.0),
        ("QAIO_MEMORY_CHAT_COMPLETIONS", "1", "memory_chat_completions", True),
        ("QAIO_FEEDBACK_FILE", "/srv/feedback.db", "feedback_file", Path("/srv/feedback.db")),
        ("QAIO_FEEDBACK_DAYS", "0.5", "feedback_days", 0.5),
        ("QAIO_FEEDBACK_MAX_MB", "1", "feedback_max_mb", 1),
        ("QAIO_BATCH_AT_ONCE", "0", "batch_at_once", 0),
        ("QAIO_BATCHES_FILE", "/srv/batches.db", "batches_file", Path("/srv/batches.db")),
        ("QAIO_BATCHES_MAX_MB", "50", "batches_max_mb", 50),
        ("QAIO_BATCH_FILE_MB", "5", "batch_file_mb", 5),
        ("QAIO_BATCH_KEY_MB", "10", "batch_key_mb", 10),
        ("QAIO_BATCH_KEY_LINES", "1000", "batch_key_lines", 1000),
        ("QAIO_BATCH_KEY_OPEN", "3", "batch_key_open", 3),
        ("QAIO_BATCH_DAYS", "0.5", "batch_days", 0.5),
        ("QAIO_IDEMPOTENCY_TTL_S", "60", "idempotency_ttl_s", 60.0),
        ("QAIO_IDEMPOTENCY_KEY_MB", "2", "idempotency_key_mb", 2),
        ("QAIO_USAGE_DAYS", "0", "usage_days", 0),
        ("QAIO_ADMINS", "alice, jwt:ops", "admins", ("alice", "jwt:ops")),
        ("QAIO_PROMPT_EDIT", "1", "prompt_edit", True),
        ("QAIO_SHARES", "alice=3, jwt:a=b=2", "shares", {"alice": 3, "jwt:a=b": 2}),
        ("QAIO_PRIORITY_KEYS", "alice, jwt:ops", "priority_keys", ("alice", "jwt:ops")),
        ("QAIO_CACHE_MB", "0", "cache_mb", 0),
        ("QAIO_CACHE_TTL_S", "60", "cache_ttl_s", 60),
        ("QAIO_ALERTS", "/srv/alerts.yaml", "alerts", Path("/srv/alerts.yaml")),
        ("QAIO_ALERTS_OUTBOX", "/srv/alerts.db", "alerts_outbox", Path("/srv/alerts.db")),
        ("QAIO_ALERTS_NETWORKS", "10.1.0.0/16", "alerts_networks", (ip_network("10.1.0.0/16"),)),
        ("QAIO_LOG_LEVEL", "debug", "log_level", "debug"),
        ("QAIO_LOG_FORMAT", "json", "log_format", "json"),
        ("QAIO_LOG_TEXT", "1", "log_text", True),
        ("QAIO_AUDIT_FILE", "/var/log/audit.jsonl", "audit_file", Path("/var/log/audit.jsonl")),
        ("QAIO_AUDIT_MAX_MB", "1", "audit_max_mb", 1),
        ("QAIO_AUDIT_KEEP", "3", "audit_keep", 3),
    ],
)
def test_every_setting_is_read_from_its_variable(name: str, value: str, field: str, expected: object) -> None:
    # Tokens need all their settings, and one use of memory needs memory.
    together = JWT if name in JWT else {"QAIO_MEMORY": "1"} if name == "QAIO_MEMORY_CHAT_COMPLETIONS" else {}
    settings = Settings.load(together | {name: value})
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
        ({"QAIO_SESSION_TTL_S": "0"}, ["QAIO_SESSION_TTL_S='0'"]),
        ({"QAIO_SESSION_TURNS": "0"}, ["QAIO_SESSION_TURNS='0'"]),
        ({"QAIO_SESSIONS_MAX_MB": "0"}, ["QAIO_SESSIONS_MAX_MB='0'"]),
        ({"QAIO_SESSIONS_KEY_MB": "0"}, ["QAIO_SESSIONS_KEY_MB='0'"]),
        ({"QAIO_LOG_LEVEL": "INFO"}, ["QAIO_LOG_LEVEL='INFO'", "'info'"]),
        ({"QAIO_LOG_FORMAT": "xml"}, ["QAIO_LOG_FORMAT='xml'", "'auto'", "'json'", "'text'"]),
        ({"QAIO_LOG_TEXT": "perhaps"}, ["QAIO_LOG_TEXT='perhaps'", "boolean"]),
        ({"QAIO_AUDIT_MAX_MB": "0"}, ["QAIO_AUDIT_MAX_MB='0'"]),
        ({"QAIO_AUDIT_KEEP": "0"}, ["QAIO_AUDIT_KEEP='0'"]),
        ({"QAIO_KV_TOKENS": "1000"}, ["QAIO_KV_TOKENS=1000", "QAIO_CONTEXT=1536", "raise the first or lower the second"]),
        ({"QAIO_CONTEXT": "8192"}, ["QAIO_KV_TOKENS=4096", "QAIO_CONTEXT=8192"]),
        ({"QAIO_JWT_ALGORITHM": "none"}, ["QAIO_JWT_ALGORITHM='none'", "'RS256'"]),
        ({"QAIO_JWT_ALGORITHM": "RS256,HS256"}, ["QAIO_JWT_ALGORITHM='RS256,HS256'"]),
        ({"QAIO_JWT_ISSUER": "us"}, ["QAIO_JWT_ALGORITHM, QAIO_JWT_KEY_FILE, QAIO_JWT_AUDIENCE not set"]),
        (JWT | {"QAIO_JWT_AUDIENCE": ""}, ["QAIO_JWT_AUDIENCE=''"]),
        ({"QAIO_TRUSTED_PROXIES": "nginx"}, ["QAIO_TRUSTED_PROXIES='nginx'"]),
        ({"QAIO_TRUSTED_PROXIES": "*"}, ["QAIO_TRUSTED_PROXIES='*'"]),
        ({"QAIO_TRUSTED_PROXIES": "10.0.0.1/8"}, ["QAIO_TRUSTED_PROXIES", "host bits set"]),
        ({"QAIO_TRUSTED_PROXIES": "10.0.0.1,0.0.0.0/0"}, ["QAIO_TRUSTED_PROXIES", "everybody"]),
        ({"QAIO_ALLOWED_HOSTS": "qaio:5000"}, ["QAIO_ALLOWED_HOSTS", "'qaio:5000'", "without scheme and port"]),
        ({"QAIO_ALLOWED_HOSTS": "qaio,http://qaio"}, ["QAIO_ALLOWED_HOSTS", "'http://qaio'"]),
        ({"QAIO_CORS_ORIGINS": "app.example.com"}, ["QAIO_CORS_ORIGINS", "https://app.example.com"]),
        ({"QAIO_CORS_ORIGINS": "https://a.example/"}, ["QAIO_CORS_ORIGINS", "with no path"]),
        ({"QAIO_MEMORY_CHAT_COMPLETIONS": "1"}, ["QAIO_MEMORY_CHAT_COMPLETIONS=1", "needs QAIO_MEMORY=1"]),
        ({"QAIO_RATE_REQUESTS": "-1"}, ["QAIO_RATE_REQUESTS='-1'"]),
        ({"QAIO_RATE_TOKENS": "1/minute"}, ["QAIO_RATE_TOKENS='1/minute'"]),
        ({"QAIO_SLOTS": "32", "QAIO_STEP_TOKENS": "31"}, ["QAIO_STEP_TOKENS=31", "QAIO_SLOTS=32", "lower the second"]),
    ],
)  # fmt: skip
def test_an_impossible_environment_stops_startup(environ: dict[str, str], words: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.load(environ)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "url", ["", "hunter2", "http://:hunter2@h", "redis://", "redis://:hunter2@h:port", "redis://:hunter2@h:0"]
)
def test_an_impossible_redis_url_stops_startup_and_its_password_is_not_shown(url: str) -> None:
    with pytest.raises(SettingsError, match=r"^QAIO_REDIS_URL=\*\*\*: ") as caught:
        Settings.load({"QAIO_REDIS_URL": url})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hunter/2@host:6379/0",
        "redis://:hunter#2@host",
        "redis://:p@hunter#1@host",
        "redis://:hunter?2@host:6379",
        "rediss://user:a/hunter@host",
    ],
)
def test_a_password_that_splits_a_redis_url_is_to_be_percent_encoded_and_no_part_of_it_is_shown(url: str) -> None:
    with pytest.raises(SettingsError, match=r"^QAIO_REDIS_URL=\*\*\*: .*percent-encode the password") as caught:
        Settings.load({"QAIO_REDIS_URL": url})
    said = str(caught.value)
    assert "hunter" not in said and "host" not in said and "p@" not in said


@pytest.mark.parametrize(
    "url", ["redis://:hunter@h:hunter", "redis://h/hunter", "redis://h#hunter", "redis://[hunter", "redis://h:6379/0\n"]
)
def test_no_other_complaint_of_a_redis_url_quotes_it(url: str) -> None:
    with pytest.raises(SettingsError, match="must look like") as caught:
        Settings.load({"QAIO_REDIS_URL": url})
    assert "hunter" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "redis://u:p%2F%40@h:6379/3",
        "rediss://:p@h?ssl_cert_reqs=none",
        "unix:///run/redis.sock?db=1",
        "redis://[::1]:6379",
    ],
)
def test_redis_urls_that_are_right_are_taken(url: str) -> None:
    settings = Settings.load({"QAIO_REDIS_URL": url})
    assert settings.redis_url and settings.redis_url.get_secret_value() == url


@pytest.mark.parametrize(
    ("host", "taken"), [("::", "::"), ("[::1]", "::1"), ("fe80::1%eth0", "fe80::1%eth0"), ("localhost", "localhost")]
)
def test_ipv6_addresses_are_taken_with_and_without_brackets(host: str, taken: str) -> None:
    assert Settings.load({"QAIO_HOST": host}).host == taken


def test_without_keys_and_unasked_it_listens_on_its_own_machine_alone(tmp_path: Path) -> None:
    (tmp_path / "keys").touch()
    assert Settings.load({}).listens_on == "127.0.0.1"
    assert Settings.load({"QAIO_API_KEYS_FILE": str(tmp_path / "keys")}).listens_on == "0.0.0.0"
    assert Settings.load({"QAIO_HOST": "::"}).listens_on == "::"


@pytest.mark.parametrize("host", ["", "127.0.0.1:5000", "a b", "http://h", "[::1", "1::2::3", "unix:/x"])
def test_what_is_no_address_is_refused(host: str) -> None:
    with pytest.raises(SettingsError, match="QAIO_HOST="):
        Settings.load({"QAIO_HOST": host})


SERVICE_LINKS = {
    "QAIO_PORT": "tcp://10.0.0.7:80",
    "QAIO_SERVICE_HOST": "10.0.0.7",
    "QAIO_SERVICE_PORT": "80",
    "QAIO_SERVICE_PORT_HTTP": "80",
    "QAIO_PORT_80_TCP": "tcp://10.0.0.7:80",
    "QAIO_PORT_80_TCP_PROTO": "tcp",
    "QAIO_PORT_80_TCP_PORT": "80",
    "QAIO_PORT_80_TCP_ADDR": "10.0.0.7",
    "QAIO_WEB_SERVICE_HOST": "10.0.0.8",
    "QAIO_WEB_PORT": "udp://10.0.0.8:80",
}


def test_what_kubernetes_sets_for_a_service_named_qaio_is_ignored_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert Settings.load(SERVICE_LINKS | {"QAIO_SLOTS": "4"}) == Settings.load({"QAIO_SLOTS": "4"})
    (record,) = caplog.records
    assert all(name in record.getMessage() for name in SERVICE_LINKS)
    assert "Kubernetes" in record.getMessage() and "enableServiceLinks" in record.getMessage()


def test_a_setting_that_looks_a_little_like_a_service_link_is_still_refused() -> None:
    for name, value in (
        ("QAIO_PORT", "http://h"),
        ("QAIO_PORTS", "tcp://h"),
        ("QAIO_SERVICE", "x"),
        ("QAIO_PORT", "x"),
    ):
        with pytest.raises(SettingsError, match=name):
            Settings.load({name: value})


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hunter2",
        "mysql://u:hunter2@h/db",
        "postgresql://u:hunter2@h:port/db",
        "postgresql://u:hunter2@h:0/db",
        "postgresql://u:hunter/2@h/db",
        "postgresql://u:hunter#2@h/db",
        "postgresql://u:hunter?2@h/db",
        "postgresql://u:hunter:2@h/db",
        "postgresql://u:hunter 2@h/db",
        "postgresql://u:p@hunter@h/db",
        "postgresql://h/db\nhunter",
        "postgresql://h/hunter/db",
    ],
)
def test_an_impossible_postgres_url_stops_startup_and_no_part_of_it_is_shown(url: str) -> None:
    with pytest.raises(SettingsError, match=r"^QAIO_STATE_URL=\*\*\*: ") as caught:
        Settings.load({"QAIO_STATE_URL": url})
    assert "hunter" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://h",
        "postgres://u@h/db",
        "postgresql://u:p%2F%40@h:5432/db?sslmode=verify-full",
        "postgresql:///db?host=/run/postgresql",
        "postgresql://u:p@one:5432,two:5433/db?target_session_attrs=read-write",
        "postgresql://u:p@[::1]:5432/db",
    ],
)
def test_postgres_urls_that_are_right_are_taken_and_shown_nowhere(url: str) -> None:
    settings = Settings.load({"QAIO_STATE_URL": url})
    assert settings.state_url and settings.state_url.get_secret_value() == url
    assert url not in f"{settings} {settings!r} {settings.state_url}"


def test_a_redis_url_shows_no_password_where_settings_are_shown() -> None:
    settings = Settings.load({"QAIO_REDIS_URL": "redis://:hunter2@h:6379"})
    assert "hunter2" not in f"{settings} {settings!r} {settings.redis_url}"


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


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"QAIO_PORT": "99999"}, "QAIO_PORT='99999'：应不大于 65535"),
        ({"QAIO_PORT": "http"}, "QAIO_PORT='http'：应为整数"),
        ({"QAIO_FIT_S": "-1"}, "QAIO_FIT_S='-1'：应不小于 0.0"),
        ({"QAIO_DEADLINE_S": "soon"}, "QAIO_DEADLINE_S='soon'：应为数"),
        ({"QAIO_MEMORY": "perhaps"}, "QAIO_MEMORY='perhaps'：应为 1 或 0"),
        ({"QAIO_WEIGHTS": "int4"}, "QAIO_WEIGHTS='int4'：应为 'fp32', 'fp16' 或 'int8'"),
        ({"QAIO_MODEL": ""}, "QAIO_MODEL=''：至少要 1 个字符"),
        ({"QAIO_KV_TOKENS": "1000"}, "QAIO_KV_TOKENS=1000 小于 QAIO_CONTEXT=1536：一个最长的请求放不下；"),
        ({"QAIO_SHARES": "alice"}, "QAIO_SHARES='alice'：必须写成 alice=3, bob=2，每个名字一次"),
        ({"QAIO_HOST": "a:b"}, "QAIO_HOST='a:b'：必须是地址或名字，不带端口"),
        ({"QAIO_TRUSTED_PROXIES": "1.2.3"}, "'1.2.3' 不是 IPv4 或 IPv6 的地址或网段：请写成 10.0.0.7"),
        ({"QAIO_TRUSTED_PROXIES": "10.0.0.1/8"}, "'10.0.0.1/8' 是网段里的一个地址，不是网段：请写成 10.0.0.0/8"),
        ({"QAIO_REDIS_URL": "redis"}, "QAIO_REDIS_URL=***：必须写成 redis://"),
        ({"QAIO_JWT_ISSUER": "us"}, "没有设置 QAIO_JWT_ALGORITHM、QAIO_JWT_KEY_FILE、QAIO_JWT_AUDIENCE"),
        ({"QAIO_PORT": "0", "QAIO_PROT": "1"}, "QAIO_PROT：没有这个设置，也许是 QAIO_PORT（有的是："),
        ({"QAIO_PORT": "0", "QAIO_PROT": "1"}, "；QAIO_PORT='0'：应不小于 1"),
    ],
)
def test_a_chinese_terminal_is_told_in_chinese_what_is_wrong(environ: dict[str, str], told: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.load(environ)
    assert told in in_language(message_of(caught.value), "zh")


def test_where_keys_are_asked_for_somebody_must_be_named_who_may_edit_prompts() -> None:
    given = {"QAIO_PROMPT_EDIT": "1", "QAIO_API_KEYS_FILE": "/keys"}
    with pytest.raises(SettingsError, match="QAIO_PROMPT_EDIT=1 needs QAIO_ADMINS"):
        Settings.load(given)
    assert Settings.load(given | {"QAIO_ADMINS": "alice"}).prompt_edit
    assert Settings.load({"QAIO_PROMPT_EDIT": "1"}).prompt_edit
