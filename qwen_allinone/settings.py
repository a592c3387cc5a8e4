"""Every setting: one typed, frozen object, and the only reader of the environment."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from qwen_allinone.errors import SettingsError
from qwen_allinone.kubernetes_env import warning, without_service_links
from qwen_allinone.setting_types import (
    Host,
    Hosts,
    Names,
    Networks,
    Origins,
    PostgresUrl,
    RedisUrl,
    Shares,
    is_loopback,
)
from qwen_allinone.shipped_files import SHIPPED
from qwen_allinone.wording import complaint, meant, said

PREFIX = "QAIO_"
_SECRET = {"redis_url", "state_url"}  # may hold a password: never shown

log = logging.getLogger(__name__)


class Settings(BaseModel):
    """All settings, read from `QAIO_*`. Build it with `Settings.load()`, which also rejects unknown names.

    What each means: wording/of_settings.py.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field("Qwen/Qwen1.5-0.5B", min_length=1)
    model_revision: str = Field("main", min_length=1)
    weights: Literal["fp32", "fp16", "int8"] = "fp32"
    kernels: Literal["auto", "torch"] = "auto"
    kv: Literal["auto", "fp32", "fp16"] = "auto"
    packed_dir: Path | None = None
    drafts: Literal["auto", "off"] = "auto"
    prompts: Path = SHIPPED / "prompts"
    prompts_kept: Path = Path("data/prompts")
    prompts_may_lose: float = Field(0.05, ge=0, le=1)
    fit: Literal["gold", "contextual", "off"] = "gold"
    fit_s: float = Field(15.0, ge=0, le=3600)
    fit_file: Path = Path("data/fits.json")
    host: Host | None = None
    port: int = Field(5000, ge=1, le=65535)
    workers: int = Field(1, ge=1, le=16)
    threads: int = Field(0, ge=0, le=256)
    slots: int = Field(8, ge=1, le=64)
    context: int = Field(1536, ge=64, le=32768)
    kv_tokens: int = Field(4096, ge=64)
    step_tokens: int = Field(256, ge=16, le=8192)
    share_tokens: int = Field(16, ge=1, le=8192)
    caller_slots: int = Field(87, ge=1, le=100)
    max_waiting: int = Field(32, ge=0, le=4096)
    deadline_s: float = Field(120.0, gt=0, le=3600)
    grace_s: float = Field(0.0, ge=0, le=3600)
    stuck_s: float = Field(60.0, ge=1, le=3600)
    ping_s: float = Field(10.0, ge=0.1, le=600)
    keepalive_s: int = Field(5, ge=1, le=3600)
    max_body_bytes: int = Field(1_048_576, ge=1024, le=67_108_864)
    model_aliases: Names = ()
    allowed_hosts: Hosts | None = None
    cors_origins: Origins = ()
    api_keys_file: Path | None = None
    jwt_algorithm: Literal["RS256", "ES256", "HS256"] | None = None
    jwt_key_file: Path | None = None
    jwt_issuer: str | None = Field(None, min_length=1)
    jwt_audience: str | None = Field(None, min_length=1)
    trusted_proxies: Networks = ()
    rate_requests: int = Field(0, ge=0, le=1_000_000)
    rate_tokens: int = Field(0, ge=0, le=1_000_000_000)
    redis_url: RedisUrl | None = None
    state_url: PostgresUrl | None = None
    sessions_file: Path = Path("data/sessions.db")
    sessions_max_mb: int = Field(1000, ge=1, le=1_000_000)
    sessions_key_mb: int = Field(100, ge=1, le=1_000_000)
    session_ttl_s: float = Field(86_400.0, ge=1, le=31_536_000)
    session_turns: int = Field(100, ge=1, le=10_000)
    memory: bool = False
    memory_items: int = Field(1000, ge=1, le=10_000)
    memory_key_mb: int = Field(100, ge=1, le=1_000_000)
    memory_ttl_s: float = Field(31_536_000.0, ge=1, le=315_360_000)
    memory_chat_completions: bool = False
    feedback_file: Path | None = None
    feedback_days: float = Field(90.0, gt=0, le=3650)
    feedback_max_mb: int = Field(100, ge=1, le=100_000)
    batch_at_once: int = Field(2, ge=0, le=64)
    batches_file: Path = Path("data/batches.db")
    batches_max_mb: int = Field(4000, ge=1, le=1_000_000)
    batch_file_mb: int = Field(200, ge=1, le=10_000)
    batch_key_mb: int = Field(1000, ge=1, le=1_000_000)
    batch_key_lines: int = Field(200_000, ge=1, le=10_000_000)
    batch_key_open: int = Field(10, ge=1, le=1000)
    batch_days: float = Field(30.0, gt=0, le=3650)
    idempotency_ttl_s: float = Field(86_400.0, ge=1, le=2_592_000)
    idempotency_key_mb: int = Field(16, ge=1, le=100_000)
    usage_days: int = Field(90, ge=0, le=3650)
    admins: Names = ()
    prompt_edit: bool = False
    shares: Shares = {}
    priority_keys: Names = ()
    cache_mb: int = Field(16, ge=0, le=65_536)
    cache_ttl_s: int = Field(3600, ge=1, le=2_592_000)
    alerts: Path | None = None
    alerts_outbox: Path = Path("data/alerts.db")
    alerts_networks: Networks = ()
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "text"] = "auto"
    log_text: bool = False
    audit_file: Path | None = None
    audit_max_mb: int = Field(100, ge=1, le=10_000)
    audit_keep: int = Field(10, ge=1, le=1000)

    @model_validator(mode="after")
    def _fits_together(self) -> Settings:
        if self.kv_tokens < self.context:
            raise ValueError(said("kv_tokens_below_context", kv_tokens=self.kv_tokens, context=self.context))
        if self.step_tokens < self.slots:
            raise ValueError(said("step_tokens_below_slots", step_tokens=self.step_tokens, slots=self.slots))
        if self.prompt_edit and self.asks_for_keys and not self.admins:
            raise ValueError(said("prompt_edit_without_admins"))
        if self.memory_chat_completions and not self.memory:
            raise ValueError(said("completions_without_memory"))
        jwt = ("jwt_algorithm", "jwt_key_file", "jwt_issuer", "jwt_audience")
        absent = [PREFIX + name.upper() for name in jwt if getattr(self, name) is None]
        if 0 < len(absent) < len(jwt):
            raise ValueError(said("jwt_settings_missing", absent=absent))
        return self

    @classmethod
    def load(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Read `QAIO_*` from `environ`.

        Raises:
            SettingsError: an unknown `QAIO_*` name or a value out of range; the message lists all of them.
        """
        given, links = without_service_links({n: v for n, v in environ.items() if n.startswith(PREFIX)})
        if links:
            log.warning(warning(links))
        problems: list[str] = [
            said("no_such_setting", name=name, meant=meant(name, cls.names()), known=cls.names())
            for name in given
            if name not in cls.names()
        ]
        values: dict[str, Any] = {n.removeprefix(PREFIX).lower(): v for n, v in given.items() if n in cls.names()}
        try:
            settings = cls(**values)
        except ValidationError as error:
            problems += [_describe(detail, values) for detail in error.errors()]
        if problems:
            raise SettingsError(reduce(lambda first, others: said("further", first=first, others=others), problems))
        return settings

    @property
    def listens_on(self) -> str:
        """The address: nobody from outside comes in unasked unless somebody said so."""
        return self.host or ("0.0.0.0" if self.asks_for_keys else "127.0.0.1")

    @property
    def answers_to(self) -> tuple[str, ...] | None:
        """Host names it answers under; None: any. Only what is meant for this machine alone need not tell a page that
        somebody else's name points here from a page of its own."""
        if self.allowed_hosts is not None:
            return None if "*" in self.allowed_hosts else self.allowed_hosts
        return () if is_loopback(self.listens_on) and not self.asks_for_keys else None

    @property
    def asks_for_keys(self) -> bool:
        """Whether a call needs a key or a token."""
        return self.api_keys_file is not None or self.jwt_key_file is not None

    @property
    def stop_s(self) -> float:
        """Seconds that a stop waits for admitted requests."""
        return self.grace_s or self.deadline_s + 5

    @classmethod
    def names(cls) -> list[str]:
        """Every variable this service reads, in order."""
        return [PREFIX + field.upper() for field in cls.model_fields]


def _describe(detail: Any, values: Mapping[str, str]) -> str:
    if not detail["loc"]:
        return complaint(detail)
    field = str(detail["loc"][0])
    shown = "***" if field in _SECRET else repr(values.get(field, ""))
    return said("of_value", name=f"{PREFIX}{field.upper()}", value=shown, error=complaint(detail))
