"""Whom a channel may reach: any public address, and private ones only where a setting allows their network.

Without that a file of rules, or a name that is made to point elsewhere, could have this service ask what only it can
reach (server-side request forgery).
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from qwen_allinone.strict_yaml import Wrong
from qwen_allinone.wording import said

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address
ALLOW = "QAIO_ALERTS_NETWORKS"
_TRANSLATED = ip_network("64:ff9b::/96")  # IPv4 behind a gateway, RFC 6052


class AddressRefused(Wrong):
    """The message says which, and how it would be allowed."""


def allowed_addresses(host: str, port: int, networks: Sequence[Network]) -> list[str]:
    """The addresses of a host, all of which may be reached.

    Raises:
        AddressRefused: one of them may not. OSError: the name is not known.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    for address in addresses:
        check(address, networks)
    return addresses


def check(address: str, networks: Sequence[Network]) -> None:
    """Raises AddressRefused."""
    if not is_within(address, networks) and not is_public(ip_address(address.partition("%")[0])):
        raise AddressRefused(said("address_private", address=address), said("allow_network", setting=ALLOW))


def is_within(address: str, networks: Sequence[Network]) -> bool:
    """Whether a setting allows it."""
    bare = ip_address(address.partition("%")[0])
    inner = _inner(bare)
    return any(one in network for network in networks for one in (bare, inner) if one.version == network.version)


def is_public(address: Address) -> bool:
    """Whether it can be reached from the whole internet, and stands for no address that cannot."""
    inner = _inner(address)
    return all(one.is_global and not one.is_multicast and not one.is_reserved for one in (address, inner)) or (
        inner is not address and inner.is_global and not inner.is_multicast
    )


def _inner(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for; else itself."""
    if isinstance(address, IPv4Address):
        return address
    if address in _TRANSLATED:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else address)
