"""Variables that Kubernetes sets in every container for each Service of its namespace.

For a Service named `qaio` they begin with QAIO_, and QAIO_PORT=tcp://10.0.0.7:80 is not the port to listen on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_NAME = re.compile(r"\w*_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)", re.ASCII)
_ADDRESS = re.compile(r"(tcp|udp|sctp)://")


def without_service_links(environ: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """`environ` without such variables, and their names."""
    links = [name for name, value in environ.items() if _is_link(name, value)]
    return {name: value for name, value in environ.items() if name not in links}, links


def warning(names: list[str]) -> str:
    """What to say of them."""
    return f"{', '.join(names)}: set by Kubernetes for a Service, ignored; `enableServiceLinks: false` ends that"


def _is_link(name: str, value: str) -> bool:
    return bool(_NAME.fullmatch(name) or (name.endswith("_PORT") and _ADDRESS.match(value)))
