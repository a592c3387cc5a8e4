"""What is installed: the pins that are tested, the wheel's own bounds, the image's lock."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).resolve().parents[2]


def requirements(lines: list[str]) -> dict[str, Requirement]:
    read = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(one.name): one for one in read}


PINNED = requirements((PROJECT / "requirements.txt").read_text("utf-8").splitlines())
BOUNDS = requirements(tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"])
LOCK = (PROJECT / "requirements.lock").read_text("utf-8")


def version(requirement: Requirement) -> str:
    (only,) = requirement.specifier
    assert only.operator == "=="
    return only.version


def test_the_wheel_asks_for_what_is_pinned_and_its_ranges_hold_the_pins() -> None:
    assert BOUNDS.keys() == PINNED.keys()
    for name, bound in BOUNDS.items():
        assert bound.extras == PINNED[name].extras
        assert bound.specifier.contains(version(PINNED[name])), name
        assert not any(one.operator == "==" for one in bound.specifier), f"{name}: a range, not a pin"


ON_TOP = ("requirements-ui", "requirements-tools", "tests/requirements", "tests/ui/requirements")


def locked(text: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==([^ ;]+)", text, re.MULTILINE))


@pytest.mark.parametrize("name", ON_TOP)
def test_what_comes_on_top_is_locked_as_it_is_pinned_and_as_the_service_has_it(name: str) -> None:
    lines = (PROJECT / f"{name}.txt").read_text("utf-8").splitlines()
    pins = requirements([line for line in lines if not line.startswith("-r")])
    text = (PROJECT / f"{name}.lock").read_text("utf-8")
    versions = locked(text)
    assert {pin: versions.get(pin) for pin in pins} == {pin: version(one) for pin, one in pins.items()}
    both = versions.keys() & locked(LOCK).keys()
    assert {one: versions[one] for one in both} == {one: locked(LOCK)[one] for one in both}
    for entry in re.split(r"^(?=[a-z0-9-]+==)", text, flags=re.MULTILINE)[1:]:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry
    assert not re.search(r"https?://|file://|find-links|index-url", text)


FOUND = {"name": "flask", "version": "3.1.3", "vulns": []}
FLAW = {"name": "jinja2", "version": "3.1.6", "vulns": [{"id": "CVE-1", "fix_versions": ["3.1.7"]}]}
AUDITS = {
    "none known": ([FOUND], 0, "1 packages looked up, 0 known"),
    "one known": ([FOUND, FLAW], 1, "jinja2 3.1.6: CVE-1, mended in 3.1.7"),
    "one not looked up": ([FOUND, {"name": "torch", "skip_reason": "not found"}], 2, "NOT AUDITED: torch"),
    "nothing looked up": ([], 2, "NOT AUDITED: nothing"),
    "no data": (None, 2, "NOT AUDITED: the data at api.osv.dev could not be read (no route to host)"),
}


@pytest.mark.parametrize("case", AUDITS.values(), ids=AUDITS)
def test_an_audit_never_passes_over_what_it_could_not_look_up(case: tuple[object, int, str], tmp_path: Path) -> None:
    packages, status, said = case
    program = tmp_path / "pip-audit"
    says = (
        f"cat <<'E'\n{json.dumps({'dependencies': packages})}\nE"
        if packages is not None
        else "echo no route to host >&2"
    )
    program.write_text(f"#!/bin/sh\n{says}\nexit 1\n")
    program.chmod(0o755)
    command = [sys.executable, str(PROJECT / ".ci" / "audit.py"), str(program), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, said in done.stdout) == (status, True), done.stdout + done.stderr


def test_the_lock_has_every_pin_but_torch_with_hashes() -> None:
    locked = dict(re.findall(r"^([a-z0-9-]+)==(\S+) \\$", LOCK, re.MULTILINE))
    assert {name: locked.get(name) for name in PINNED if name != "torch"} == {
        name: version(pin) for name, pin in PINNED.items() if name != "torch"
    }
    assert "torch" not in locked and not any(name.startswith("nvidia") for name in locked)
    for entry in re.split(r"^(?=[a-z0-9-]+==)", LOCK, flags=re.MULTILINE)[1:]:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry


def test_the_lock_names_no_index() -> None:
    assert not re.search(r"https?://|file://|find-links|index-url", LOCK)
