"""A chat beside the sentiment: the mood that a reply is told, and the vetted text where the task `care` fires."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qwen_allinone.bootstrap import build_service
from qwen_allinone.engine import Classify, Logprobs, Status
from qwen_allinone.errors import EngineFailed
from qwen_allinone.service import Answer, CacheUse, Service, Terms
from qwen_allinone.settings import Settings
from tests.support.tasks import CHAT, VETTED, VETTED_EN, abstaining, unsure, write_care, write_prompts

TEXT = "今天很开心"
OTHER = {"负面": "中性", "中性": "负面"}

Start = Callable[[Path], Service]


@pytest.fixture
def start(tiny_checkpoint: Path) -> Iterator[Start]:
    services: list[Service] = []

    def begin(prompts: Path) -> Service:
        given: dict[str, Any] = {"context": 256, "kv_tokens": 1024, "slots": 4, "threads": 1}
        services.append(build_service(Settings(model=str(tiny_checkpoint), prompts=prompts, **given)))
        assert services[-1].engine.wait_until_settled(30) is Status.READY, services[-1].engine.problem
        return services[-1]

    yield begin
    for service in services:
        service.engine.stop()


@pytest.fixture
def caring(start: Start, tmp_path: Path) -> Callable[..., Service]:
    """A service whose task `care` fires at a text, or does not: the label that the checkpoint gives it comes first."""

    def begin(text: str = TEXT, *, fires: bool = True) -> Service:
        label = start(write_care(write_prompts(tmp_path / "asked"))).run("care", {"text": text}).label
        first = str(label) if fires else OTHER[str(label)]
        return start(write_care(write_prompts(tmp_path / "prompts"), first))

    return begin


class Heard:
    """What a chat tells while it is made."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def submitted(self) -> None:
        self.events.append("submitted")

    def labelled(self, sentiment: Answer, care: Answer | None) -> None:
        self.events.append((sentiment.task, bool(care and care.fired)))

    def delta(self, text: str, choice: int = 0, logprobs: Sequence[Logprobs] = ()) -> None:
        self.events.append(text)


def works_of(service: Service) -> list[Any]:
    """The work that the engine is given from now on."""
    works: list[Any] = []
    engine: Any = service.engine
    submit = engine.submit

    def record(work: Any, **options: Any) -> Any:
        works.append(work)
        return submit(work, **options)

    engine.submit = record
    return works


def prompt_of_reply(service: Service, works: list[Any]) -> str:
    return service.codec.tokenizer.decode(works[-1].prompt)


def test_a_sentiment_below_the_bound_is_told_as_the_prompts_own_word(start: Start, tmp_path: Path) -> None:
    service = start(write_prompts(tmp_path / "prompts", chat=unsure(0.99999)))
    works = works_of(service)
    answer = service.chat(TEXT, seed=1)
    assert answer.sentiment.label in ("正面", "负面")
    assert prompt_of_reply(service, works).startswith("system\n情绪：平静\n")
    assert (answer.told, answer.turn.told, answer.turn.sentiment) == ("平静", "平静", answer.sentiment.label)


def test_a_sentiment_above_the_bound_is_told_as_it_is(start: Start, tmp_path: Path) -> None:
    service = start(write_prompts(tmp_path / "prompts", chat=unsure(0.001)))
    works = works_of(service)
    answer = service.chat(TEXT, seed=1)
    assert prompt_of_reply(service, works).startswith(f"system\n情绪：{answer.sentiment.label}\n")
    assert answer.told == answer.turn.told == answer.sentiment.label


def test_an_abstained_sentiment_is_unsure_whatever_the_bound(start: Start, tmp_path: Path) -> None:
    service = start(write_prompts(tmp_path / "prompts", sentiment=abstaining(), chat=unsure(0.001)))
    answer = service.chat(TEXT, seed=1)
    assert (answer.sentiment.label, answer.told) == ("说不准", "平静")


def test_a_prompt_that_hears_no_mood_is_told_none(start: Start, tmp_path: Path) -> None:
    chat = CHAT.replace("  sentiment: {max_tokens: 16}\n", "").replace("：$sentiment", "不明")
    answer = start(write_prompts(tmp_path / "prompts", chat=chat)).chat(TEXT, seed=1)
    assert answer.told is None and answer.turn.told == answer.sentiment.label


def test_an_unsure_turn_is_found_again_by_the_next(start: Start, tmp_path: Path) -> None:
    service = start(write_prompts(tmp_path / "prompts", chat=unsure(0.99999)))
    works = works_of(service)
    first = service.chat(TEXT, seed=1)
    before = [*works[-1].prompt, *first.reply.result.ids]
    second = service.chat("the room was clean", history=[first.turn], seed=1)
    assert list(works[-1].prompt[: len(before)]) == before
    # The reply's last token is computed only if another follows it.
    assert second.reply.result.reused_tokens >= len(before) - 1


