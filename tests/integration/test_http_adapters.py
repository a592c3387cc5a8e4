"""POST /v1/adapters/reload, but for reloads themselves, which take a master: e2e/test_reload.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from qwen_allinone.access import keys
from tests.integration.conftest import Server, serve


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("adapters")


@pytest.fixture(scope="module")
def secrets(held: Path) -> dict[str, dict[str, str]]:
    """Headers of two keys; one is an admin's."""
    return {name: {"Authorization": f"Bearer {keys.add(held / 'keys', name)}"} for name in ("root", "bob")}


@pytest.fixture(scope="module")
def guarded(demo_checkpoint: Path, held: Path, secrets: dict[str, dict[str, str]]) -> Iterator[Server]:
    given = {
        "QAIO_MODEL": "demo",
        "QAIO_THREADS": "1",
        "QAIO_API_KEYS_FILE": str(held / "keys"),
        "QAIO_PROMPTS_KEPT": str(held / "kept"),
        "QAIO_ADMINS": "root",
        "QAIO_FIT": "off",
    }
    with serve(given) as start:
        yield start()


def refused(server: Server, headers: dict[str, str] | None = None) -> tuple[int, str]:
    answer = server.client.post("/v1/adapters/reload", headers=headers or {})
    return answer.status_code, answer.get_json()["error"]["code"]


def test_only_keys_of_admins_may_have_the_service_reload(guarded: Server, secrets: dict[str, dict[str, str]]) -> None:
    assert refused(guarded) == (401, "unauthorized")
    assert refused(guarded, secrets["bob"]) == (403, "reload_forbidden")


def test_where_nobody_is_named_nobody_may(server: Server) -> None:
    assert refused(server) == (403, "reload_forbidden")


def test_a_service_without_a_master_says_that_it_makes_no_reloads(
    guarded: Server, secrets: dict[str, dict[str, str]]
) -> None:
    assert refused(guarded, secrets["root"]) == (404, "reload_off")
