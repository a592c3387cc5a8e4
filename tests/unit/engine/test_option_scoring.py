"""ScoreOptions scores every option of every question as if each were read alone, in full."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from qwen_allinone.engine import Capacity, Engine, Generate, Question, Result, Sampling, ScoreOptions, Ticket
from qwen_allinone.engine.scheduler import Scheduler
from qwen_allinone.engine.slots import SlotTable
from qwen_allinone.engine.step import step
from qwen_allinone.engine.work import FinishReason
from qwen_allinone.errors import Cancelled
from qwen_allinone.model.attention import Chunk
from qwen_allinone.model.config import ModelConfig
from qwen_allinone.model.qwen2 import Qwen2
from qwen_allinone.model.weights import WeightReader
from tests.support.engines import submit
from tests.support.fake_model import loaded

RANDOM = random.Random(3)
SHARED = RANDOM.choices(range(340), k=50)


def ids(count: int) -> tuple[int, ...]:
    return tuple(RANDOM.choices(range(340), k=count))


BEGIN = ids(3)
QUESTIONS = [
    Question(ids(7), ((1,), (2,))),
    Question(ids(1), ((5, 6, 7), (5, 6, 8, 9), (5,), (5, 6), (300, 2))),
    Question(ids(20), tuple(ids(RANDOM.randint(1, 5)) for _ in range(12))),
    Question(ids(4), tuple((*BEGIN, token) for token in range(9))),
    Question(ids(90), (ids(40), ids(3))),
    Question((*BEGIN, 4, 5, 6), ((1,), (2, 3))),
    Question((*BEGIN, 4, 7), ((1, 9), (2,))),
    Question((*BEGIN, 4, 5, 6), ((8,), (2, 3))),  # what another asks too
    Question(BEGIN, ((1, 2), (4,))),  # where others go on
]


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> Qwen2:
    with WeightReader(tiny_checkpoint) as reader:
        return Qwen2(ModelConfig.load(tiny_checkpoint), reader, context=512)


class Bench:
    """A scheduler over the model, moved on by hand."""

    def __init__(self, model: Qwen2, *, slots: int = 2, step_tokens: int = 64, kv_tokens: int = 1024) -> None:
        self.model = model
        self.cache = model.new_cache(slots)
        self.slots = SlotTable(self.cache, slots, kv_tokens)
        self.scheduler = Scheduler(self.slots, step_tokens=step_tokens, longest=512)

    def run(self) -> None:
        while self.scheduler.running or self.scheduler.waiting:
            step(self.model, self.cache, self.scheduler)
            self.slots.check_integrity()


def decide(bench: Bench, shared: Sequence[int] = SHARED, questions: Sequence[Question] = QUESTIONS) -> Result:
    ticket = Ticket(ScoreOptions(shared, questions, 512))
    bench.scheduler.submit(ticket)
    bench.run()
    return ticket.future.result(0)


def alone(model: Qwen2, shared: Sequence[int], question: Question) -> list[float]:
    """The log-probability of each option, read by itself, token for token."""
    scores = []
    for option in question.options:
        total = 0.0
        for depth, token in enumerate(option):
            read = [*shared, *question.ids, *option[:depth]]
            hidden = model.forward([Chunk(0, 0, read)], model.new_cache(1))
            total += float(torch.log_softmax(model.logits(hidden)[0], -1)[token])
        scores.append(total)
    return scores


class _Operations(TorchDispatchMode):
    """Counts operations of torch: at each the engine's thread lets go of the interpreter."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return function(*args, **(kwargs or {}))


def test_more_tokens_and_options_take_no_more_operations_of_torch(model: Qwen2) -> None:
    def operations(count: int) -> int:
        work = ScoreOptions(SHARED, [Question(ids(12), tuple((token, 1) for token in range(count)))], 512)
        with _Operations() as counted:
            chunk = work.chunk(0, len(SHARED), len(work.tokens))
            assert len(chunk.tokens) == 12 + count and len(chunk.wanted) == 1 + count
            work.read(torch.zeros(len(chunk.wanted), 340))
        return counted.count

    assert 0 < operations(200) == operations(2)


@pytest.mark.parametrize("step_tokens", [2, 7, 64, 256])
def test_scores_are_those_of_every_option_alone_however_the_steps_cut_them(model: Qwen2, step_tokens: int) -> None:
    result = decide(Bench(model, step_tokens=step_tokens))
    assert result.finish_reason is FinishReason.LABEL
    for question, scores in zip(QUESTIONS, result.scores, strict=True):
        assert scores == pytest.approx(alone(model, SHARED, question), abs=1e-3)
    assert result.prompt_tokens == len(SHARED) + sum(len(question.ids) for question in QUESTIONS)
    assert result.ids == (), "nothing is generated"


