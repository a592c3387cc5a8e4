"""JSON web tokens: one algorithm, one key, one issuer, one audience, all of them named in the settings.

Nothing in a token chooses how it is verified: `alg` must be the one algorithm set, `kid`, `jku` and `jwk` are not read.
"""

from __future__ import annotations

import logging
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from qwen_allinone.errors import AccessFileError
from qwen_allinone.wording import said

log = logging.getLogger(__name__)

_LONGEST = 8190  # Gunicorn's cap on a header; other servers may have none
_LONGEST_SUBJECT = 128
_LEEWAY_S = 10  # by which the clocks of issuer and service may differ
_LEAST_SECRET = 32  # bytes: as many as HMAC-SHA-256 gives out (RFC 7518, 3.2)
_LEAST_RSA_BITS = 2048


def parse_key(algorithm: str, raw: bytes) -> Any:
    """The verifying key in a file's bytes. A secret's last line break is not part of it.

    Raises:
        AccessFileError: not a key for `algorithm`, a private one, or one that is too weak.
    """
    if algorithm == "HS256":
        return _secret(raw)
    try:
        key = jwt.get_algorithm_by_name(algorithm).prepare_key(raw)
    except Exception as error:  # PyJWT and cryptography raise many kinds for a file that is no key, and may quote it
        raise AccessFileError(said("no_public_key", algorithm=algorithm, name=type(error).__name__)) from None
    if not isinstance(key, RSAPublicKey | EllipticCurvePublicKey):
        raise AccessFileError(said("private_key"))
    if isinstance(key, RSAPublicKey) and key.key_size < _LEAST_RSA_BITS:
        raise AccessFileError(said("rsa_key_short", key_size=key.key_size, least_rsa_bits=_LEAST_RSA_BITS))
    return key


def _secret(raw: bytes) -> bytes:
    secret = raw.rstrip(b"\r\n")
    if len(secret) < _LEAST_SECRET:
        raise AccessFileError(said("token_secret_short", count=len(secret), least_secret=_LEAST_SECRET))
    try:
        jwt.get_algorithm_by_name("HS256").prepare_key(secret)
    except jwt.InvalidKeyError:
        # A public key is public: as an HMAC secret it would let everybody sign.
        raise AccessFileError(said("key_instead_of_secret")) from None
    return secret


def subject(token: str, key: Any, *, algorithm: str, issuer: str, audience: str) -> str | None:
    """Whom a token names, if it holds; None for every token that does not."""
    if len(token) > _LONGEST:
        return None
    try:
        claims = jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            issuer=issuer,
            audience=audience,
            leeway=_LEEWAY_S,
            options={"require": ["exp", "sub", "iss", "aud"]},
        )
    except Exception as error:  # a stranger's bytes: deep JSON, infinite dates and more raise what PyJWT does not list
        log.debug("token refused: %s", type(error).__name__)
        return None
    name = str(claims["sub"])
    return name if 0 < len(name) <= _LONGEST_SUBJECT and name.isprintable() and not name.isspace() else None
