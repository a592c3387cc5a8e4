"""JSON web tokens: what holds is let in, and no token chooses how it is verified."""

from __future__ import annotations

import json
import time
from typing import Any

import jwt
import pytest

from qwen_allinone.access import json_web_tokens
from qwen_allinone.errors import AccessFileError
from tests.support.tokens import (
    AUDIENCE,
    ISSUER,
    SECRET,
    claims,
    forge,
    key_file,
    private_key,
    private_pem,
    public_pem,
    sign,
)

ALGORITHMS = ("RS256", "ES256", "HS256")
NOW = int(time.time())


def subject(token: str, algorithm: str = "HS256") -> str | None:
    key = json_web_tokens.parse_key(algorithm, key_file(algorithm))
    return json_web_tokens.subject(token, key, algorithm=algorithm, issuer=ISSUER, audience=AUDIENCE)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_token_that_holds_names_its_subject(algorithm: str) -> None:
    assert subject(sign(algorithm, claims()), algorithm) == "alice"


def test_one_audience_of_several_is_enough_and_claims_we_do_not_know_do_no_harm() -> None:
    assert subject(sign("HS256", claims(aud=["else", AUDIENCE], role="admin", iat=NOW, nbf=NOW, jti="1"))) == "alice"


def test_clocks_may_differ_by_seconds() -> None:
    assert subject(sign("HS256", claims(exp=int(time.time()) - 2, iat=int(time.time()) + 2))) == "alice"


@pytest.mark.parametrize("name", ["a", "a b", "张三", "user@example.org", "a" * 128])
def test_a_printable_subject_is_a_name(name: str) -> None:
    assert subject(sign("HS256", claims(sub=name))) == name


WRONG_CLAIMS: dict[str, dict[str, Any]] = {
    "expired": {"exp": NOW - 60},
    "no exp": {"exp": None},
    "exp of text": {"exp": "tomorrow"},
    "exp of a list": {"exp": [NOW + 60]},
    "exp before 1970": {"exp": -1},
    "not yet": {"nbf": NOW + 3600},
    "issued in the future": {"iat": NOW + 3600},
    "another issuer": {"iss": "https://evil.example"},
    "an issuer that only begins so": {"iss": ISSUER + ".evil"},
    "no issuer": {"iss": None},
    "issuers": {"iss": [ISSUER]},
    "another audience": {"aud": "other"},
    "no audience": {"aud": None},
    "an empty audience": {"aud": []},
    "an audience of numbers": {"aud": [1]},
    "no subject": {"sub": None},
    "an empty subject": {"sub": ""},
    "a blank subject": {"sub": "  "},
    "a subject of two lines": {"sub": "alice\n2031-01-01 CRITICAL forged"},
    "a subject with an escape": {"sub": "\x1b[31malice"},
    "a subject written backwards": {"sub": "\u202eecila"},
    "a lone surrogate": {"sub": "\ud800"},
    "a long subject": {"sub": "a" * 129},
    "a number for a subject": {"sub": 1},
    "true for a subject": {"sub": True},
}


@pytest.mark.parametrize("changes", list(WRONG_CLAIMS.values()), ids=list(WRONG_CLAIMS))
@pytest.mark.parametrize("algorithm", ["HS256", "ES256"])
def test_a_token_with_wrong_claims_names_nobody(algorithm: str, changes: dict[str, Any]) -> None:
    token = forge({"alg": "HS256"}, claims(**changes), SECRET) if algorithm == "HS256" else None
    assert subject(token or sign_by_hand(claims(**changes)), algorithm) is None


def sign_by_hand(payload: dict[str, Any]) -> str:
    """ES256 over claims that PyJWT would not encode."""
    return jwt.api_jws.encode(json.dumps(payload).encode(), private_key("ES256"), algorithm="ES256")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", "", None, 0, [], "HS384", "HS512", "RS512", "EdDSA"])
def test_a_token_that_chooses_another_algorithm_names_nobody(algorithm: str, name: object) -> None:
    for secret in (None, b"", SECRET, key_file(algorithm)):
        assert subject(forge({"alg": name, "typ": "JWT"}, claims(), secret), algorithm) is None
    assert subject(forge({"typ": "JWT"}, claims(), SECRET), algorithm) is None


@pytest.mark.parametrize("other", ["HS384", "HS512", "RS384", "RS512", "PS256"])
def test_another_algorithm_with_the_right_key_names_nobody(other: str) -> None:
    algorithm = "HS256" if other.startswith("HS") else "RS256"
    signing: Any = b"s" * 64 if algorithm == "HS256" else private_key("RS256")
    verifying = json_web_tokens.parse_key(algorithm, signing if algorithm == "HS256" else public_pem(signing))
    named = {name: jwt.encode(claims(), signing, algorithm=name) for name in (algorithm, other)}
    held = {
        name: json_web_tokens.subject(token, verifying, algorithm=algorithm, issuer=ISSUER, audience=AUDIENCE)
        for name, token in named.items()
    }
    assert held == {algorithm: "alice", other: None}


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
def test_the_public_key_as_an_hmac_secret_names_nobody(algorithm: str) -> None:
    pem = key_file(algorithm)
    for secret in (pem, pem.strip(), pem.replace(b"\n", b"\r\n")):
        for name in ("HS256", algorithm):
            assert subject(forge({"alg": name}, claims(), secret), algorithm) is None


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_another_key_or_a_changed_byte_names_nobody(algorithm: str) -> None:
    head, body, signature = sign(algorithm, claims()).split(".")
    other = sign(algorithm, claims(sub="root")).split(".")[1]
    swapped = ("B" if signature[9] == "A" else "A").join((signature[:9], signature[10:]))
    for token in (f"{head}.{other}.{signature}", f"{head}.{body}.{swapped}", f"{head}.{body}.", f"{head}.{body}"):
        assert subject(token, algorithm) is None
    assert subject(forge({"alg": algorithm}, claims(), b"another secret of thirty-two bytes"), algorithm) is None


