"""Whose request it is when no key says so: the client's address, which nobody can forge from behind a proxy."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address
_HOME = 64  # bits of an IPv6 network; whoever has one address of it has them all


def client_address(peer: str, forwarded_for: str, trusted: Sequence[IPv4Network | IPv6Network]) -> str:
    """The address of whoever asks, as far as it can be known; "local" at a Unix socket.

    `peer` is the other end of the connection. If it is a trusted proxy, `X-Forwarded-For` is read from the right: each
    proxy wrote there whom it saw, so the first entry that is no trusted proxy is the client, and all to the left of
    it is what that client claims.
    """
    client = _parse(peer)
    if client is None:
        return peer or "local"  # a Unix socket
    entries = forwarded_for.split(",") if forwarded_for else []
    while entries and _is_in(client, trusted):
        entry = _parse(entries.pop())
        if entry is None:
            break  # a proxy that does not say whom it saw: the proxy counts as the client
        client = entry
    return str(client)


def is_address(text: str) -> bool:
    """Whether it is an address and no name; a port may follow, brackets may stand about it."""
    return _parse(text) is not None


def is_from(peer: str, networks: Sequence[IPv4Network | IPv6Network]) -> bool:
    """Whether the other end of a connection lies in one of the networks."""
    address = _parse(peer)
    return address is not None and _is_in(address, networks)


def counted_as(address: str) -> str:
    """What a client's address counts as: itself, or the /64 of an IPv6 address."""
    client = _parse(address)
    return str(IPv6Network((client.packed, _HOME), strict=False)) if isinstance(client, IPv6Address) else address


def _is_in(address: Address, networks: Sequence[IPv4Network | IPv6Network]) -> bool:
    return any(address in network for network in networks)


def _parse(text: str) -> Address | None:
    """An address as proxies write it: bare, with a port, in brackets, with a zone."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address
