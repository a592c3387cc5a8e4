"""A Ray cluster of two machines that are none: two raylets, each with processes of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a cluster with two nodes of one CPU each."""
    pytest.importorskip("ray", reason="Ray is not installed: make test-ray")
    home = tmp_path_factory.mktemp("home")  # Ray keeps the token of its clusters there
    path = os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH", "")]))  # for the nodes' processes
    os.environ |= {
        "PYTHONPATH": path,
        "HOME": str(home),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_raylet_start_wait_time_s": "600",
    }
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        yield cluster.address
    finally:
        cluster.shutdown()


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """Where actors leave their process ids."""
    folder = tmp_path / "notes"
    folder.mkdir()
    return folder
