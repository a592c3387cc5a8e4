"""What is installed: the pins that are tested, the wheel's own bounds, the image's lock."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

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
