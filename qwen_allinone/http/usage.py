"""What the request in hand has cost so far: routes note each answer; logs, metrics and limits read them."""

from __future__ import annotations

from flask import g

from qwen_allinone.service import Answer


def note(answer: Answer) -> Answer:
    """Remember `answer` as part of this request, and hand it back."""
    noted().append(answer)
    return answer


def noted() -> list[Answer]:
    """All answers of this request so far, in order; whoever holds the list sees later ones too."""
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