def test_the_text_is_computed_once_and_whole_options_are_not_computed(
    model: Qwen2, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, computed = Bench(model, step_tokens=256), list[Chunk]()
    forward = Qwen2.forward
    monkeypatch.setattr(
        Qwen2, "forward", lambda self, chunks, cache: computed.extend(chunks) or forward(self, chunks, cache)
    )
    questions = [Question((n, *ids(4)), ((1,), (2,), (3,))) for n in range(100)]
    decide(bench, questions=questions)
    assert sum(len(chunk.tokens) for chunk in computed) == len(SHARED) + 100 * 5
    assert len(computed) <= 4, "many questions share a forward pass"
    computed.clear()
    assert decide(bench, questions=questions).reused_tokens >= len(SHARED) - 1
    assert sum(len(chunk.tokens) for chunk in computed) <= 1 + 100 * 5
    computed.clear()
    alike = [Question((*BEGIN, n, 7), ((1,), (2, 3))) for n in range(50)]
    RANDOM.shuffle(alike)
    decide(bench, questions=alike)
    assert sum(len(chunk.tokens) for chunk in computed) <= 1 + len(BEGIN) + 50 * 3, "they begin alike: read once"


def test_what_questions_leave_in_a_slot_is_nobodys_beginning(model: Qwen2) -> None:
    """A later prompt that reads like the questions' tokens in a row must not find their keys and values."""
    bench = Bench(model, slots=1, step_tokens=256)
    decide(bench)
    work = ScoreOptions(SHARED, QUESTIONS, 512)
    prompt = work.tokens[: len(SHARED) + 40]
    assert len(work.sequence) < len(prompt)
    for questions in ([Question(tuple(prompt[len(SHARED) :]), ((1,), (2, 3)))], QUESTIONS[1:3]):
        result = decide(bench, questions=questions)
        for question, scores in zip(questions, result.scores, strict=True):
            assert scores == pytest.approx(alone(model, SHARED, question), abs=1e-3)
    ticket, fresh = (
        Ticket(Generate(prompt, Sampling(5), frozenset())),
        Ticket(Generate(prompt, Sampling(5), frozenset())),
    )
    bench.scheduler.submit(ticket)
    bench.run()
    other = Bench(model, slots=1)
    other.scheduler.submit(fresh)
    other.run()
    assert ticket.future.result(0).ids == fresh.future.result(0).ids
    assert ticket.future.result(0).reused_tokens <= len(work.sequence)


@pytest.fixture(scope="module")
def engine(model: Qwen2) -> Iterator[Engine]:
    made = Engine(lambda: loaded(model), Capacity(slots=3, step_tokens=48, kv_tokens=2048))
    made.start()
    made.wait_until_settled(30)
    yield made
    made.stop()


def test_beside_other_requests_everybody_gets_what_he_gets_alone(engine: Engine, model: Qwen2) -> None:
    replies = [submit(engine, Generate(SHARED[:9] + [n], Sampling(20), frozenset())) for n in range(4)]
    decided = [submit(engine, ScoreOptions(SHARED, QUESTIONS, 512)) for _ in range(2)]
    later = [submit(engine, Generate(SHARED[:9] + [n], Sampling(20), frozenset())) for n in range(4)]
    for ticket in decided:
        for question, scores in zip(QUESTIONS, ticket.future.result(60).scores, strict=True):
            assert scores == pytest.approx(alone(model, SHARED, question), abs=1e-3)
    assert [t.future.result(60).ids for t in replies] == [t.future.result(60).ids for t in later]


def test_many_questions_can_be_given_up_and_leave_nothing_wrong_behind(engine: Engine, model: Qwen2) -> None:
    ticket = submit(engine, ScoreOptions(SHARED, QUESTIONS * 80, 512))
    while not ticket.started:
        assert not ticket.future.done()
    ticket.cancel()
    with pytest.raises(Cancelled):
        ticket.future.result(60)
    result = submit(engine, ScoreOptions(SHARED, QUESTIONS[:2], 512)).future.result(60)
    assert result.scores[1] == pytest.approx(alone(model, SHARED, QUESTIONS[1]), abs=1e-3)


@pytest.mark.parametrize(("question", "options"), [((), ((1,),)), ((1,), ()), ((1,), ((1,), ()))])
def test_a_question_without_tokens_is_none(question: tuple[int, ...], options: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ValueError, match="needs tokens"):
        ScoreOptions((1,), [Question(question, options)], 512)


def test_a_round_keeps_within_the_slot() -> None:
    questions = [Question((n, *ids(29)), ((1,), (2,))) for n in range(20)]
    assert ScoreOptions(SHARED, questions, 512).most_tokens <= len(SHARED) + 256
    assert ScoreOptions(SHARED, questions, 100).most_tokens == len(SHARED) + 30
    long = Question(ids(30), ((1,), ids(15)))
    assert ScoreOptions(SHARED, [long], 100).most_tokens == len(SHARED) + long.longest
    beyond = Question(ids(4), (ids(60), ids(3)))
    assert ScoreOptions(SHARED, [beyond], 80).most_tokens == len(SHARED) + beyond.longest, "no part can be shorter"


@pytest.mark.parametrize("longest", [75, 100, 512])
def test_options_that_do_not_fit_together_are_scored_in_parts(model: Qwen2, longest: int) -> None:
    many = Question(ids(12), tuple((*BEGIN[: n % 3], *ids(1 + n % 9)) for n in range(60)))
    work = ScoreOptions(SHARED, [QUESTIONS[1], many, QUESTIONS[0]], longest)
    assert work.most_tokens <= longest
    bench = Bench(model, step_tokens=256)
    ticket = Ticket(work)
    bench.scheduler.submit(ticket)
    bench.run()
    for question, scores in zip([QUESTIONS[1], many, QUESTIONS[0]], ticket.future.result(0).scores, strict=True):
        assert scores == pytest.approx(alone(model, SHARED, question), abs=1e-3)
