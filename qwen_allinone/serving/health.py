"""`python -m qwen_allinone.serving.health`: ends with 0 if the service that these settings start is well, else with 1.

For the health checks of containers. It asks where the service listens and goes through no proxy.
"""

from __future__ import annotations

import sys
from http.client import HTTPConnection, HTTPException

from qwen_allinone.errors import SettingsError
from qwen_allinone.settings import Settings

_TIMEOUT_S = 4.0
# Where a service that listens everywhere is reached from its own machine.
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def problem(settings: Settings) -> str:
    """What is wrong with the service; empty if it is well."""
    host = _LOOPBACK.get(settings.listens_on, settings.listens_on)
    connection = HTTPConnection(host, settings.port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/health")
        status = connection.getresponse().status
    except (OSError, HTTPException) as error:
        return f"{host} port {settings.port}: {error or type(error).__name__}"
    finally:
        connection.close()
    return "" if status == 200 else f"/health answers {status}"


def main() -> int:
    """The exit status; what is wrong goes to stderr."""
    try:
        found = problem(Settings.load())
    except SettingsError as error:
        found = str(error)
    if found:
        print(found, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
