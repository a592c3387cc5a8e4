"""Types of settings whose values are checked by more than their bounds."""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from qwen_allinone.wording import said

_HOST_NAME = re.compile(r"[A-Za-z0-9.-]+")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[a-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:]+\](:[0-9]{1,5})?")
# Several hosts may stand between commas; none is a socket, in the default place or in ?host=.
_POSTGRES_HOST = r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]*)(:[1-9][0-9]{0,4})?"
_POSTGRES_URL = re.compile(
    rf"postgres(ql)?://([^\s:@]+(:[^\s:@]*)?@)?{_POSTGRES_HOST}(,{_POSTGRES_HOST})*(/[^\s/?#]*)?(\?[^\s#]*)?", re.ASCII
)
_DATABASE = re.compile(r"(/[0-9]*)?", re.ASCII)


def _networks(value: object) -> object:
    if not isinstance(value, str):
        return value
    networks = tuple(map(_network, filter(None, map(str.strip, value.split(",")))))
    if any(network.prefixlen == 0 for network in networks):
        raise ValueError(said("network_of_everybody"))
    return networks


def _network(value: str) -> IPv4Network | IPv6Network:
    try:
        network = ip_network(value, strict=False)
    except ValueError:
        raise ValueError(said("no_network", value=value)) from None
    if ip_address(value.partition("/")[0]) != network.network_address:
        raise ValueError(said("network_host_bits", value=value, network=network))
    return network


def _host(value: str) -> str:
    """An IPv6 address may stand in brackets, as in a URL."""
    bare = value[1:-1] if value.startswith("[") and value.endswith("]") else value
    if not (_is_ipv6(bare) if ":" in bare else _HOST_NAME.fullmatch(bare)):
        raise ValueError(said("host_form"))
    return bare


def _is_ipv6(value: str) -> bool:
    try:
        return bool(IPv6Address(value))
    except ValueError:
        return False


def _redis_url(value: SecretStr) -> SecretStr:
    """No message may quote any part of the value: what is taken for host or port may be a piece of the password."""
    raw = value.get_secret_value()
    scheme, _, rest = raw.partition("://")
    if scheme in ("redis", "rediss") and re.search(r"[/?#].*@", rest):
        raise ValueError(said("encode_password"))
    if not _is_redis_url(raw):
        raise ValueError(said("redis_url_form"))
    return value


def _is_redis_url(raw: str) -> bool:
    try:
        url = urlsplit(raw)
        port = url.port
    except ValueError:
        return False
    if url.fragment or not raw.isprintable():
        return False
    if url.scheme == "unix":
        return bool(url.path)
    return (
        url.scheme in ("redis", "rediss") and bool(url.hostname) and port != 0 and bool(_DATABASE.fullmatch(url.path))
    )


def _postgres_url(value: SecretStr) -> SecretStr:
    """No message may quote any part of the value, as with Redis'."""
    raw = value.get_secret_value()
    scheme, _, rest = raw.partition("://")
    if scheme in ("postgresql", "postgres") and re.search(r"[/?#].*@", rest):
        raise ValueError(said("encode_password"))
    if not _POSTGRES_URL.fullmatch(raw):
        raise ValueError(said("postgres_url_form"))
    return value


def is_loopback(host: str) -> bool:
    """Whether only this machine can come in at the address or name `host`."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _parts(value: object) -> object:
    """What stands between the commas."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _hosts(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if value != "*" and not _HOST_NAME.fullmatch(value):
            raise ValueError(said("host_name_form", value=value))
    return values


def _origins(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if value != "*" and not _ORIGIN.fullmatch(value):
            raise ValueError(said("origin_form", value=value))
    return values


def _shares(value: object) -> object:
    """Whole numbers by name, `alice=3, bob=2`; the name may hold any `=` but the last."""
    if not isinstance(value, str):
        return value
    parts = [part.strip().rpartition("=") for part in value.split(",") if part.strip()]
    shares = {name.strip(): number.strip() for name, _, number in parts}
    if len(shares) < len(parts) or not all(shares):
        raise ValueError(said("shares_form"))
    return shares


Names = Annotated[tuple[str, ...], BeforeValidator(_parts)]
Shares = Annotated[dict[str, Annotated[int, Field(ge=1, le=100)]], BeforeValidator(_shares)]
Hosts = Annotated[tuple[str, ...], BeforeValidator(_parts), AfterValidator(_hosts)]
Origins = Annotated[tuple[str, ...], BeforeValidator(_parts), AfterValidator(_origins)]
Networks = Annotated[tuple[IPv4Network | IPv6Network, ...], BeforeValidator(_networks)]
Host = Annotated[str, AfterValidator(_host)]
PostgresUrl = Annotated[SecretStr, AfterValidator(_postgres_url)]
RedisUrl = Annotated[SecretStr, AfterValidator(_redis_url)]
