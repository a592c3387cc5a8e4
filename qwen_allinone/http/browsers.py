"""What web pages may do here: under which host names this answers, and which other sites' pages may call it.

A browser sends a page's requests wherever the page says, from inside the network its user is in. Two rules of the web
stand between: a page may read answers of its own site alone, unless the other one names it (CORS, the Fetch standard);
and who owns a host name may point it at any address, at 127.0.0.1 too (DNS rebinding), so a name is checked.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from urllib.parse import urlsplit

from flask import Response, request
from flask_openapi import OpenAPI
from werkzeug.sansio.utils import host_is_trusted

from qwen_allinone.access import is_address, is_from
from qwen_allinone.errors import WrongHost, WrongOrigin

ANY = "*"
_OWN_NAMES = ("localhost",)
_READABLE = (
    "Idempotent-Replayed, Retry-After, X-Cache, X-Model, X-Prompt-Version, X-RateLimit-Limit, X-RateLimit-Remaining, "
    "X-RateLimit-Reset, "
    "X-Request-Id"
)
_PREFLIGHT_HOLDS_S = "7200"  # the longest that Chromium takes


@dataclass(frozen=True)
class Browsers:
    """`hosts`: names this answers under, beside addresses and localhost; None: any. `origins`: sites whose pages may
    call it, `*` for all. What comes through `proxies` has passed their own check of names."""

    hosts: Sequence[str] | None = None
    origins: Collection[str] = ()
    proxies: Sequence[IPv4Network | IPv6Network] = ()

    def refuse_wrong_host(self) -> None:
        """Raises WrongHost where a request asks for a name that is not ours. Who sends none is no browser."""
        if self.hosts is None or (self.proxies and is_from(request.remote_addr or "", self.proxies)):
            return
        host = request.headers.get("Host", "").lower()
        names = [*_OWN_NAMES, *(name.lower() for name in self.hosts)]
        if host and not host_is_trusted(host, names) and not is_address(host):
            raise WrongHost(host)

    def refuse_strange_upload(self) -> None:
        """Raises WrongOrigin where a page of another site sends a form: browsers do not ask before they send one."""
        origin = request.headers.get("Origin", "")
        if request.mimetype != "multipart/form-data" or not origin or self.may_read(origin):
            return
        with suppress(ValueError):  # what is no address
            if urlsplit(origin).hostname == urlsplit(f"//{request.host}").hostname is not None:
                return
        raise WrongOrigin(origin)

    def may_read(self, origin: str) -> bool:
        """Whether pages of the site `origin` may call this."""
        return bool(origin) and (ANY in self.origins or origin in self.origins)


def register(app: OpenAPI, browsers: Browsers) -> None:
    """To be called before the guards are: a browser asks whether it may call (a preflight) without the key."""
    if not browsers.origins:
        return

    @app.before_request
    def answer_preflight() -> Response | None:
        origin = request.headers.get("Origin", "")
        wanted = request.headers.get("Access-Control-Request-Method", "")
        if request.method != "OPTIONS" or not wanted or not browsers.may_read(origin):
            return None
        response = Response(status=204)
        response.headers["Access-Control-Allow-Methods"] = "GET, POST, DELETE"
        # Any header: a key is one, clients add their own, and none of them has power by itself.
        response.headers["Access-Control-Allow-Headers"] = request.headers.get("Access-Control-Request-Headers", "")
        response.headers["Access-Control-Max-Age"] = _PREFLIGHT_HOLDS_S
        return response

    @app.after_request
    def let_read(response: Response) -> Response:
        everybody = ANY in browsers.origins
        if not everybody:
            response.vary.add("Origin")
        origin = request.headers.get("Origin", "")
        if browsers.may_read(origin):
            response.headers["Access-Control-Allow-Origin"] = ANY if everybody else origin
            response.headers["Access-Control-Expose-Headers"] = _READABLE
        return response
