"""The engine against the slow reference: transformers, greedy, one request at a time, token for token.

The reference recomputes nothing cleverly: no slots, no chunks, no batch, no reuse. Alone or among others, the
engine must say the same.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from qwen_allinone.engine import Capacity, Classify, Embed, Engine, Generate, LabelTrie, Sampling, Status
from qwen_allinone.model import checkpoint
from qwen_allinone.model.checkpoint import Checkpoint
from qwen_allinone.tasks import Chat, Completion
from tests.support import reference
from tests.support.engines import submit
from tests.support.fake_model import loaded as loaded_with

WAIT = 100.0
# Small steps and few slots: prompts are cut into chunks, and sixteen requests take turns.
CAPACITY = Capacity(threads=1, slots=5, kv_tokens=1200, step_tokens=16, max_waiting=32)
# Labels of several kinds: one token, different first tokens, shared first tokens.
LABELS = (("正面", "负面"), ("说不清", "说不准"), ("positive", "negative", "中性", "说不清", "说不准"))
TEXTS = (
    "今天天气很好，我很开心。",
    "等了两个小时没人理我，再也不买了",
    "the room was clean and the staff were friendly",
    "说不清，说不准。",
    "中性",
    "虽然价格贵了点，但是用起来真的省心，推荐给大家。" * 2,
)


@dataclass(frozen=True)
class Subject:
    """A checkpoint, loaded by us, and how to start an engine on it."""

    checkpoint: Checkpoint
    start: Callable[..., Engine]

    def prompt(self, text: str, chat: bool) -> list[int]:
        """The ids of a prompt around `text`."""
        if chat:
            rendered: Chat | Completion = Chat((("system", "你是一位温暖的聊天伙伴。"), ("user", text)))
        else:
            rendered = Completion(f"判断情感，只回答“正面”或“负面”。\n输入：{text}\n情感：")
        return self.checkpoint.tokenizer.encode_rendered(rendered)

    def labels(self, names: Sequence[str]) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(self.checkpoint.tokenizer.encode(name)) for name in names)

    def reply(self, prompt: Sequence[int], count: int) -> tuple[int, ...]:
        """What transformers says."""
        return reference.greedy(self.checkpoint.folder, prompt, count, self.checkpoint.stop_ids)

    def probabilities(self, prompt: Sequence[int], names: Sequence[str]) -> list[float]:
        return reference.label_probabilities(self.checkpoint.folder, prompt, self.labels(names))

    def generate(self, prompt: Sequence[int], count: int) -> Generate:
        return Generate(prompt, Sampling(max_new_tokens=count), self.checkpoint.stop_ids)

    def classify(self, prompt: Sequence[int], names: Sequence[str]) -> Classify:
        return Classify(prompt, LabelTrie(self.labels(names)))


@pytest.fixture(scope="module", params=["tiny_checkpoint", "untied_checkpoint", "demo_checkpoint"])
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    loaded = checkpoint.load(str(request.getfixturevalue(request.param)), "main", "fp32", 384)
    engines: list[Engine] = []

    def start(capacity: Capacity = CAPACITY, prefixes: Sequence[Sequence[int]] = ()) -> Engine:
        engine = Engine(lambda: loaded_with(loaded.model, prefixes), capacity)
        engines.append(engine)
        engine.start()
        assert engine.wait_until_settled(WAIT) is Status.READY
        return engine

    yield Subject(loaded, start)
    for engine in engines:
        engine.stop()


@pytest.mark.parametrize("chat", [True, False], ids=["chat", "completion"])
def test_alone_a_reply_is_that_of_transformers_token_for_token(subject: Subject, chat: bool) -> None:
    engine = subject.start()
    for text in TEXTS:
        prompt = subject.prompt(text, chat)
        result = submit(engine, subject.generate(prompt, 24)).future.result(WAIT)
        assert result.ids == subject.reply(prompt, 24), text


def test_a_reply_ends_where_transformers_ends_it(subject: Subject) -> None:
    """A random model seldom stops by itself: make a token of its reply a stop token."""
    engine = subject.start()
    prompt = subject.prompt(TEXTS[0], chat=True)
    reply = subject.reply(prompt, 24)
    stop = frozenset({reply[len(reply) // 2]}) | subject.checkpoint.stop_ids
    expected = reference.greedy(subject.checkpoint.folder, prompt, 24, stop)
    work = Generate(prompt, Sampling(max_new_tokens=24), stop)
    assert submit(engine, work).future.result(WAIT).ids == expected


@pytest.mark.parametrize("names", LABELS, ids="/".join)
def test_labels_have_the_probabilities_of_transformers(subject: Subject, names: tuple[str, ...]) -> None:
    engine = subject.start()
    for text in TEXTS:
        prompt = subject.prompt(text, chat=False)
        result = submit(engine, subject.classify(prompt, names)).future.result(WAIT)
        assert result.probabilities == pytest.approx(subject.probabilities(prompt, names), abs=1e-4), text


@pytest.mark.parametrize("names", LABELS, ids="/".join)
def test_the_mass_of_labels_is_their_first_tokens_share_with_transformers(
    subject: Subject, names: tuple[str, ...]
) -> None:
    engine = subject.start()
    first = sorted({label[0] for label in subject.labels(names)})
    for text in TEXTS:
        prompt = subject.prompt(text, chat=False)
        expected = float(reference.logits(subject.checkpoint.folder, prompt)[-1].double().softmax(-1)[first].sum())
        work = Classify(prompt, LabelTrie(subject.labels(names)), wants_mass=True)
        result = submit(engine, work).future.result(WAIT)
        assert result.label_mass == pytest.approx(expected, rel=1e-3), text
        assert result.probabilities == pytest.approx(subject.probabilities(prompt, names), abs=1e-4), text


def test_an_embedding_is_the_last_state_of_transformers(subject: Subject) -> None:
    with_engine = subject.start()
    for text in TEXTS:
        prompt = subject.prompt(text, chat=False)
        vector = torch.tensor(submit(with_engine, Embed(prompt)).future.result(WAIT).vector)
        assert torch.allclose(vector, reference.last_state(subject.checkpoint.folder, prompt), atol=2e-4)


def test_the_label_is_the_argmax_of_transformers_over_the_allowed_tokens(subject: Subject) -> None:
    engine = subject.start()
    for names in LABELS:
        labels = subject.labels(names)
        for text in TEXTS:
            prompt = subject.prompt(text, chat=False)
            path: tuple[int, ...] = ()
            while path not in labels:
                allowed = sorted({label[len(path)] for label in labels if label[: len(path)] == path})
                scores = reference.logits(subject.checkpoint.folder, [*prompt, *path])[-1, allowed]
                path += (allowed[int(scores.argmax())],)
            result = submit(engine, subject.classify(prompt, names)).future.result(WAIT)
            assert (result.ids, result.label) == (path, labels.index(path)), text


@pytest.mark.parametrize(
    "capacity", [CAPACITY, Capacity(1, slots=16, kv_tokens=6144, step_tokens=64)], ids=["few slots", "all at once"]
)
def test_sixteen_at_once_each_get_what_they_get_alone(subject: Subject, capacity: Capacity) -> None:
    """Texts and labels, chats and completions, of different lengths, handed in by sixteen threads."""
    rng = random.Random(0)
    engine = subject.start(capacity)
    wanted = []
    for number in range(16):
        prompt = subject.prompt(rng.choice(TEXTS) * rng.randint(1, 2), chat=bool(number % 2))
        if number % 4 == 0:
            wanted.append((prompt, 0, LABELS[number // 4 % 3]))
        else:
            wanted.append((prompt, rng.randint(1, 30), ()))

    def ask(prompt: list[int], count: int, names: tuple[str, ...]) -> object:
        work = subject.classify(prompt, names) if names else subject.generate(prompt, count)
        result = submit(engine, work).future.result(WAIT)
        return list(result.probabilities) if names else result.ids

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, *zip(*wanted, strict=True)))
    for (prompt, count, names), answer in zip(wanted, answers, strict=True):
        if names:
            assert answer == pytest.approx(subject.probabilities(prompt, names), abs=1e-4)
        else:
            assert answer == subject.reply(prompt, count)


def test_a_reused_beginning_changes_nothing(subject: Subject) -> None:
    """A fixed prefix copied in, a conversation's next turn in its own slot, and a beginning that fits only partly."""
    fixed = subject.prompt("", chat=True)[:8]
    engine = subject.start(prefixes=[fixed])
    history = subject.prompt(TEXTS[0], chat=True)
    first = submit(engine, subject.generate(history, 12)).future.result(WAIT)
    assert first.reused_tokens == len(fixed)
    assert first.ids == subject.reply(history, 12)
    longer = [*history, *first.ids, *subject.checkpoint.tokenizer.encode("再说一句")]
    second = submit(engine, subject.generate(longer, 12)).future.result(WAIT)
    assert second.reused_tokens >= len(history)
    assert second.ids == subject.reply(longer, 12)
    other = [*history[:-3], *subject.checkpoint.tokenizer.encode("别的")]
    third = submit(engine, subject.generate(other, 12)).future.result(WAIT)
    assert third.reused_tokens >= len(history) - 3
    assert third.ids == subject.reply(other, 12)


