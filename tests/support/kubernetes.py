"""The Kubernetes manifests of deploy/, and what Helm makes of the chart beside them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

from tests.support.nginx import DEPLOY

# The oldest Kubernetes that somebody may run, and the newest the schemas know.
VERSIONS = ("1.30", kubernetes_validate.latest_version())
CHART = DEPLOY / "helm" / "qwen-allinone"
WHY_NO_HELM = "no Helm: run tests/install_helm.py with this Python (Linux on x86-64), or put a `helm` into PATH"

Resources = dict[str, dict[str, Any]]


def by_name(*texts: str) -> Resources:
    """The resources in YAML `texts`, each under its kind and name; none may be there twice."""
    found: Resources = {}
    for resource in (resource for text in texts for resource in yaml.safe_load_all(text) if resource):
        name = f"{resource['kind']}/{resource['metadata']['name']}"
        assert name not in found, f"{name} is there twice"
        found[name] = resource
    return found


def manifests() -> Resources:
    """Those of deploy/kubernetes."""
    return by_name(*(file.read_text(encoding="utf-8") for file in sorted((DEPLOY / "kubernetes").glob("*.yaml"))))


def helms() -> list[str]:
    """Programs to try the chart with: those that install_helm.py put beside this Python, or else the one in PATH."""
    beside = [str(file) for name in ("helm3", "helm4") if (file := Path(sys.executable).with_name(name)).is_file()]
    in_path = shutil.which("helm")
    return beside or ([in_path] if in_path else [])


def run_helm(helm: str, *command: str, values: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """`helm COMMAND` on the chart with `values` as its values file; no cluster is asked, and nothing of this user's is read."""
    return subprocess.run(
        [helm, *command, str(CHART), "--values", "-"],
        input=yaml.safe_dump(values),
        capture_output=True,
        text=True,
        check=False,
        env={"HOME": "/nonexistent", "PATH": "/usr/bin:/bin", "KUBECONFIG": "/nonexistent"},
    )
