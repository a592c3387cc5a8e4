"""Label tasks meet a model: what is asked, what is kept for the next start, what is told."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from qwen_allinone.bootstrap import build_service
from qwen_allinone.engine import Classify, FinishReason, Result, Status
from qwen_allinone.service import Service, fitting
from qwen_allinone.service.fitted_task import blank_before_label
from qwen_allinone.service.fitting import Fitting, fit_tasks
from qwen_allinone.service.gold_fit import GoldFit
from qwen_allinone.settings import Settings
from qwen_allinone.tasks import load_task
from tests.support.tasks import PROJECT, write_prompts

CASES = "".join(
    f"- inputs: {{text: 第{number}句话}}\n  label: {label}\n" for number, label in enumerate(["正面", "负面"] * 8)
)
Start = Callable[..., Service]


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    folder = write_prompts(tmp_path / "prompts")
    (folder / "sentiment" / "cases.yaml").write_text(CASES, "utf-8")
    return folder


@pytest.fixture
def start(tiny_checkpoint: Path, prompts: Path, tmp_path: Path) -> Iterator[Start]:
    services: list[Service] = []

    def begin(**settings: Any) -> Service:
        given: dict[str, Any] = {"model": str(tiny_checkpoint), "prompts": prompts, "context": 256, "kv_tokens": 1024}
        given |= {"threads": 1, "fit_file": tmp_path / "state" / "fits.json"}
        services.append(build_service(Settings(**(given | settings))))
        assert services[-1].engine.wait_until_settled(30) is Status.READY, services[-1].engine.problem
        return services[-1]

    yield begin
    for service in services:
        service.engine.stop()


def fit_of(service: Service) -> GoldFit:
    return service.gold_fits()["sentiment"]


def test_every_start_says_how_label_tasks_do(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    fit = fit_of(start())
    assert fit.cases == 16 and fit.chance == 0.5
    assert "label tasks on their gold cases: sentiment" in caplog.text
    assert fit.guesses and "does not understand the prompt" in caplog.text, "random weights know nothing"


def test_a_task_is_left_as_it_is_where_that_is_asked(start: Start) -> None:
    service = start(fit="off")
    assert service.gold_fits() == {}
    assert service.codec.tasks["sentiment"].prior is None


def test_contextual_takes_out_what_every_label_task_answers_to_nothing(start: Start) -> None:
    service = start(fit="contextual")
    prior = service.codec.tasks["sentiment"].prior
    assert prior is not None and sum(prior) == pytest.approx(1.0)
    assert fit_of(service).prior == prior


def test_what_took_long_is_kept_for_the_next_start(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "state" / "fits.json"
    first = fit_of(start())
    assert not file.exists(), "it is found anew in no time"
    monkeypatch.setattr(fitting, "_WORTH_KEEPING_S", 0.0)
    assert fit_of(start()) == first
    assert len(json.loads(file.read_text())) == 1

    def never(*_: object) -> GoldFit:
        raise AssertionError("it is in the file")

    monkeypatch.setattr(fitting, "fit_to_gold", never)
    assert fit_of(start()) == first


def test_other_cases_are_fitted_anew(
    start: Start, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "_WORTH_KEEPING_S", 0.0)
    start()
    (prompts / "sentiment" / "cases.yaml").write_text(CASES + "- inputs: {text: 还有一句}\n  label: 负面\n", "utf-8")
    assert fit_of(start()).cases == 17
    assert len(json.loads((tmp_path / "state" / "fits.json").read_text())) == 2


@pytest.mark.parametrize("content", ["", "[]", '{"a": {"cases": "many"}}', "\0"])
def test_a_broken_file_is_told_of_and_made_anew(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    monkeypatch.setattr(fitting, "_WORTH_KEEPING_S", 0.0)
    file = tmp_path / "state" / "fits.json"
    file.parent.mkdir()
    file.write_text(content)
    start()
    assert "fitted anew" in caplog.text
    assert len(json.loads(file.read_text())) == 1


def test_a_place_that_cannot_be_written_is_told_of(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fitting, "_WORTH_KEEPING_S", 0.0)
    (tmp_path / "state").write_text("a file where a folder should be")
    assert fit_of(start())
    assert "QAIO_FIT_FILE" in caplog.text


def test_what_there_is_no_time_for_stays_as_it_is(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    service = start(fit_s=0)
    assert service.gold_fits() == {}
    assert "sentiment: not fitted to the model within QAIO_FIT_S=0" in caplog.text


def test_cases_that_the_service_would_refuse_are_left_out(start: Start, prompts: Path) -> None:
    long = f"- inputs: {{text: {'长' * 300}}}\n  label: 正面\n- inputs: {{text: '  '}}\n  label: 正面\n"
    (prompts / "sentiment" / "cases.yaml").write_text(CASES + long, "utf-8")
    assert fit_of(start()).cases == 16


def answering(right: Sequence[bool]) -> Callable[[Sequence[Any]], list[Result]]:
    """A model that is right, and sure of it, where told so, and says the other thing elsewhere. In order of asking."""
    asked = iter(right)

    def compute(works: Sequence[Any]) -> list[Result]:
        results = []
        for work in works:
            assert isinstance(work, Classify)
            share = 0.95 if next(asked) else 0.05
            results.append(Result(FinishReason.LABEL, (), 0, 0, 0, (share, 1 - share)))
        return results

    return compute


def test_of_two_forms_of_a_prompt_the_one_that_does_better_is_used(start: Start) -> None:
    service = start()
    chat = service.codec.tasks["sentiment"]
    plain = chat.with_prior((0.5, 0.5))  # stands for the other form: it has another version
    cases = service.registry.cases("sentiment")
    first = [case.label == "正面" for case in cases]
    good, bad = first, [not right for right in first]
    for answers, winner in ((bad + good, plain), (good + bad, chat)):
        met = fit_tasks({"s": chat}, {"s": plain}, {"s": cases}, Fitting("gold"), answering(answers))
        assert met["s"].version == winner.version


def test_a_label_has_a_blank_before_it_where_the_examples_have_one() -> None:
    task = load_task(PROJECT / "prompts" / "sentiment_en")
    assert task.as_plain is not None
    assert blank_before_label(task.as_plain)
    assert not blank_before_label(task), "a chat's answers begin a message"
    assert not blank_before_label(load_task(PROJECT / "prompts" / "sentiment"))