@pytest.mark.parametrize(
    "kid", ["../../../../dev/null", "/dev/null", "' OR 1=1 --", "key' UNION SELECT 'x", "\x00", "http://evil/jwks", ["a"], {}]
)  # fmt: skip
def test_a_key_id_leads_nowhere(kid: object) -> None:
    for secret in (b"", b"\x00", b"x", b"AA=="):
        assert subject(forge({"alg": "HS256", "kid": kid}, claims(), secret)) is None
    if isinstance(kid, str):
        assert subject(forge({"alg": "HS256", "kid": kid}, claims(), SECRET)) == "alice", "it is not read at all"


def test_a_key_that_a_token_brings_along_is_not_used() -> None:
    own = {"kty": "oct", "k": "eA"}
    for header in (
        {"jwk": own},
        {"jku": "http://127.0.0.1:9/jwks"},
        {"x5u": "http://127.0.0.1:9/x"},
        {"x5c": ["eA=="]},
    ):
        assert subject(forge({"alg": "HS256"} | header, claims(), b"x")) is None


def test_an_extension_that_must_be_understood_is_not_passed_over() -> None:
    assert subject(forge({"alg": "HS256", "crit": ["exp2"], "exp2": 1}, claims(), SECRET)) is None
    assert subject(forge({"alg": "HS256", "crit": ["b64"], "b64": False}, claims(), SECRET)) is None


GARBAGE = {
    "nothing": "",
    "a dot": ".",
    "dots": "..",
    "many dots": "." * 5000,
    "no base64": "!!!.???.***",
    "not JSON": forge({}, b"{", SECRET),
    "not an object": forge({"alg": "HS256"}, b"[]", SECRET),
    "not UTF-8": forge({"alg": "HS256"}, b"\xff\xfe", SECRET),
    "deep lists, signed": forge({"alg": "HS256"}, b"[" * 5000, SECRET),
    "deep objects, signed": forge({"alg": "HS256"}, b'{"a":' * 1100, SECRET),
    "infinite exp": forge({"alg": "HS256"}, b'{"sub":"a","iss":"%s","aud":"%s","exp":1e400}' % (ISSUER.encode(), AUDIENCE.encode()), SECRET),
    "exp that is no number": forge({"alg": "HS256"}, b'{"sub":"a","iss":"%s","aud":"%s","exp":NaN}' % (ISSUER.encode(), AUDIENCE.encode()), SECRET),
    "an exp of 5,000 digits": forge({"alg": "HS256"}, b'{"sub":"a","exp":' + b"9" * 5000 + b"}", SECRET),
    "not ASCII": "令牌.令牌.令牌",
    "a surrogate": "\ud800.\ud800.\ud800",
    "a NUL": "\x00.\x00.\x00",
    "an encrypted one": "a.b.c.d.e",
}  # fmt: skip


@pytest.mark.parametrize("token", list(GARBAGE.values()), ids=list(GARBAGE))
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_garbage_names_nobody_and_raises_nothing(algorithm: str, token: str) -> None:
    assert subject(token, algorithm) is None


def test_a_huge_token_names_nobody_though_it_is_signed() -> None:
    assert subject(sign("HS256", claims(more="a" * 4000))) == "alice"
    assert subject(sign("HS256", claims(more="a" * 8000))) is None
    assert subject("a" * 50_000_000) is None


WRONG_KEYS = {
    "a short secret": ("HS256", b"a" * 31, "31 bytes"),
    "a short secret and a line break": ("HS256", b"a" * 31 + b"\r\n", "31 bytes"),
    "nothing for a secret": ("HS256", b"", "0 bytes"),
    "a public key for a secret": ("HS256", public_pem(private_key("RS256")), "PEM or SSH key"),
    "a private key for a secret": ("HS256", private_pem(private_key("ES256")), "PEM or SSH key"),
    "an SSH key for a secret": ("HS256", b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl", "PEM or SSH key"),
    "a secret for a public key": ("RS256", SECRET, "no public key"),
    "nothing for a public key": ("ES256", b"", "no public key"),
    "a cut PEM": ("RS256", public_pem(private_key("RS256"))[:200], "no public key"),
    "a private RSA key": ("RS256", private_pem(private_key("RS256")), "private key"),
    "a private EC key": ("ES256", private_pem(private_key("ES256")), "private key"),
    "an EC key for RS256": ("RS256", public_pem(private_key("ES256")), "no public key"),
    "an RSA key for ES256": ("ES256", public_pem(private_key("RS256")), "no public key"),
    "another curve": ("ES256", public_pem(private_key("ES384")), "no public key"),
    "a weak RSA key": ("RS256", public_pem(private_key("RS256", 1024)), "1024 bits"),
}  # fmt: skip


@pytest.mark.parametrize(("algorithm", "raw", "words"), list(WRONG_KEYS.values()), ids=list(WRONG_KEYS))
def test_a_wrong_key_file_is_refused(algorithm: str, raw: bytes, words: str) -> None:
    with pytest.raises(AccessFileError, match=words):
        json_web_tokens.parse_key(algorithm, raw)


def test_a_secret_of_32_bytes_is_taken_without_its_line_break() -> None:
    assert json_web_tokens.parse_key("HS256", b"\n" + b"a" * 30 + b" \r\n") == b"\n" + b"a" * 30 + b" "