def test_a_label_after_a_reply_in_the_same_slot_is_unharmed(subject: Subject) -> None:
    """With one slot everything shares it: rewinds, reuse and labels that branch."""
    engine = subject.start(Capacity(threads=1, slots=1, kv_tokens=384, step_tokens=16, max_waiting=32))
    for text in TEXTS[:3]:
        prompt = subject.prompt(text, chat=False)
        for names in LABELS:
            result = submit(engine, subject.classify(prompt, names)).future.result(WAIT)
            assert result.probabilities == pytest.approx(subject.probabilities(prompt, names), abs=1e-4)
        assert submit(engine, subject.generate(prompt, 8)).future.result(WAIT).ids == subject.reply(prompt, 8)


def test_half_size_weights_give_the_same_replies_from_a_bf16_checkpoint(demo_checkpoint: Path) -> None:
    loaded = checkpoint.load(str(demo_checkpoint), "main", "fp16", 384)
    if loaded.model.kernel != "fbgemm-fp16":
        pytest.skip("this CPU has no FBGEMM")
    engine = Engine(lambda: loaded_with(loaded.model), CAPACITY)
    subject = Subject(loaded, lambda: engine)
    engine.start()
    try:
        assert engine.wait_until_settled(WAIT) is Status.READY
        for text in TEXTS:
            prompt = subject.prompt(text, chat=True)
            result = submit(engine, subject.generate(prompt, 16)).future.result(WAIT)
            assert result.ids == subject.reply(prompt, 16), text
    finally:
        engine.stop()
