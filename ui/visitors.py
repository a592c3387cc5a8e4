"""Which browsers' requests the page takes: those that asked for it by a name of its own, from its own pages.

A browser sends what any website tells it to, to any address its user can reach. So a page of another site could have
files written here (a cross-site POST), and one whose host name was pointed at 127.0.0.1 could read as well (DNS
rebinding).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit


def refusal(headers: Mapping[str, str], allowed: Sequence[str] | None) -> str | None:
    """Why a request with these `headers` (names in lower case) is refused; None: it is not.

    `allowed` are the host names the page answers under beside addresses and localhost; None: any. A proxy may say in
    X-Forwarded-Host what it was asked for; no website can make a browser send that.
    """
    host = _name(headers.get("host", ""))
    if allowed is not None and host and not _is_own(host) and host not in allowed and "*" not in allowed:
        return f"这个页面不以主机名 {host[:64]} 应答；管理者可以把它写进 QWEN_UI_ALLOWED_HOSTS"
    origin = headers.get("origin", "")
    ours = {host, _name(headers.get("x-forwarded-host", ""))} - {""}
    if origin and _name(origin.partition("://")[2]) not in ours:
        return "这个请求来自别的网站的网页；如果前面有代理，请让它原样转发 Host"
    return None


def _name(host: str) -> str:
    """Without port and brackets, in lower case."""
    try:
        return (urlsplit(f"//{host.strip()}").hostname or "").lower()
    except ValueError:
        return host


def _is_own(host: str) -> bool:
    """Names that nobody can point elsewhere."""
    try:
        return bool(ip_address(host))
    except ValueError:
        return host == "localhost"
