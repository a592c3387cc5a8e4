"""JSON web tokens, good and forged, put together by hand where a library would refuse to."""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import json
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

ISSUER, AUDIENCE = "https://login.example", "qwen-allinone"
SECRET = b"0123456789abcdef0123456789abcdef"


def claims(**changes: Any) -> dict[str, Any]:
    """Claims that hold for a minute; a value of None takes one out."""
    whole = {"sub": "alice", "iss": ISSUER, "aud": AUDIENCE, "exp": int(time.time()) + 60} | changes
    return {name: value for name, value in whole.items() if value is not None}


@functools.cache
def private_key(algorithm: str, size: int = 2048) -> Any:
    if algorithm == "RS256":
        return rsa.generate_private_key(public_exponent=65537, key_size=size)
    return ec.generate_private_key(ec.SECP256R1() if algorithm == "ES256" else ec.SECP384R1())


def public_pem(key: Any) -> bytes:
    return bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def private_pem(key: Any) -> bytes:
    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def key_file(algorithm: str) -> bytes:
    """What stands in QAIO_JWT_KEY_FILE."""
    return SECRET + b"\n" if algorithm == "HS256" else public_pem(private_key(algorithm))


def sign(algorithm: str, payload: dict[str, Any], headers: dict[str, Any] | None = None) -> str:
    key = SECRET if algorithm == "HS256" else private_key(algorithm)
    return jwt.encode(payload, key, algorithm=algorithm, headers=headers)


def forge(header: dict[str, Any], payload: dict[str, Any] | bytes, secret: bytes | None) -> str:
    """A token with any header; signed with HMAC-SHA-256 over `secret`, or not at all."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    signed = f"{_encode(json.dumps(header).encode())}.{_encode(body)}"
    signature = hmac.new(secret, signed.encode(), hashlib.sha256).digest() if secret is not None else b""
    return f"{signed}.{_encode(signature)}"


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