def test_where_care_fires_the_reply_is_the_vetted_text(caring: Callable[..., Service]) -> None:
    service = caring()
    works, heard = works_of(service), Heard()
    terms = Terms(listener=heard)
    answer = service.chat(TEXT, terms)
    assert answer.reply.text == answer.turn.response == VETTED and answer.turn.ids == ()
    assert answer.sentiment.label in ("正面", "负面") and answer.told is None
    assert answer.care is not None and answer.care.fired
    assert heard.events == ["submitted", ("sentiment", True), VETTED]
    assert [type(work) for work in works] == [Classify, Classify]
    assert [(told.task, told.fired) for told in terms.answers] == [("sentiment", False), ("care", True)]


def test_a_text_without_chinese_gets_the_english_one(caring: Callable[..., Service]) -> None:
    assert caring("the room was clean").chat("the room was clean").reply.text == VETTED_EN


def test_where_it_does_not_fire_the_chat_goes_on(caring: Callable[..., Service]) -> None:
    service = caring(fires=False)
    heard = Heard()
    terms = Terms(listener=heard)
    answer = service.chat(TEXT, terms, seed=1)
    assert answer.care is not None and not answer.care.fired
    assert answer.reply.task == "chat" and answer.reply.result.ids
    assert heard.events[:2] == ["submitted", ("sentiment", False)]
    assert [told.task for told in terms.answers] == ["sentiment", "care", "chat"]


def test_a_bound_of_its_own_makes_it_fire_where_the_other_label_is_likelier(start: Start, tmp_path: Path) -> None:
    answered = str(start(write_care(write_prompts(tmp_path / "asked"))).run("care", {"text": TEXT}).label)
    first = OTHER[answered]
    root = write_care(write_prompts(tmp_path / "prompts"), first)
    prompt = (root / "care" / "prompt.md").read_text(encoding="utf-8")
    bound = prompt.replace(f"{{name: {first}}}", f"{{name: {first}, at_least: 0.000001}}")
    (root / "care" / "prompt.md").write_text(bound, encoding="utf-8")
    answer = start(root).chat(TEXT)
    assert answer.care is not None and answer.care.fired and answer.reply.text == VETTED
    assert answer.care.probabilities is not None and answer.care.probabilities[first] < 0.5


def test_a_conversation_goes_on_from_the_vetted_text(caring: Callable[..., Service]) -> None:
    service = caring()
    turn = service.chat(TEXT).turn
    works = works_of(service)
    service._care = None  # the next text is answered, whatever it is
    answer = service.chat("the room was clean", history=[turn], seed=1)
    said = prompt_of_reply(service, works)
    assert f"user\n{TEXT}\nassistant\n{VETTED}\n" in said and answer.reply.result.ids
    assert said.startswith(f"system\n情绪：{turn.told}\n")


def test_it_keeps_the_oldest_turn_of_its_conversation(caring: Callable[..., Service]) -> None:
    service = caring()
    turns = [service.chat(TEXT).turn] * 2
    dropped = [turns[0], replace(turns[1], first=1)]
    assert service.chat(TEXT, history=dropped).turn.first == 1


def test_both_labels_are_asked_before_one_is_waited_for(
    caring: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = caring()
    engine: Any = service.engine
    futures: list[Any] = []
    submit = engine.submit

    def record(work: Any, **options: Any) -> Any:
        ticket = submit(work, **options)
        result = ticket.future.result

        def wait(timeout: float | None = None) -> Any:
            assert len(futures) == 2, "waited for one before both were asked"
            return result(timeout)

        ticket.future.result = wait
        futures.append(ticket.future)
        return ticket

    monkeypatch.setattr(engine, "submit", record)
    service.chat(TEXT)
    assert len(futures) == 2


@pytest.mark.parametrize("known", [(), ("sentiment",), ("care",), ("sentiment", "care")])
def test_what_is_remembered_is_not_computed(caring: Callable[..., Service], known: tuple[str, ...]) -> None:
    service = caring()
    for name in known:
        service.run(name, {"text": TEXT}, Terms(cache=CacheUse()))
    works = works_of(service)
    answer = service.chat(TEXT, Terms(cache=CacheUse()))
    assert answer.care is not None and answer.care.fired
    found = {told.task: told.cache for told in (answer.sentiment, answer.care)}
    assert found == {name: "HIT" if name in known else "MISS" for name in ("sentiment", "care")}
    assert len(works) == 2 - len(known)


def test_a_step_that_fails_is_told_of_both(caring: Callable[..., Service], monkeypatch: pytest.MonkeyPatch) -> None:
    service = caring()

    def fail(*_: object) -> None:
        raise RuntimeError("planted fault")

    terms = Terms()
    with monkeypatch.context() as patch:
        patch.setattr(service.engine.model, "forward", fail)
        with pytest.raises(EngineFailed):
            service.chat(TEXT, terms)
    assert {told.result.finish_reason for told in terms.answers} <= {"unfinished"}
    assert service.chat(TEXT).reply.text == VETTED
