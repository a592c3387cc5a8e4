"""The service on a tiny checkpoint with random weights: what goes in, what comes out, and what is refused."""

from __future__ import annotations

import gc
import logging
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qwen_allinone import bootstrap
from qwen_allinone.bootstrap import build_service
from qwen_allinone.engine import Classify, Generate, Status
from qwen_allinone.errors import (
    DeadlineExceeded,
    EmptyInput,
    EngineFailed,
    InputTooLong,
    InvalidInput,
    NotReady,
    TaskFileError,
    UnknownTask,
)
from qwen_allinone.model import checkpoint
from qwen_allinone.service import Service, Terms
from qwen_allinone.service.codec import fit, fixed_prefix
from qwen_allinone.settings import Settings
from qwen_allinone.tasks import Registry, items_of
from tests.support.engines import idle_engine
from tests.support.tasks import CHAT, KEYWORDS, ROUTE, SENTIMENT, abstaining, write_prompts

WAIT = 30.0

Start = Callable[..., Service]


@pytest.fixture(scope="module")
def begin() -> Iterator[Start]:
    """Starts services and stops them at the end."""
    services: list[Service] = []

    def start(model: Path, prompts: Path, *, ready: bool = True, **settings: object) -> Service:
        given: dict[str, Any] = {
            "model": str(model),
            "prompts": prompts,
            "context": 256,
            "kv_tokens": 1024,
            "slots": 4,
            "threads": 1,
        }
        service = build_service(Settings(**(given | settings)))
        services.append(service)
        if ready:
            assert service.engine.wait_until_settled(WAIT) is Status.READY, service.engine.problem
        return service

    yield start
    for service in services:
        service.engine.stop()


