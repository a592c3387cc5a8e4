"""Every setting of the page, and its only reader of the environment. The service has settings of its own (`QAIO_*`)."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

from qwen_allinone.did_you_mean import hint
from qwen_allinone.kubernetes_env import warning, without_service_links

log = logging.getLogger(__name__)

# Not QAIO_UI_: the service takes every QAIO_* name for its own and refuses to start with one it does not know.
PREFIX = "QWEN_UI_"


class SettingsError(Exception):
    """A setting that cannot be; the message names it and says what would do."""


def _service(value: str) -> str:
    url = urlsplit(value)
    if url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment:
        raise ValueError("must look like http://127.0.0.1:5000")
    if url.username or url.password:
        raise ValueError("the key goes into QWEN_UI_API_KEY, not into the address")
    return value.rstrip("/")


def _key(value: SecretStr) -> SecretStr:
    key = value.get_secret_value()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError("must be one word of letters, digits and signs, as a header takes it")
    return value


def _names(value: object) -> object:
    """What stands between the commas, in lower case."""
    return tuple(part.strip().lower() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_names)]
ApiKey = Annotated[SecretStr, AfterValidator(_key)]


class Settings(BaseModel):
    """All settings, read from `QWEN_UI_*`. Build it with `Settings.load()`, which also rejects unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    service: Annotated[str, AfterValidator(_service)] = Field(
        "http://127.0.0.1:5000", description="Address of the service"
    )
    api_key: ApiKey | None = Field(None, description="Key or token for the service, if it asks for one")
    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on")
    port: int = Field(7860, ge=1, le=65535, description="Port to listen on")
    allowed_hosts: Names | None = Field(
        None,
        description="Host names the page answers under, comma-separated, `*` any; addresses and `localhost` always. "
        "Unset: any, but none where it listens on `127.0.0.1`",
    )
    root_path: str | None = Field(
        None, pattern="^/.*[^/]$", description="Path under which a proxy shows the page: `/qwen`"
    )
    uploads_mb: int = Field(
        1000, ge=20, le=1_000_000, description="Megabytes of files the page holds, of all visitors; each for an hour"
    )
    max_rows: int = Field(5000, ge=1, le=100_000, description="Most rows of a CSV file that are labelled")
    parallel: int = Field(4, ge=1, le=64, description="Requests that one CSV file has under way at a time")

    @property
    def answers_to(self) -> tuple[str, ...] | None:
        """Host names beside addresses and localhost; None: any."""
        if self.allowed_hosts is not None:
            return self.allowed_hosts
        return () if self.host in ("127.0.0.1", "::1", "localhost") else None

    @classmethod
    def names(cls) -> list[str]:
        """The names in the environment."""
        return [PREFIX + field.upper() for field in cls.model_fields]

    @classmethod
    def load(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Read `QWEN_UI_*` from `environ`.

        Raises:
            SettingsError: an unknown name or an impossible value; the message lists all of them.
        """
        given, links = without_service_links({n: v for n, v in environ.items() if n.startswith(PREFIX)})
        if links:
            log.warning(warning(links))
        problems = [
            f"{n}: no such setting{hint(n, cls.names())} (known: {', '.join(cls.names())})"
            for n in given
            if n not in cls.names()
        ]
        values: dict[str, Any] = {n.removeprefix(PREFIX).lower(): v for n, v in given.items() if n in cls.names()}
        try:
            settings = cls(**values)
        except ValidationError as error:
            # Without the value: it may be the key, put into the wrong place.
            problems += [f"{PREFIX}{str(d['loc'][0]).upper()}: {d['msg']}" for d in error.errors(include_input=False)]
        if problems:
            raise SettingsError("; ".join(problems))
        return settings
