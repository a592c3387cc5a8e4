"""API keys: made here, kept as hashes in a file of `NAME: sha256:HEX` lines, found again in constant time.

A key is 256 random bits, so nobody can try them all and a plain SHA-256 is enough: slow hashes protect passwords,
which can be guessed, and would cost every request what they cost an attacker.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path

from qwen_allinone.errors import AccessFileError
from qwen_allinone.files import locked_folder, replace_file, unwritable
from qwen_allinone.wording import said

# No colon, so that no key's name looks like a token's `jwt:...`.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LINE = re.compile(rf"({_NAME.pattern}): sha256:([0-9a-f]{{64}})")
_HEADER = "# API keys of qwen-allinone: NAME: sha256:HASH. Change them with `qwen-allinone keys`.\n"
_PREFIX = "qaio_"  # so that people and secret scanners know one when they see it


def parse(raw: bytes) -> dict[str, bytes]:
    """Digest of each name's key. Blank lines and lines that begin with # say nothing.

    Raises:
        AccessFileError: not such a file, a name twice, or nothing at all (a file cut short must not lock all out).
    """
    try:
        lines = raw.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        raise AccessFileError(said("not_utf8_text")) from None
    if not any(line.strip() for line in lines):
        raise AccessFileError(said("keys_file_empty"))
    keys: dict[str, bytes] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line.rstrip())
        if match is None:
            raise AccessFileError(said("key_line_form", number=number))
        if match[1] in keys:
            raise AccessFileError(said("key_line_twice", number=number, match=match[1]))
        keys[match[1]] = bytes.fromhex(match[2])
    return keys


def holder(keys: Mapping[str, bytes], key: str) -> str | None:
    """Name of the one who holds `key`. Every entry is compared in full, whichever fits."""
    digest = _digest(key)
    found = None
    for name, stored in keys.items():
        if hmac.compare_digest(digest, stored):
            found = name
    return found


def add(path: Path, name: str) -> str:
    """Make a key for `name` and write its hash into the file, which is made if it is absent. Returns the key.

    Raises:
        AccessFileError: a name that is taken or impossible, or a file that cannot be read or written.
    """
    if not _NAME.fullmatch(name):
        raise AccessFileError(said("key_name_form", name=name))
    key = _PREFIX + secrets.token_urlsafe(32)

    def with_it(text: str) -> str:
        if text and name in parse(text.encode()):
            raise AccessFileError(said("key_there_already", name=name))
        text = text or _HEADER
        return f"{text}{'' if text.endswith(chr(10)) else chr(10)}{name}: sha256:{_digest(key).hex()}\n"

    _rewrite(path, with_it)
    return key


def remove(path: Path, name: str) -> None:
    """Take the key of `name` out of the file.

    Raises:
        AccessFileError: there is none, or the file cannot be read or written.
    """

    def without_it(text: str) -> str:
        if name not in parse(text.encode()):
            raise AccessFileError(said("no_key_of_name", name=name))
        kept = [line for line in text.splitlines() if not line.startswith(f"{name}: ")]
        # Without the header a file of the last key removed would be empty, which is taken for broken.
        return "\n".join([*kept, ""]) if any(line.strip() for line in kept) else _HEADER

    _rewrite(path, without_it)


def names(path: Path) -> list[str]:
    """Everybody who has a key, in the file's order. Raises AccessFileError."""
    try:
        return list(parse(path.read_bytes()))
    except OSError as error:
        raise AccessFileError(said("access_file_unreadable", path=path, strerror=error.strerror)) from None
    except AccessFileError as error:
        raise AccessFileError(said("of_file", path=path, error=error)) from None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "replace")).digest()


def _rewrite(path: Path, change: Callable[[str], str]) -> None:
    """Replace the file by what `change` makes of its text: readers see the old file or the new one, never a part."""
    path = path.resolve()  # where a link leads, so that the link stays
    try:
        with locked_folder(path.parent) as folder:
            before = path.read_text("utf-8") if path.exists() else ""
            replace_file(path, change(before).encode(), mode=0o600)
            os.fsync(folder)  # makes the rename last
    except UnicodeDecodeError:
        raise AccessFileError(said("access_file_not_utf8", path=path)) from None
    except OSError as error:
        raise AccessFileError(said("access_file_unwritable", path=path, strerror=unwritable(path, error))) from None
    except AccessFileError as error:
        raise AccessFileError(said("of_file", path=path, error=error)) from None
