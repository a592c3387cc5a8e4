"""How many files of visitors the page holds."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from ui.uploads import bytes_in


def test_what_lies_in_folders_counts_and_so_do_empty_files(tmp_path: Path) -> None:
    assert bytes_in(tmp_path / "nowhere") == 0
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file.csv").write_bytes(b"x" * 1000)
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    assert bytes_in(tmp_path) == 1000 + 4096
    for number in range(10):
        (tmp_path / str(number)).touch()
    assert bytes_in(tmp_path) == 1000 + 11 * 4096


def test_once_there_is_so_much_no_further_file_is_taken_and_all_else_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("starlette")
    from ui import policy

    passed: list[str] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        passed.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    (entry,) = policy.middleware(None, tmp_path, most_mb=1)
    app = entry.cls(inner, *entry.args, **entry.kwargs)

    def status(path: str) -> int:
        sent: list[dict[str, Any]] = []

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": path, "headers": []}
        asyncio.run(app(scope, None, send))
        return int(sent[0]["status"])

    assert status("/gradio_api/upload") == 200
    (tmp_path / "big").write_bytes(b"x" * 1_000_000)
    assert status("/gradio_api/upload") == 507
    assert status("/gradio_api/queue/join") == 200
    (tmp_path / "big").unlink()
    assert status("/gradio_api/upload") == 200
    assert passed == ["/gradio_api/upload", "/gradio_api/queue/join", "/gradio_api/upload"]
