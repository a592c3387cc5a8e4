"""What is known of the request in hand: who asks, which answers it took so far, which error it got."""

from __future__ import annotations

from flask import g

from qwen_allinone.service import Answer


def noted() -> list[Answer]:
    """All answers that this request took so far, see Terms.answers; whoever holds the list sees later ones too."""
    answers: list[Answer] = g.setdefault("answers", [])
    return answers


def note_error(code: str) -> None:
    """Remember that this request was answered with the error `code`."""
    noted_errors().append(code)


def noted_errors() -> list[str]:
    """All error codes of this request so far; whoever holds the list sees later ones too."""
    codes: list[str] = g.setdefault("errors", [])
    return codes


def caller() -> str | None:
    """Name of the key or token that made this request; None where no key is asked for."""
    name: str | None = g.get("caller")
    return name


def client() -> str | None:
    """The client's address, behind the trusted proxies; None before the guards have looked."""
    address: str | None = g.get("client")
    return address
