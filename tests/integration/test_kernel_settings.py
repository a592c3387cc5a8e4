"""What is set of kernels, keys and values reaches the model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from qwen_allinone.model.native import library as native
from tests.integration.conftest import StartServer

needs_native = pytest.mark.skipif(native.library() is None, reason="there are no native kernels for this machine")


@needs_native
def test_native_kernels_serve_unless_told_otherwise(start_server: StartServer) -> None:
    model, plain = (start_server(**given).service.engine.model for given in ({}, {"QAIO_KERNELS": "torch"}))
    assert model and plain
    assert model.kernel == "native-exact" and "native" not in plain.kernel


@needs_native
def test_keys_and_values_are_kept_as_told_and_packed_weights_where_told(
    start_server: StartServer, tmp_path: Path
) -> None:
    model = start_server(QAIO_KV="fp16", QAIO_PACKED_DIR=str(tmp_path)).service.engine.model
    assert model and model.new_cache(1).key_rows[0].dtype == torch.float16
    (file,) = tmp_path.iterdir()
    assert file.suffix == ".panels" and file.stat().st_size > 10_000_000
