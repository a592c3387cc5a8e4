"""Batches of the service, as the page uses them: numbered bodies go in; their answers come out, whenever that is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from ui.client import Api, ApiError

# Long enough to come back after a weekend; the service may keep them shorter.
KEEP_S = 7 * 86_400
_OPEN = ("validating", "in_progress", "finalizing", "cancelling")
_MOST_LISTED = 100


@dataclass(frozen=True)
class Batch:
    """One batch as it stood when it was asked for. `done` of its `total` lines have an outcome; `problem`: why its file
    was refused."""

    id: str
    status: str
    total: int
    done: int
    files: tuple[str, ...]
    good: str | None
    bad: str | None
    metadata: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""

    @property
    def over(self) -> bool:
        return self.status not in _OPEN


@dataclass(frozen=True)
class Line:
    """What became of one body: the answer, or why there is none."""

    body: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""


async def begin(api: Api, endpoint: str, bodies: Mapping[int, Mapping[str, Any]], metadata: Mapping[str, str]) -> Batch:
    """Have all bodies answered. Raises ApiError; nothing is left of it then."""
    lines = [
        {"custom_id": str(number), "method": "POST", "url": endpoint, "body": body} for number, body in bodies.items()
    ]
    data = "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines).encode("utf-8", "replace")
    file = await upload(api, "page.jsonl", data)
    asked = {
        "input_file_id": file,
        "endpoint": endpoint,
        "completion_window": "24h",
        "metadata": dict(metadata),
        "output_expires_after": {"anchor": "created_at", "seconds": KEEP_S},
    }
    try:
        return _batch(await api.ask("POST", "/v1/batches", asked))
    except ApiError:
        await delete(api, [file])
        raise


async def look(api: Api, id: str) -> Batch:
    """As it stands now. Raises ApiError, 404 where there is none."""
    return _batch(await api.ask("GET", f"/v1/batches/{quote(id, safe='')}"))


async def find(api: Api, **metadata: str) -> Batch | None:
    """The newest that has all of `metadata`, among the last hundred. Raises ApiError."""
    listed = (await api.ask("GET", f"/v1/batches?limit={_MOST_LISTED}")).get("data", [])
    found = map(_batch, listed)
    return next((batch for batch in found if metadata.items() <= batch.metadata.items()), None)


async def cancel(api: Api, id: str) -> None:
    """Let no further line begin; one that is over stays as it is. Raises ApiError."""
    try:
        await api.ask("POST", f"/v1/batches/{quote(id, safe='')}/cancel")
    except ApiError as error:
        if error.status != 409:
            raise


async def answers(api: Api, batch: Batch) -> dict[int, Line]:
    """By number, of all lines of one that is over. Raises ApiError."""
    found = dict[int, Line]()
    for file in (batch.good, batch.bad):
        for raw in (await content(api, file)).splitlines() if file else ():
            try:
                entry = json.loads(raw)
                found[int(entry["custom_id"])] = _line(entry)
            except (ValueError, KeyError, TypeError):
                raise ApiError("服务的批处理结果不合约定，请检查本页所连的地址") from None
    return found


async def upload(api: Api, name: str, data: bytes) -> str:
    """Keep a file at the service; returns its id. Raises ApiError."""
    form = {"purpose": "batch", "expires_after[anchor]": "created_at", "expires_after[seconds]": str(KEEP_S)}
    answer = await api.ask("POST", "/v1/files", files={"file": (name, data)}, data=form)
    return str(answer["id"])


async def content(api: Api, file: str) -> bytes:
    """Of a file. Raises ApiError."""
    return await api.read(f"/v1/files/{quote(file, safe='')}/content")


async def delete(api: Api, files: Sequence[str]) -> None:
    """Forget files as far as the service can be asked; it forgets them by itself later."""
    for file in files:
        with suppress(ApiError):
            await api.ask("DELETE", f"/v1/files/{quote(file, safe='')}")


def _batch(entry: Mapping[str, Any]) -> Batch:
    try:
        counts, errors = entry["request_counts"], (entry.get("errors") or {}).get("data", [])
        made = [entry[name] for name in ("input_file_id", "output_file_id", "error_file_id")]
        return Batch(
            entry["id"],
            entry["status"],
            counts["total"],
            counts["completed"] + counts["failed"],
            tuple(file for file in made if file),
            made[1],
            made[2],
            entry.get("metadata") or {},
            str(errors[0]["message"]) if errors else "",
        )
    except (KeyError, TypeError):
        raise ApiError("服务的回答不合约定，请检查本页所连的地址") from None


def _line(entry: Mapping[str, Any]) -> Line:
    response = entry.get("response")
    if response and response["status_code"] == 200:
        return Line(response["body"])
    told = (response["body"] if response else entry).get("error")
    if isinstance(told, dict):
        told = _NOT_ASKED.get(told.get("code", ""), told.get("message"))
    return Line(error=str(told or "服务没有回答"))


_NOT_ASKED = {
    "batch_cancelled": "未处理",
    "batch_expired": "一天之内没有轮到",
    "batches_full": "服务给这个密钥的空间已满",
}
