"""Tasks with an adapter beside their prompt: computed with it, among others that are not."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from qwen_allinone.bootstrap import build_service
from qwen_allinone.engine import Status
from qwen_allinone.errors import NotReady
from qwen_allinone.service import Service
from qwen_allinone.settings import Settings
from qwen_allinone.tasks import load_task
from tests.support.adapters import write_adapter, write_merged
from tests.support.tasks import KEYWORDS, write_prompts

Start = Callable[..., Service]
TEXTS = [f"第{number}句话，房间干净" for number in range(8)]


@pytest.fixture
def start() -> Iterator[Start]:
    services: list[Service] = []

    def begin(checkpoint: Path, prompts: Path, wanted: Status = Status.READY, **settings: Any) -> Service:
        given = {"context": 256, "kv_tokens": 4096, "slots": 16, "threads": 1, "fit": "off", "cache_mb": 0}
        services.append(build_service(Settings(model=str(checkpoint), prompts=prompts, **(given | settings))))
        assert services[-1].engine.wait_until_settled(30) is wanted, services[-1].engine.problem
        return services[-1]

    yield begin
    for service in services:
        service.engine.stop()


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    return write_prompts(tmp_path / "prompts", keywords=KEYWORDS)


def judged(service: Service, task: str = "sentiment") -> list[float]:
    """Probabilities and words, asked all at once beside another task."""
    with ThreadPoolExecutor(16) as pool:
        words = [pool.submit(service.run, "keywords", {"text": text}) for text in TEXTS]
        labels = [pool.submit(service.run, task, {"text": text}) for text in TEXTS]
        assert all(word.result().text is not None for word in words)
        return [share for label in labels for share in (label.result().probabilities or {}).values()]


def said(service: Service) -> list[str | None]:
    return [service.run("keywords", {"text": text}).text for text in TEXTS]


def test_a_task_has_its_own_adapter_and_its_neighbours_have_theirs_or_none(
    tmp_path: Path, tiny_checkpoint: Path, prompts: Path, start: Start
) -> None:
    plain = start(tiny_checkpoint, prompts)
    one = write_adapter(tmp_path / "one", tiny_checkpoint, seed=1)
    other = write_adapter(tmp_path / "other", tiny_checkpoint, seed=2)
    merged = start(write_merged(tmp_path / "merged one", tiny_checkpoint, one), prompts)
    merged_other = start(write_merged(tmp_path / "merged other", tiny_checkpoint, other), prompts)
    adapted = shutil.copytree(prompts, tmp_path / "adapted")
    shutil.copytree(one, adapted / "sentiment", dirs_exist_ok=True)
    shutil.copytree(other, adapted / "keywords", dirs_exist_ok=True)
    service = start(tiny_checkpoint, adapted)
    shares = judged(service)
    assert shares == pytest.approx(judged(merged), abs=1e-4) and shares != pytest.approx(judged(plain), abs=0.01)
    assert said(service) == said(merged_other) != said(plain)
    answer = service.run("sentiment", {"text": "别的话"})
    assert answer.result.reused_tokens > 3, "its prompt's beginning was computed with the adapter, once"
    versions = [each.codec.tasks["sentiment"].version for each in (plain, service)]
    assert versions[0] != versions[1], "what was remembered without the adapter is not told any more"


def test_an_adapter_of_another_model_keeps_the_service_from_getting_ready(
    tiny_checkpoint: Path, untied_checkpoint: Path, prompts: Path, start: Start
) -> None:
    write_adapter(prompts / "sentiment", untied_checkpoint, base_model_name_or_path=None)
    service = start(tiny_checkpoint, prompts, Status.FAILED)
    assert "has the shape" in service.engine.problem and "sentiment" in service.engine.problem
    with pytest.raises(NotReady):
        service.run("sentiment", {"text": "好"})


def test_an_adapter_was_taught_the_prompt_as_it_stands(tmp_path: Path, tiny_checkpoint: Path) -> None:
    from tests.support.tasks import PROJECT

    task = shutil.copytree(PROJECT / "prompts" / "sentiment_en", tmp_path / "sentiment_en")
    before = load_task(task)
    write_adapter(task, tiny_checkpoint)
    after = load_task(task)
    assert before.as_plain is not None and after.as_plain is None
    assert before.version != after.version
