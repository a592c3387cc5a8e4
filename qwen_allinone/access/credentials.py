"""Who may call: everybody, or holders of an API key and bearers of a token."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from qwen_allinone.access import json_web_tokens, keys
from qwen_allinone.access.reloaded_file import ReloadedFile
from qwen_allinone.errors import AccessFileError
from qwen_allinone.settings import Settings
from qwen_allinone.wording import said


class Credentials:
    """The ways in that the settings open; `required`: whether a call needs any. Both files are read again when they
    change."""

    def __init__(self, settings: Settings) -> None:
        self._keys: ReloadedFile[dict[str, bytes]] | None = None
        self._token_key: ReloadedFile[Any] | None = None
        if settings.api_keys_file is not None:
            self._keys = ReloadedFile(settings.api_keys_file, keys.parse, {})
        if settings.jwt_key_file is not None and settings.jwt_algorithm is not None:
            parse = partial(json_web_tokens.parse_key, settings.jwt_algorithm)
            self._token_key = ReloadedFile(settings.jwt_key_file, parse, None)
            self._subject: Callable[[str, Any], str | None] = partial(
                json_web_tokens.subject,
                algorithm=settings.jwt_algorithm,
                issuer=settings.jwt_issuer or "",
                audience=settings.jwt_audience or "",
            )
        self.required = self._keys is not None or self._token_key is not None

    def check(self) -> None:
        """Raises AccessFileError, naming the setting, if a file is missing or broken. For the start of a server."""
        for setting, file in (("QAIO_API_KEYS_FILE", self._keys), ("QAIO_JWT_KEY_FILE", self._token_key)):
            if file is not None:
                try:
                    file.check()
                except AccessFileError as error:
                    raise AccessFileError(said("of_setting", setting=setting, error=error)) from None

    def holder(self, secret: str) -> str | None:
        """Name of the caller who shows `secret`: a key's name, `jwt:` and a token's subject, or None."""
        if self._keys is not None and (name := keys.holder(self._keys.value, secret)):
            return name
        if self._token_key is not None and (key := self._token_key.value) is not None:
            named = self._subject(secret, key)
            return f"jwt:{named}" if named else None
        return None
