"""Requests that are answered once, however often they come: what a store of their answers must do.

A request comes with a key of its client's. The first with a key holds it by a lease until its answer is kept; then
equal ones get that answer. A lease ends by itself, and with its process: what was never answered may be asked again.
"""

from __future__ import annotations

from typing import Protocol

from qwen_allinone.state.lease import Lease

# What an answer takes beside its bytes, as owners' shares count it.
AROUND_BYTES = 300


class OnceStore(Protocol):
    """Where answers are kept. `key` and `asked` are digests: of the owner and the client's key; of the request.

    Everything raises OnceUnavailable when the store cannot be used. Of one owner's answers the oldest make room for new
    ones; an answer that has no room at all is not kept.
    """

    def begin(self, key: str, owner: str | None, asked: str, lease: Lease) -> bytes | None:
        """The answer that was kept; None: the key is held now, and the answer is to be made.

        Raises:
            OnceBusy: an equal request is being answered. OnceMismatch: the key was used for another request.
        """

    def keep(self, key: str, owner: str | None, answer: bytes, lease: Lease) -> None:
        """Keep an answer, if the key is still held by `lease`."""

    def release(self, key: str, owner: str | None, lease: Lease) -> None:
        """Let go of a key without an answer."""
