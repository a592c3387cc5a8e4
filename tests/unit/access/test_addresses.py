"""Client addresses: the right end of X-Forwarded-For, as far as it was written by proxies we trust."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_allinone.access import client_address, counted_as

PROXIES = (ip_network("10.0.0.0/8"), ip_network("127.0.0.1"), ip_network("fd00::/8"))
CLIENT = "203.0.113.9"


@pytest.mark.parametrize(
    ("peer", "header", "client"),
    [
        (CLIENT, "", CLIENT),
        (CLIENT, "198.51.100.1", CLIENT),
        (CLIENT, "127.0.0.1", CLIENT),
        ("127.0.0.1", "", "127.0.0.1"),
        ("127.0.0.1", CLIENT, CLIENT),
        ("127.0.0.1", f"198.51.100.1, {CLIENT}", CLIENT),
        ("127.0.0.1", f"127.0.0.1, {CLIENT}", CLIENT),
        ("127.0.0.1", f"{CLIENT}, 10.1.2.3", CLIENT),
        ("127.0.0.1", f"198.51.100.1,{CLIENT},10.1.2.3,10.9.9.9", CLIENT),
        ("127.0.0.1", "10.1.2.3, 10.4.5.6", "10.1.2.3"),
        ("127.0.0.1", f"{CLIENT}:4711", CLIENT),
        ("127.0.0.1", f"{CLIENT}, unknown", "127.0.0.1"),
        ("127.0.0.1", f"{CLIENT},", "127.0.0.1"),
        ("127.0.0.1", f"{CLIENT}, <script>, 10.1.2.3", "10.1.2.3"),
        ("10.255.0.1", CLIENT, CLIENT),
        ("11.0.0.1", CLIENT, "11.0.0.1"),
        ("::ffff:127.0.0.1", CLIENT, CLIENT),
        ("::ffff:203.0.113.9", "", CLIENT),
        ("fd00::1", CLIENT, CLIENT),
        ("2001:db8:1:2::5", "", "2001:db8:1:2::5"),
        ("127.0.0.1", "2001:db8:1:2::7", "2001:db8:1:2::7"),
        ("127.0.0.1", "[2001:db8:1:2::7]:4711", "2001:db8:1:2::7"),
        ("fe80::1%eth0", "", "fe80::1"),
        ("", CLIENT, "local"),
    ],
)
def test_the_client_is(peer: str, header: str, client: str) -> None:
    assert client_address(peer, header, PROXIES) == client


@given(forged=st.text(max_size=200))
def test_nothing_a_client_writes_in_front_changes_who_it_is(forged: str) -> None:
    assert client_address("127.0.0.1", f"{forged},{CLIENT}", PROXIES) == CLIENT
    assert client_address(CLIENT, forged, PROXIES) == CLIENT


@given(header=st.text(max_size=200))
def test_no_header_raises(header: str) -> None:
    assert client_address("127.0.0.1", header, PROXIES)


def test_without_trusted_proxies_no_header_counts() -> None:
    assert client_address("127.0.0.1", CLIENT, ()) == "127.0.0.1"


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        (CLIENT, CLIENT),
        ("2001:db8:1:2::5", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::/64"),
        ("local", "local"),
    ],
)
def test_a_client_counts_with_its_whole_ipv6_network(address: str, counted: str) -> None:
    assert counted_as(address) == counted