@pytest.fixture(scope="module")
def service(begin: Start, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Service:
    return begin(tiny_checkpoint, write_prompts(tmp_path_factory.mktemp("tasks") / "prompts"))


@pytest.fixture
def submitted(service: Service, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The work handed to the engine during a test."""
    works: list[Any] = []
    submit = service.engine.submit

    def record(work: Any, **options: Any) -> Any:
        works.append(work)
        return submit(work, **options)

    monkeypatch.setattr(service.engine, "submit", record)
    return works


def test_a_label_task_answers_with_a_label_and_all_probabilities(service: Service) -> None:
    answer = service.run("sentiment", {"text": "今天很开心"})
    assert answer.task == "sentiment" and answer.text == ""
    assert answer.probabilities is not None and set(answer.probabilities) == {"正面", "负面"}
    assert sum(answer.probabilities.values()) == pytest.approx(1.0, abs=1e-5)
    assert answer.label == max(answer.probabilities, key=answer.probabilities.__getitem__)
    assert answer.emoji == {"正面": "😄", "负面": "😢"}[str(answer.label)]
    assert answer.result.finish_reason == "label"


def test_the_answer_depends_on_the_text(service: Service) -> None:
    answers = [service.run("sentiment", {"text": text}) for text in ("今天很开心", "the room was clean", "今天很开心")]
    assert answers[0].probabilities == pytest.approx(answers[2].probabilities, abs=1e-4)
    assert answers[0].probabilities != pytest.approx(answers[1].probabilities, abs=1e-2)


def test_a_text_task_answers_with_text_that_its_seed_repeats(service: Service) -> None:
    inputs = {"text": "今天很开心", "sentiment": "正面"}
    answers = [service.run("chat", inputs, seed=seed) for seed in (3, 3, 4, 5, 6)]
    assert answers[0].text == answers[1].text
    assert len({answer.text for answer in answers}) > 1
    assert answers[0].label is None and answers[0].probabilities is None
    assert 1 <= len(answers[0].result.ids) <= 12


def test_a_reply_has_no_blanks_around_it_and_no_half_character(service: Service) -> None:
    for seed in range(20):
        text = service.run("chat", {"text": "今天", "sentiment": "正面"}, seed=seed).text
        assert text == text.strip() and not text.endswith("\ufffd")


@pytest.fixture(scope="module")
def routing(begin: Start, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Service:
    prompts = write_prompts(tmp_path_factory.mktemp("tasks") / "prompts", keywords=KEYWORDS, route=ROUTE)
    return begin(tiny_checkpoint, prompts)


def test_a_list_task_answers_with_the_items_of_its_text(routing: Service) -> None:
    answer = routing.run("keywords", {"text": "今天很开心"})
    assert answer.items == items_of(answer.text, 3) and answer.label is None
    assert routing.run("sentiment", {"text": "今天很开心"}).items is None


def test_a_route_is_the_task_it_picks_on_the_same_text(routing: Service) -> None:
    targets = {"情感": "sentiment", "keywords": "keywords"}
    texts = ["今天很开心", "the room was clean", "好", "负面", "I like it", "天气", "酒店的早餐"]
    for text in texts:
        routed = routing.route(text)
        alone = routing.run(targets[str(routed.choice.label)], {"text": text})
        assert routed.choice.label == routing.run("route", {"text": text}).label
        assert (routed.answer.task, routed.answer.label, routed.answer.items, routed.answer.text) == (
            alone.task,
            alone.label,
            alone.items,
            alone.text,
        )


def test_a_route_takes_one_place_for_both_steps(routing: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    permits, used = [], []
    admit, submit = routing.engine.admit, routing.engine.submit

    def count(*given: Any, **named: Any) -> Any:
        permits.append(given)
        return admit(*given, **named)

    def record(work: Any, **options: Any) -> Any:
        used.append(options["permit"])
        return submit(work, **options)

    monkeypatch.setattr(routing.engine, "admit", count)
    monkeypatch.setattr(routing.engine, "submit", record)
    routing.route("今天很开心")
    assert len(permits) == 1 and len(used) == 2 and used[0] is used[1]


def test_a_route_needs_its_task(service: Service) -> None:
    with pytest.raises(UnknownTask, match="route"):
        service.route("今天很开心")


def test_a_route_refuses_an_empty_text(routing: Service) -> None:
    with pytest.raises(EmptyInput):
        routing.route(" \n")


def test_chat_passes_the_label_to_the_reply(service: Service, submitted: list[Any]) -> None:
    for text in ("今天很开心", "the room was clean", "负面"):
        submitted.clear()
        answer = service.chat(text, seed=1)
        label = answer.sentiment.label
        sentiment, reply = submitted
        assert isinstance(sentiment, Classify) and isinstance(reply, Generate)
        decode = service.codec.tokenizer.decode
        assert decode(reply.prompt) == f"system\n情绪：{label}\nuser\n{text}\nassistant\n"
        assert decode(sentiment.prompt) == f"判断情感。\n输入：{text}\n情感："
        assert answer.sentiment.task == "sentiment" and answer.reply.task == "chat"


def test_chat_passes_the_abstain_label_as_well(begin: Start, tiny_checkpoint: Path, tmp_path: Path) -> None:
    service = begin(tiny_checkpoint, write_prompts(tmp_path / "prompts", sentiment=abstaining()))
    answer = service.chat("今天很开心", seed=1)
    assert answer.sentiment.label == "说不准" and answer.sentiment.emoji is None
    assert answer.sentiment.probabilities is not None and set(answer.sentiment.probabilities) == {"正面", "负面"}
    again = service.run("chat", {"text": "今天很开心", "sentiment": "说不准"}, seed=1)
    assert again.text == answer.reply.text


def test_chat_leaves_out_a_label_its_prompt_does_not_ask_for(
    begin: Start, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    chat = CHAT.replace("  sentiment: {max_tokens: 16}\n", "").replace("：$sentiment", "不明")
    service = begin(tiny_checkpoint, write_prompts(tmp_path / "prompts", chat=chat))
    assert service.chat("今天很开心", seed=1).sentiment.label in {"正面", "负面"}


def test_only_the_task_that_asks_for_it_gets_clean_text(service: Service, submitted: list[Any]) -> None:
    service.chat("ＯＫ！！！！\u200b", seed=1)
    prompts = [service.codec.tokenizer.decode(work.prompt) for work in submitted]
    assert "输入：OK!!\n" in prompts[0]
    assert "user\nＯＫ！！！！\u200b\n" in prompts[1]


def test_control_tokens_in_a_text_stay_text(service: Service, submitted: list[Any]) -> None:
    text = "好<|im_end|>"
    service.run("chat", {"text": text, "sentiment": "正面"}, seed=1)
    prompt, tokenizer = submitted[0].prompt, service.codec.tokenizer
    assert sum(token in tokenizer.control_ids for token in prompt) == 5
    assert f"user\n{text}\n" in tokenizer.decode(prompt)


def test_the_fixed_beginning_of_a_prompt_is_never_computed_again(service: Service) -> None:
    sentiment = service.run("sentiment", {"text": "今天"})
    chat = service.run("chat", {"text": "今天", "sentiment": "正面"})
    for answer in (sentiment, chat):
        prefix = fixed_prefix(service.codec.tasks[answer.task])
        assert len(prefix) >= 5
        assert answer.result.reused_tokens >= len(prefix)


REFUSED = {
    "nothing": ("", EmptyInput, "empty_input"),
    "blanks": (" \n\t\u3000", EmptyInput, "empty_input"),
    "nothing that can be seen": ("\u200b\u202e\x00\ufeff", EmptyInput, "empty_input"),
    "a lone surrogate": ("好\ud83d", InvalidInput, "invalid_input"),
    "more tokens than the task takes": ("room clean " * 30, InputTooLong, "input_too_long"),
    "more characters than tokens can be": ("x" * 641, InputTooLong, "input_too_long"),
    "a million characters": ("好" * 1_000_000, InputTooLong, "input_too_long"),
    "characters that become eighteen": ("\ufdfa" * 640, InputTooLong, "input_too_long"),
}


@pytest.mark.parametrize(("text", "error", "code"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("task", ["sentiment", "chat"])
def test_a_text_that_cannot_be_used_is_refused_within_a_second(
    service: Service, submitted: list[Any], task: str, text: str, error: type[InvalidInput], code: str
) -> None:
    inputs = {"text": text} if task == "sentiment" else {"text": text, "sentiment": "正面"}
    began = time.thread_time()
    with pytest.raises(error) as caught:
        service.run(task, inputs)
    assert time.thread_time() - began < 1.0
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, code, "text")
    assert type(caught.value) is error and submitted == []


@pytest.mark.parametrize("mark", ["\u0301", "\u0315\u0300\u05ae", "\u200d", "👨\u200d"])
def test_ten_thousand_hostile_characters_are_answered_or_refused_within_a_second(service: Service, mark: str) -> None:
    began = time.thread_time()
    with pytest.raises(InvalidInput):
        service.run("sentiment", {"text": mark * (10_000 // len(mark))})
    assert time.thread_time() - began < 1.0


def test_a_text_of_just_the_tokens_allowed_is_taken(service: Service) -> None:
    tokenizer = service.codec.tokenizer
    text = "a" * 40
    count = len(tokenizer.encode(text))
    while count < 40:
        text += "a"
        count = len(tokenizer.encode(text))
    assert count == 40 and service.run("sentiment", {"text": text}).label
    with pytest.raises(InputTooLong, match="41 个 token），最多 40"):
        service.run("sentiment", {"text": text + "!"})


def test_the_input_at_fault_is_named(service: Service) -> None:
    with pytest.raises(EmptyInput) as caught:
        service.run("chat", {"text": "好", "sentiment": " "})
    assert caught.value.param == "sentiment"


def test_an_unknown_task_is_refused(service: Service) -> None:
    with pytest.raises(UnknownTask, match="chat、sentiment"):
        service.run("poem", {"text": "好"})


@pytest.mark.parametrize("deadline_s", [1e-9, 0.001])
def test_a_chat_past_its_deadline_says_so(service: Service, deadline_s: float) -> None:
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded) as caught:
        service.chat("今天很开心", Terms(deadline_s=deadline_s))
    assert caught.value.status == 504 and time.monotonic() - began < 5
    assert service.chat("今天很开心", Terms(deadline_s=20)).reply.task == "chat"


def test_no_caller_may_wait_longer_than_the_service_allows(begin: Start, tiny_checkpoint: Path, tmp_path: Path) -> None:
    service = begin(tiny_checkpoint, write_prompts(tmp_path / "prompts"), deadline_s=0.001)
    with pytest.raises(DeadlineExceeded):
        service.chat("今天很开心", Terms(deadline_s=1000))


def test_an_engine_that_hangs_does_not_hang_its_callers(
    begin: Start, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = begin(tiny_checkpoint, write_prompts(tmp_path / "prompts"))
    model: Any = service.engine.model
    forward, ended = model.forward, threading.Event()
    monkeypatch.setattr("qwen_allinone.service.request._GRACE_S", 0.05)
    monkeypatch.setattr(model, "forward", lambda *given: ended.wait(60) and forward(*given))
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        service.run("sentiment", {"text": "今天"}, Terms(deadline_s=0.1))
    assert time.monotonic() - began < 30
    ended.set()


def test_a_step_that_fails_is_the_answer_of_that_request_only(
    begin: Start, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = begin(tiny_checkpoint, write_prompts(tmp_path / "prompts"))

    def fail(*_: object) -> None:
        raise RuntimeError("planted fault")

    with monkeypatch.context() as patch:
        patch.setattr(service.engine.model, "forward", fail)
        with pytest.raises(EngineFailed) as caught:
            service.chat("今天很开心")
    assert caught.value.status == 500
    assert service.chat("今天很开心").sentiment.label in {"正面", "负面"}


def test_nothing_is_answered_before_the_model_is_ready(begin: Start, tmp_path: Path) -> None:
    service = begin(tmp_path / "no_model", write_prompts(tmp_path / "prompts"), ready=False)
    assert service.engine.wait_until_settled(WAIT) is Status.FAILED
    assert "no_model does not exist" in service.engine.problem and "Three ways out" in service.engine.problem
    with pytest.raises(NotReady) as caught:
        service.chat("今天很开心")
    assert (caught.value.status, caught.value.retry_after) == (503, 5)
    with pytest.raises(NotReady):
        _ = service.codec


def test_nothing_is_answered_after_the_engine_stopped(begin: Start, tiny_checkpoint: Path, tmp_path: Path) -> None:
    service = begin(tiny_checkpoint, write_prompts(tmp_path / "prompts"))
    service.engine.stop()
    with pytest.raises(NotReady):
        service.run("sentiment", {"text": "今天"})


def test_a_reload_holds_one_model_at_a_time(
    begin: Start, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the engine nor the service keeps the old model while the new one is read."""
    # pytest keeps log records, and those keep tracebacks, which keep the model.
    monkeypatch.setattr(logging.getLogger("qwen_allinone.engine.engine"), "disabled", True)
    service = begin(tiny_checkpoint, write_prompts(tmp_path / "prompts"))
    old = weakref.ref(service.engine.model)
    alive: list[bool] = []
    load = checkpoint.load

    def watched(*given: Any) -> Any:
        gc.collect()
        alive.append(old() is not None)
        return load(*given)

    def fail(*_: object) -> None:
        raise RuntimeError("planted fault")

    monkeypatch.setattr(bootstrap.checkpoint, "load", watched)
    service.engine.model.forward = fail  # type: ignore[method-assign]
    for _ in range(3):
        with pytest.raises(EngineFailed):
            service.run("sentiment", {"text": "今天"})
    ends = time.monotonic() + WAIT
    while service.engine.status is not Status.READY or not alive:
        assert time.monotonic() < ends
        time.sleep(0.01)
    assert alive == [False]
    assert service.run("sentiment", {"text": "今天"}).label in {"正面", "负面"}


UNSUITED = {
    "no sentiment task": ({"sentiment": None}, "sentiment/prompt.md", "/chat"),
    "no chat task": ({"chat": None}, "chat/prompt.md", "/chat"),
    "a sentiment task of free text": ({"sentiment": CHAT}, "sentiment/prompt.md", "kind: label"),
    "a chat task of labels": ({"chat": SENTIMENT}, "chat/prompt.md", "kind: text"),
    "a sentiment task that asks for more": (
        {"sentiment": SENTIMENT.replace("{text: {max_tokens: 40}}", "{text: {max_tokens: 40}, mood: {max_tokens: 4}}").replace("$text", "$text $mood")},
        "sentiment/prompt.md",
        "only text",
    ),
    "a chat task without text": (
        {"chat": CHAT.replace("  text: {max_tokens: 40}\n", "").replace("$text", "你好")},
        "chat/prompt.md",
        "sentiment, text",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("tasks", "file", "word"), UNSUITED.values(), ids=UNSUITED)
def test_tasks_that_cannot_make_a_chat_stop_startup(
    tmp_path: Path, tasks: dict[str, str | None], file: str, word: str
) -> None:
    registry = Registry.load(write_prompts(tmp_path / "prompts", **tasks))
    with pytest.raises(TaskFileError) as caught:
        Service(registry, idle_engine(), deadline_s=1.0)
    assert file in str(caught.value) and word in str(caught.value) and ". Fix: " in str(caught.value)


UNFIT = {
    "a label of more tokens than may be decoded": (SENTIMENT.replace("max_new_tokens: 8", "max_new_tokens: 3").replace("name: 负面", "name: 龘龘龘"), ["'龘龘龘'", "9 tokens", "max_new_tokens is 3"]),
    "labels that are the same tokens": (SENTIMENT.replace("name: 负面", "name: é").replace("name: 正面", "name: e\u0301"), ["output.labels"]),
    "a label that begins another once normalised": (SENTIMENT.replace("name: 负面", "name: éa").replace("name: 正面", "name: e\u0301"), ["output.labels"]),
    "a prompt longer than the context": (SENTIMENT.replace("判断情感。", "判断情感。龘" * 100), ["sentiment", "256"]),
}  # fmt: skip


@pytest.mark.parametrize(("prompt", "words"), UNFIT.values(), ids=UNFIT)
def test_a_task_that_does_not_fit_the_model_keeps_the_service_from_getting_ready(
    begin: Start, tiny_checkpoint: Path, tmp_path: Path, prompt: str, words: list[str]
) -> None:
    service = begin(tiny_checkpoint, write_prompts(tmp_path / "prompts", sentiment=prompt), ready=False)
    assert service.engine.wait_until_settled(WAIT) is Status.FAILED
    for word in ["prompt.md", ". Fix: ", *words]:
        assert word in service.engine.problem
    with pytest.raises(NotReady):
        service.chat("好")


def test_a_label_that_does_not_fit_is_a_task_file_error(tiny_checkpoint: Path, tmp_path: Path) -> None:
    prompt = next(iter(UNFIT.values()))[0]
    registry = Registry.load(write_prompts(tmp_path / "prompts", sentiment=prompt))
    with pytest.raises(TaskFileError) as caught:
        fit(registry, checkpoint.load(str(tiny_checkpoint), "main", "fp32", 256), "tiny", "tiny")
    assert caught.value.file == Path("sentiment/prompt.md") and caught.value.key == "output.labels"


def test_a_context_too_small_is_told_with_the_one_that_does_for_all_tasks(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    longer = CHAT.replace("user: $text", "user: " + "龘" * 20 + "$text")
    registry = Registry.load(write_prompts(tmp_path / "prompts", chat=longer))

    def loaded(context: int) -> None:
        fit(registry, checkpoint.load(str(tiny_checkpoint), "main", "fp32", context), "tiny", "tiny")

    with pytest.raises(TaskFileError, match=r"raise QAIO_CONTEXT: from \d+ on all tasks fit") as caught:
        loaded(16)
    enough = int(re.findall(r"from (\d+) on", str(caught.value))[0])
    loaded(enough)
    with pytest.raises(TaskFileError, match=f"from {enough} on"):
        loaded(enough - 1)


def test_a_chat_task_needs_a_chat_template(begin: Start, tiny_checkpoint: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(tiny_checkpoint, folder)
    (folder / "tokenizer_config.json").unlink()
    service = begin(folder, write_prompts(tmp_path / "prompts"), ready=False)
    assert service.engine.wait_until_settled(WAIT) is Status.FAILED
    assert "no chat template" in service.engine.problem


def test_the_tasks_that_ship_run_on_a_checkpoint(begin: Start, demo_checkpoint: Path, prompts_folder: Path) -> None:
    service = begin(demo_checkpoint, prompts_folder, context=512)
    answer = service.chat("今天很开心", seed=1)
    assert answer.sentiment.label in {"正面", "负面"}
    assert len(answer.reply.result.ids) > 0
    for task in service.registry:
        if set(task.spec.inputs) == {"text"}:
            told = service.run(task.name, {"text": "今天很开心"})
            assert told.label in task.labels if task.labels else told.result.ids
