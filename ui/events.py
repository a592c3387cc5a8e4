"""How the handlers of the page run."""

from __future__ import annotations

from typing import Any

# Visitors have the page, not an interface: that is the service's own.
QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
# Visitors that may wait for the service at the same time; the service itself says when it is full.
MOST_AT_ONCE = 64
