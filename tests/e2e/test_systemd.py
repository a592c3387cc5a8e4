"""deploy/qwen-allinone.service: systemd understands it, it shuts the service in, and the service tells systemd it is up."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import PROJECT, StartService

UNIT = PROJECT / "deploy" / "qwen-allinone.service"
# Of 100: what systemd-analyze calls "OK" ends at 49 (4.9); a unit without any of it has 96.
MOST_EXPOSED = 20


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed (Debian: apt-get install systemd)")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def unit_with_our_paths(folder: Path, *edits: tuple[str, str]) -> Path:
    """The unit as it would be if the project were installed where it is."""
    text = UNIT.read_text(encoding="utf-8")
    for old, new in [
        ("/opt/qwen-allinone/.venv/bin/python", sys.executable),
        ("/opt/qwen-allinone", str(PROJECT)),
        *edits,
    ]:
        assert old in text
        text = text.replace(old, new)
    file = folder / UNIT.name
    file.write_text(text, encoding="utf-8")
    return file


def test_systemd_understands_every_line(tmp_path: Path) -> None:
    done = analyze("verify", str(unit_with_our_paths(tmp_path)))
    complaints = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert (done.returncode, complaints) == (0, [])


@pytest.mark.parametrize(
    ("old", "new"), [("NoNewPrivileges=yes", "NoNewPrivilege=yes"), ("MemoryMax=3G", "MemoryMax=3X")]
)
def test_a_typo_in_the_unit_would_be_found(tmp_path: Path, old: str, new: str) -> None:
    assert UNIT.name in analyze("verify", str(unit_with_our_paths(tmp_path, (old, new)))).stderr


def test_the_service_is_shut_in(tmp_path: Path) -> None:
    arguments = ("security", "--offline=true", f"--threshold={MOST_EXPOSED}", "--no-pager")
    done = analyze(*arguments, str(UNIT))
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze cannot judge a file (needs systemd 250)")
    assert done.returncode == 0, done.stdout
    open_unit = unit_with_our_paths(
        tmp_path, ("ProtectSystem=strict\n", ""), ("SystemCallFilter=", "#"), ("CapabilityB", "#")
    )
    assert analyze(*arguments, str(open_unit)).returncode != 0, "this test would not see an open unit"


def test_gunicorn_tells_systemd_when_it_listens(start_service: StartService, tmp_path: Path) -> None:
    assert re.search(r"^Type=notify$", UNIT.read_text(encoding="utf-8"), re.MULTILINE)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(tmp_path / "notify"))
        notified.settimeout(60)
        command = (sys.executable, "-m", "qwen_allinone", "serve")
        running = start_service(command=command, NOTIFY_SOCKET=str(tmp_path / "notify"))
        message = notified.recv(4096)
    assert b"READY=1" in message
    assert running.answers("/livez", 200)
