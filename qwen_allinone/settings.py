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
from qwen_allinone.wording import meant, said

PREFIX = "QAIO_"
_SECRET = {"redis_url", "state_url"}  # may hold a password: never shown

log = logging.getLogger(__name__)


class Settings(BaseModel):
    """All settings, read from `QAIO_*`. Build it with `Settings.load()`, which also rejects unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(
        "Qwen/Qwen1.5-0.5B",
        min_length=1,
        description="Hub id, local folder, or `demo` (the model that ships with the project)",
    )
    model_revision: str = Field("main", min_length=1, description="Branch, tag or commit of the hub model")
    weights: Literal["fp32", "fp16", "int8"] = Field(
        "fp32",
        description="`fp32`; `fp16`: half the memory, arithmetic still FP32; `int8`: a quarter, fastest, approximate",
    )
    kernels: Literal["auto", "torch"] = Field(
        "auto", description="`auto`: the project's own kernels where they run here, else torch's; `torch`: torch's"
    )
    kv: Literal["auto", "fp32", "fp16"] = Field(
        "auto",
        description="Keys and values: `fp32`; `fp16`: half their memory, approximate; "
        "`auto`: `fp16` with `int8` weights",
    )
    packed_dir: Path | None = Field(
        None,
        description="Folder for a file of packed weights, as large as they are: workers then share one copy in memory, "
        "and starts are faster; with `QAIO_KERNELS=auto`",
    )
    prompts: Path = Field(SHIPPED / "prompts", description="Folder of the tasks, one folder each")
    prompts_kept: Path = Field(
        Path("data/prompts"), description="Folder where the versions of the tasks that were in force are kept"
    )
    prompts_may_lose: float = Field(
        0.05,
        ge=0,
        le=1,
        description="Share of its gold cases that a task may lose at a reload; more: the reload is refused; 1: never",
    )
    fit: Literal["gold", "contextual", "off"] = Field(
        "gold",
        description="Label tasks are fitted to the model by their gold cases (`gold`), by what they answer to nothing "
        "(`contextual`), or not (`off`)",
    )
    fit_s: float = Field(
        15.0, ge=0, le=3600, description="Seconds a start may take to fit; what is left answers as the model has it"
    )
    fit_file: Path = Field(
        Path("data/fits.json"), description="File where fits that took over a second are kept for the next start"
    )
    host: Host | None = Field(
        None,
        description="Address to listen on; unset: `0.0.0.0`, every address, where keys or tokens are asked for, "
        "otherwise `127.0.0.1`, this machine alone; `::` is every address, IPv6 too",
    )
    port: int = Field(5000, ge=1, le=65535, description="Port to listen on")
    workers: int = Field(1, ge=1, le=16, description="Gunicorn workers; each holds a copy of the model")
    threads: int = Field(0, ge=0, le=256, description="Compute threads per worker; 0: CPU quota divided by workers")
    slots: int = Field(8, ge=1, le=64, description="Requests computed at the same time, per worker")
    context: int = Field(1536, ge=64, le=32768, description="Longest sequence in tokens, prompt and reply together")
    kv_tokens: int = Field(
        4096, ge=64, description="Tokens of keys and values kept in memory per worker, all slots together"
    )
    step_tokens: int = Field(
        256, ge=16, le=8192, description="Most tokens one forward pass computes; long prompts are cut"
    )
    share_tokens: int = Field(
        16,
        ge=1,
        le=8192,
        description="Most tokens of one caller's prompts that a forward pass computes while other callers are about",
    )
    max_waiting: int = Field(
        32, ge=0, le=4096, description="Requests that may wait for a slot, per worker; beyond: 503"
    )
    deadline_s: float = Field(120.0, gt=0, le=3600, description="Longest time a request may take, in seconds")
    grace_s: float = Field(
        0.0, ge=0, le=3600, description="Longest time a stop waits for admitted requests; 0: `QAIO_DEADLINE_S` + 5"
    )
    stuck_s: float = Field(
        60.0, ge=1, le=3600, description="A forward pass that takes longer, in seconds, has the worker replaced"
    )
    ping_s: float = Field(
        10.0, ge=0.1, le=600, description="Pause in a stream, in seconds, after which a `: ping` keeps it open"
    )
    keepalive_s: int = Field(
        5,
        ge=1,
        le=3600,
        description="Seconds an idle connection is kept; set it above a proxy's own idle time",
    )
    max_body_bytes: int = Field(
        1_048_576, ge=1024, le=67_108_864, description="Largest request body in bytes; beyond: 413"
    )
    model_aliases: Names = Field(
        (), description="Further names under which OpenAI's clients may ask for the model, comma-separated"
    )
    allowed_hosts: Hosts | None = Field(
        None,
        description="Host names this answers under, comma-separated, `.example.com` with all below it, `*` any; "
        "addresses and `localhost` always. Unset: any, but on `127.0.0.1` without keys or tokens none, save through "
        "trusted proxies",
    )
    cors_origins: Origins = Field(
        (),
        description="Sites whose web pages may call this: `https://app.example.com`, comma-separated; `*`: every site",
    )
    api_keys_file: Path | None = Field(
        None,
        description="File of API keys (`qwen-allinone keys new NAME`); with it, calls need a key or token",
    )
    jwt_algorithm: Literal["RS256", "ES256", "HS256"] | None = Field(
        None, description="The one algorithm of JSON web tokens: `RS256`, `ES256` or `HS256`; needs the next three"
    )
    jwt_key_file: Path | None = Field(
        None, description="Public key (PEM) that verifies tokens, or the secret of `HS256`, 32 bytes at least"
    )
    jwt_issuer: str | None = Field(None, min_length=1, description="The `iss` that tokens must carry")
    jwt_audience: str | None = Field(None, min_length=1, description="The `aud` that tokens must carry")
    trusted_proxies: Networks = Field(
        (), description="Proxies whose `X-Forwarded-For` is believed: addresses or networks, comma-separated"
    )
    rate_requests: int = Field(
        0, ge=0, le=1_000_000, description="Requests a minute for each caller; beyond: 429; 0: no limit"
    )
    rate_tokens: int = Field(
        0, ge=0, le=1_000_000_000, description="Generated tokens a minute for each caller; beyond: 429; 0: no limit"
    )
    redis_url: RedisUrl | None = Field(
        None,
        description="Redis or Valkey where workers count and remember together, and conversations and memories are "
        "kept; without it each worker counts and remembers alone",
    )
    state_url: PostgresUrl | None = Field(
        None,
        description="PostgreSQL where memories are kept, rather than in a file or Redis; "
        "needs `requirements-postgres.txt`",
    )
    sessions_file: Path = Field(
        Path("data/sessions.db"),
        description="File of conversations and memories (SQLite; local disk), made when first needed; "
        "unused with `QAIO_REDIS_URL`",
    )
    sessions_max_mb: int = Field(
        1000,
        ge=1,
        le=1_000_000,
        description="Most MB the file of conversations may take; beyond: 503 for conversations",
    )
    sessions_key_mb: int = Field(
        100,
        ge=1,
        le=1_000_000,
        description="Most MB that the conversations of one key or token may take; beyond: 429 for its conversations",
    )
    session_ttl_s: float = Field(
        86_400.0, ge=1, le=31_536_000, description="Seconds after its last use at which a conversation is forgotten"
    )
    session_turns: int = Field(100, ge=1, le=10_000, description="Turns a conversation may have; beyond: 400")
    memory: bool = Field(
        False, description="`1`: what users tell of themselves is remembered, see [memory.md](memory.md)"
    )
    memory_items: int = Field(
        1000, ge=1, le=10_000, description="Memories of one user; beyond, the oldest make room, replaced ones first"
    )
    memory_key_mb: int = Field(
        100,
        ge=1,
        le=1_000_000,
        description="Most MB that the memories of all users of one key or token may take; beyond: 429 for its users",
    )
    memory_ttl_s: float = Field(
        31_536_000.0, ge=1, le=315_360_000, description="Seconds after which a memory is forgotten unless said again"
    )
    memory_chat_completions: bool = Field(
        False,
        description="`1`: `user` in `/v1/chat/completions` names whose memories are used and kept, "
        "unless a request says `memory: false`; needs `QAIO_MEMORY=1`",
    )
    feedback_file: Path | None = Field(
        None,
        description="File (SQLite; local disk) in which answers of label tasks wait a day for `POST /v1/feedback`, "
        "with their texts; unset: none is kept",
    )
    feedback_days: float = Field(90.0, gt=0, le=3650, description="Days for which feedback is kept")
    feedback_max_mb: int = Field(
        100,
        ge=1,
        le=100_000,
        description="Most MB the file of feedback may take; beyond: the oldest answers of the caller who takes most go",
    )
    batch_at_once: int = Field(
        2,
        ge=0,
        le=64,
        description="Lines of batches that a worker answers at the same time, while nobody else wants it; beside a "
        "client's request one; 0: no batches, see [batches.md](batches.md)",
    )
    batches_file: Path = Field(
        Path("data/batches.db"),
        description="File of batches and of what was uploaded for them (SQLite; local disk), made when first needed",
    )
    batches_max_mb: int = Field(
        4000, ge=1, le=1_000_000, description="Most MB the file of batches may take; beyond: 503 for uploads"
    )
    batch_file_mb: int = Field(200, ge=1, le=10_000, description="Largest upload in MB; beyond: 413")
    batch_key_mb: int = Field(
        1000,
        ge=1,
        le=1_000_000,
        description="Most MB that the files of one key or token may take; beyond: 429 for its uploads and batches",
    )
    batch_key_lines: int = Field(
        200_000,
        ge=1,
        le=10_000_000,
        description="Most lines that the open batches of one key or token may have together; beyond: 429; "
        "of one file: 413",
    )
    batch_key_open: int = Field(
        10, ge=1, le=1000, description="Most batches of one key or token that are not over yet; beyond: 429"
    )
    batch_days: float = Field(30.0, gt=0, le=3650, description="Days after which files and batches are forgotten")
    idempotency_ttl_s: float = Field(
        86_400.0, ge=1, le=2_592_000, description="Seconds for which an answer is kept under its `Idempotency-Key`"
    )
    idempotency_key_mb: int = Field(
        16,
        ge=1,
        le=100_000,
        description="Most MB of answers kept so for one key or token; beyond: the oldest go",
    )
    usage_days: int = Field(
        90,
        ge=0,
        le=3650,
        description="Days for which it is kept what each key or token has used (`GET /v1/usage`), beside "
        "conversations; 0: not at all",
    )
    admins: Names = Field(
        (),
        description="Keys by their names, tokens as `jwt:` and their subject, that may see what all have used, edit "
        "prompts (`QAIO_PROMPT_EDIT`) and have adapters reloaded, comma-separated",
    )
    prompt_edit: bool = Field(
        False,
        description="`1`: changed prompts can be tried on their gold cases and saved as new folders over HTTP and on "
        "the page, see [page.md](page.md#prompt-bench); where keys are asked for, by `QAIO_ADMINS` alone",
    )
    shares: Shares = Field(
        {},
        description="Shares of the slots while several callers wait: `alice=3, jwt:ops=2`, from 1 to 100; all others "
        "have 1",
    )
    priority_keys: Names = Field(
        (),
        description="Keys by their names, tokens as `jwt:` and their subject, that may raise the priority of their "
        "requests (`X-Priority`), comma-separated",
    )
    cache_mb: int = Field(
        16, ge=0, le=65_536, description="Memory per worker, in MB, for answers of greedy tasks; 0: all are computed"
    )
    cache_ttl_s: int = Field(3600, ge=1, le=2_592_000, description="Time for which an answer is remembered, in seconds")
    alerts: Path | None = Field(
        None, description="File of rules and channels of alerts, see [alerts.md](alerts.md); unset: nobody is told"
    )
    alerts_outbox: Path = Field(
        Path("data/alerts.db"),
        description="File of alerts on their way (SQLite; local disk), made when first needed",
    )
    alerts_networks: Networks = Field(
        (),
        description="Private networks or addresses that channels of alerts may reach, comma-separated; public ones "
        "they may always",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe log lines shown")
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="One line a record: `json`, `text`; `auto`: text if stderr is a terminal, else json"
    )
    log_text: bool = Field(False, description="Log what users write and get, cut to 500 characters")
    audit_file: Path | None = Field(
        None, description="File (absolute path) for one line a request: who, what, when; its folder must exist"
    )
    audit_max_mb: int = Field(100, ge=1, le=10_000, description="Size in MB at which the audit file is rotated")
    audit_keep: int = Field(10, ge=1, le=1000, description="Rotated audit files kept; older ones are deleted")

    @model_validator(mode="after")
    def _fits_together(self) -> Settings:
        if self.kv_tokens < self.context:
            raise ValueError(
                f"QAIO_KV_TOKENS={self.kv_tokens} is less than QAIO_CONTEXT={self.context}: "
                "one longest request would not fit; raise the first or lower the second"
            )
        if self.step_tokens < self.slots:
            raise ValueError(
                f"QAIO_STEP_TOKENS={self.step_tokens} is less than QAIO_SLOTS={self.slots}: "
                "not every running reply would get a token in a step; raise the first or lower the second"
            )
        if self.prompt_edit and self.asks_for_keys and not self.admins:
            raise ValueError("QAIO_PROMPT_EDIT=1 needs QAIO_ADMINS where keys are asked for: nobody else may edit")
        if self.memory_chat_completions and not self.memory:
            raise ValueError("QAIO_MEMORY_CHAT_COMPLETIONS=1 needs QAIO_MEMORY=1: set both or neither")
        jwt = ("jwt_algorithm", "jwt_key_file", "jwt_issuer", "jwt_audience")
        absent = [PREFIX + name.upper() for name in jwt if getattr(self, name) is None]
        if 0 < len(absent) < len(jwt):
            raise ValueError(f"JSON web tokens need all of QAIO_JWT_*, or none: {', '.join(absent)} not set")
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
        return str(detail["msg"]).removeprefix("Value error, ")
    field = str(detail["loc"][0])
    shown = "***" if field in _SECRET else repr(values.get(field, ""))
    return f"{PREFIX}{field.upper()}={shown}: {detail['msg']}"
