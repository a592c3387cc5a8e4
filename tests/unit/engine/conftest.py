"""Engines that tests start."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from qwen_allinone.engine import Capacity, Engine, Loaded, Status
from tests.support.fake_model import loaded
from tests.unit.engine.running import CAPACITY, Start, wait_for


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts engines and stops them after the test. Takes a loader, or models to be loaded one after the other."""
    engines: list[Engine] = []

    def begin(*models: Any, capacity: Capacity = CAPACITY, retry_load_s: float = 0.02, ready: bool = True) -> Engine:
        queue = list(models)

        def load() -> Loaded[None]:
            model = queue.pop(0) if len(queue) > 1 else queue[0]
            if isinstance(model, Exception):
                raise model
            return model if isinstance(model, Loaded) else loaded(model)

        loader = models[0] if callable(models[0]) else load
        engine = Engine(loader, capacity, retry_load_s=retry_load_s)
        engines.append(engine)
        engine.start()
        if ready:
            wait_for(lambda: engine.status is Status.READY)
        return engine

    yield begin
    for engine in engines:
        engine.stop()
        assert not engine._thread.is_alive(), "the engine does not stop"
