"""Drafts: what is guessed, that it changes no reply and no slot, and that it ends where it does not pay."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qwen_allinone.engine import Capacity, Classify, FinishReason, Form, Generate, LabelTrie, Result, Sampling, Ticket
from qwen_allinone.engine.drafts import MOST_ROWS, MOST_TOKENS, Drafter, Drafting, price_of_a_row
from qwen_allinone.engine.scheduler import Scheduler
from qwen_allinone.engine.slots import SlotTable
from qwen_allinone.engine.step import step
from qwen_allinone.engine.work import Work
from qwen_allinone.json_schema import grammar_of
from qwen_allinone.model import checkpoint
from qwen_allinone.model.attention import Chunk
from qwen_allinone.model.linear import Kernels
from qwen_allinone.model.lora import load_adapter
from qwen_allinone.model.native import library as native
from qwen_allinone.model.qwen2 import Qwen2
from qwen_allinone.service.grammar_forms import Forms
from qwen_allinone.tasks.adapter_files import load_adapter_files
from tests.support.adapters import write_adapter
from tests.support.checkpoints import Shape, write_checkpoint
from tests.support.engines import submit
from tests.support.fake_model import VOCABULARY, Bench, FakeModel, generate, loaded
from tests.unit.engine.running import WAIT, Start

CHEAP = Drafting(0.05)
needs_native = pytest.mark.skipif(native.library() is None, reason="there are no native kernels for this machine")


# --- what is guessed


@pytest.mark.parametrize(
    ("tokens", "draft"),
    [
        ([1, 2, 3, 4, 5, 1, 2], [3, 4, 5, 1]),
        ([1, 2, 3, 9, 8, 2, 3, 7, 6, 1, 2, 3], [9, 8, 2, 3]),  # three tokens say more than two that came later
        ([1, 2, 7, 1, 2, 8, 1, 2], [8, 1, 2, 8]),  # of equal ones the last counts; what ends with the end goes round
        ([5, 5, 5], [5, 5, 5, 5]),
        ([1, 2, 3, 4, 2], []),  # one token says nothing
        ([1, 2], []),
        ([1], []),
    ],
)
def test_what_followed_the_last_tokens_before_is_the_draft(tokens: list[int], draft: list[int]) -> None:
    assert Drafter().draft(tokens, MOST_TOKENS) == draft
    assert Drafter().draft(tokens, 2) == draft[:2]
    assert Drafter().draft(tokens, 0) == []


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.data())
def test_tokens_that_come_one_by_one_are_looked_up_like_those_that_were_there(
    tokens: list[int], data: st.DataObject
) -> None:
    growing = Drafter()
    for end in sorted(data.draw(st.sets(st.integers(1, len(tokens)), max_size=5))):
        growing.draft(tokens[:end], MOST_TOKENS)
    draft = growing.draft(tokens, MOST_TOKENS)
    assert draft == Drafter().draft(tokens, MOST_TOKENS)
    assert bool(draft) == any(tokens[place : place + 2] == tokens[-2:] for place in range(len(tokens) - 2))


def test_a_draft_grows_while_it_is_right_and_shrinks_while_it_is_wrong() -> None:
    drafter, tokens = Drafter(), [7, 7, 7, 7]
    lengths = []
    for accepted in (True, True, False, False, False, False, True):
        length = len(drafter.draft(tokens, MOST_TOKENS))
        lengths.append(length)
        drafter.judge(length, length if accepted else 0, 0.01)
    assert lengths == [4, 8, 8, 4, 2, 1, 1]
    assert (drafter.drafted, drafter.accepted) == (28, 13)


@pytest.mark.parametrize(("price", "most"), [(0.02, 60), (0.2, 6)])
def test_wrong_drafts_end_the_sooner_the_dearer_they_are(price: float, most: int) -> None:
    drafter, count = Drafter(), 0
    while draft := drafter.draft([7, 7, 7], MOST_TOKENS):
        drafter.judge(len(draft), 0, price)
        count += 1
    assert 2 <= count <= most
    assert drafter.drafted * price <= 1.0 + 8 * price, "more time was lost than a request may lose"
    assert not drafter.draft([7, 7, 7, 7], MOST_TOKENS), "they have ended for good"


def test_a_draft_that_once_paid_is_not_paid_for_ever() -> None:
    drafter = Drafter()
    for _ in range(1000):
        drafter.judge(8, 8, 0.1)
    count = 0
    while draft := drafter.draft([7, 7, 7], MOST_TOKENS):
        drafter.judge(len(draft), 0, 0.1)
        count += 1
    assert count < 10


def test_what_a_row_costs_grows_with_those_who_wait_for_it() -> None:
    assert Drafting(0.1).price_among(1) == pytest.approx(0.1)
    assert Drafting(0.05).price_among(4) == pytest.approx(0.2 / 1.15)
    assert Drafting(0.1).price_among(8) is None
    assert Drafting(0.1).pays and not Drafting(0.3).pays and Drafting(0.3).price_among(1) is None


# --- on a model that can be checked by hand


@dataclass
class Stripes:
    """A form: the tokens of the answer are in turn of three kinds, and it ends after `left`."""

    left: int
    count: int = 0

    def allowed(self) -> bytes:
        bits = [token % 3 == self.count % 3 for token in range(512)]
        return bytes(sum(bit << place for place, bit in enumerate(bits[i : i + 8])) for i in range(0, 512, 8))

    def take(self, token: int) -> bool:
        assert token % 3 == self.count % 3
        self.count += 1
        return self.count == self.left


Make = Callable[[], list[Generate]]


def run(bench: Bench, works: Sequence[Work]) -> list[Result]:
    tickets = [bench.submit(work) for work in works]
    bench.run(5000)
    return [ticket.future.result(0) for ticket in tickets]


def told(result: Result) -> tuple[object, ...]:
    """What its caller learns of it."""
    return result.finish_reason, result.ids, result.logprobs


def both(make: Make, **sizes: Any) -> tuple[list[Result], list[Result], Bench]:
    """The results of the same works without and with drafts, and the bench that drafted."""
    plain, drafting = (Bench(looks_back=2, drafting=price, **sizes) for price in (None, CHEAP))
    expected, results = run(plain, make()), run(drafting, make())
    assert [told(result) for result in results] == [told(result) for result in expected]
    assert all(result.drafted_tokens == 0 for result in expected)
    return expected, results, drafting


def circle(prompt: Sequence[int] = (5, 6), count: int = 160, first: int = 0) -> tuple[int, ...]:
    """The greedy reply of the model that looks back two tokens: after a few it goes in a circle of 53."""
    bench = Bench(looks_back=2, context=512, kv_tokens=512)
    return run(bench, [generate(prompt, count)])[0].ids[first:]


def test_a_reply_that_goes_in_circles_takes_few_steps() -> None:
    _, (result,), bench = both(lambda: [generate((5, 6), 160)], context=512, kv_tokens=512)
    assert len(bench.model.steps) < 90 and len(result.ids) == 160
    assert 160 - len(bench.model.steps) == result.accepted_tokens <= result.drafted_tokens
    assert max(len(chunk.tokens) for chunks in bench.model.steps for chunk in chunks) == 1 + MOST_TOKENS


def test_text_that_never_repeats_is_never_drafted() -> None:
    bench, prompt = Bench(drafting=CHEAP, context=256, kv_tokens=256), [1, 2, 3]
    work = Generate(prompt, Sampling(max_new_tokens=80, presence_penalty=50.0), frozenset())
    (result,) = run(bench, [work])
    pairs = [*zip([*prompt, *result.ids], [*prompt, *result.ids][1:], strict=False)]
    assert len(set(pairs)) == len(pairs), "a pair came twice: the test shows nothing"
    assert result.drafted_tokens == 0


def test_drafts_of_text_that_repeats_pairs_only_end_by_themselves() -> None:
    """The model that looks back to the beginning goes on in another way wherever a pair has come again."""
    rows = list[int]()
    bench = Bench(drafting=Drafting(0.2), context=512, kv_tokens=512)
    few = tuple((token, 100.0) for token in range(12))
    work = Generate([3, 4] * 20, Sampling(max_new_tokens=250, logit_bias=few), frozenset())
    ticket = bench.submit(work)
    while not ticket.future.done():
        rows += [len(chunk.tokens) for chunk in bench.step() if chunk.start >= 40]
    assert ticket.future.result(0).drafted_tokens > 0
    assert set(rows[len(rows) // 2 :]) == {1}


def test_max_tokens_within_a_draft_end_the_reply_there() -> None:
    whole = circle()
    for count in range(120, 130):
        _, (result,), bench = both(lambda count=count: [generate((5, 6), count)], context=512, kv_tokens=512)  # type: ignore[misc]
        assert result.ids == whole[:count] and result.finish_reason is FinishReason.LENGTH
        ends = [chunk.end for chunks in bench.model.steps for chunk in chunks]
        assert max(ends) <= 2 + count


@pytest.mark.parametrize("way", ["heard enough", "form"])
def test_a_reply_ends_in_the_middle_of_a_draft(way: str) -> None:
    """The slot then holds what the reply has, and nothing else."""
    within = 0
    for last in range(100, 116):
        heard = list[int]()

        def make(last: int = last, heard: list[int] = heard) -> list[Generate]:
            heard.clear()

            def hear(token: int, _: object) -> bool:
                heard.append(token)
                return way == "heard enough" and len(heard) == last

            form = Stripes(last) if way == "form" else None
            return [Generate((5, 6), Sampling(max_new_tokens=150), frozenset(), hear, form)]

        _, (result,), bench = both(make, context=512, kv_tokens=512)
        assert result.finish_reason is FinishReason.STOP
        assert list(result.ids) == heard and len(heard) == last, "tokens are heard in their order"
        check_slot(bench, [5, 6, *result.ids])
        within += len(bench.model.steps[-1][0].tokens) > 1
    assert within > 8


def check_slot(bench: Bench, sequence: list[int]) -> None:
    """The first slot holds `sequence`, all but the last token at least, and nothing that is in no sequence."""
    held = [token for token in bench.slots._slots[0].tokens if token >= 0]
    assert held == sequence[: len(held)] and len(held) >= len(sequence) - 1


def five() -> tuple[int, ...]:
    """Five different tokens that the model says one after the other, from the third on whatever came before."""
    loop = circle(first=60)
    found = (loop[place : place + 5] for place in range(53))
    return next(tokens for tokens in found if len({*tokens, 90, 91}) == 7)


def test_a_stop_comes_in_the_middle_of_a_draft() -> None:
    """The prompt goes on otherwise than the model does: of the draft one token is right, and then comes the stop."""
    first, second, third, fourth, stop = five()
    prompt = [first, second, third, fourth, 90, 91, first, second]
    _, (result,), bench = both(lambda: [generate(prompt, 30, frozenset({stop}))])
    assert [list(chunk.tokens) for (chunk,) in bench.model.steps] == [prompt, [third, fourth, 90, 91, first]]
    assert result.ids == (third, fourth) and result.finish_reason is FinishReason.STOP
    assert (result.drafted_tokens, result.accepted_tokens) == (4, 1)
    check_slot(bench, [*prompt, third, fourth])


def test_what_follows_a_wrong_guess_is_thrown_away() -> None:
    first, second, third, fourth, fifth = five()
    prompt = [first, second, third, fourth, 90, 91, first, second]
    _, (result,), bench = both(lambda: [generate(prompt, 30)])
    assert result.ids[:3] == (third, fourth, fifth)
    (drafted,), (following,) = bench.model.steps[1:3]
    assert list(drafted.tokens) == [third, fourth, 90, 91, first]
    assert following.start == len(prompt) + 2 and following.tokens[0] == fifth
    check_slot(bench, [*prompt, *result.ids])


def test_a_draft_ends_before_a_stop() -> None:
    first, second, third, fourth, _ = five()
    prompt = [first, second, third, fourth, 90, 91, first, second]
    bench = Bench(looks_back=2, drafting=CHEAP)
    bench.submit(generate(prompt, 30, frozenset({90})))
    bench.step()
    assert [list(chunk.tokens) for chunk in bench.step()] == [[third, fourth]]


def test_the_next_turn_computes_only_what_is_new() -> None:
    for count in range(100, 112):
        bench = Bench(looks_back=2, drafting=CHEAP, context=512, kv_tokens=512)
        (first,) = run(bench, [generate((5, 6), count)])
        history = [5, 6, *first.ids]
        before = bench.model.forwarded
        (second,) = run(bench, [generate([*history, 50, 51], 1)])
        assert second.reused_tokens >= len(history) - 1
        assert bench.model.forwarded - before == len(history) + 2 - second.reused_tokens <= 3
        (alone,) = run(Bench(looks_back=2, context=512, kv_tokens=512), [generate([*history, 50, 51], 1)])
        assert second.ids == alone.ids


def test_a_request_that_is_given_up_leaves_what_it_computed() -> None:
    bench = Bench(looks_back=2, drafting=CHEAP, context=512, kv_tokens=512)
    ticket = bench.submit(generate((5, 6), 400))
    for _ in range(80):
        bench.step()
    assert isinstance(ticket.work, Generate) and len(ticket.work.tokens) > 90
    ticket.cancel()
    bench.run()
    sequence = ticket.work.tokens
    (again,) = run(bench, [generate(sequence, 5)])
    assert again.reused_tokens == len(sequence) - 1
    assert again.ids == circle(sequence, 5)


def test_drafts_share_the_room_of_a_step_and_make_none_beside_a_prompt() -> None:
    bench = Bench(looks_back=2, drafting=CHEAP, context=1024, kv_tokens=8192, step_tokens=64)
    loop = list(circle(first=60))
    for start in range(3):
        bench.submit(generate(loop[start:], 200))
    for _ in range(8):
        bench.step()
    sizes = [len(chunk.tokens) for chunk in bench.step()]
    assert sizes == [4, 4, 4], "of the 12 rows 9 are for drafts"
    bench.submit(generate([*range(40)], 5))
    sizes = [len(chunk.tokens) for chunk in bench.step()]
    assert sizes == [1, 1, 1, 40]
    bench.run()


def test_one_that_repeats_itself_has_all_the_room_beside_others_that_do_not() -> None:
    bench = Bench(drafting=CHEAP, context=256, kv_tokens=1024, looks_back=2, step_tokens=64)
    loop = list(circle(first=60))
    bench.submit(generate(loop, 100))
    for first in (11, 23, 37):
        bench.submit(generate([first, first + 1, first + 2], 30))
    most = 0
    while bench.scheduler.running or bench.scheduler.waiting:
        sizes = [len(chunk.tokens) for chunk in bench.step()]
        if len(sizes) == 4 and sizes[1:] == [1, 1, 1]:
            most = max(most, sizes[0])
    assert most == 1 + MOST_TOKENS


def test_many_that_decode_make_no_drafts() -> None:
    bench = Bench(slots=12, looks_back=2, drafting=CHEAP, context=256, kv_tokens=4096, step_tokens=256)
    loop = list(circle(first=60))
    for start in range(12):
        bench.submit(generate(loop[start:], 20))
    alone = False
    while bench.scheduler.running or bench.scheduler.waiting:
        chunks = bench.step()
        replies = [len(chunk.tokens) for chunk in chunks if chunk.start >= len(loop) - 12]
        assert len(chunks) < 9 or set(replies) <= {1}
        alone = alone or (len(replies) == 12)
    assert alone


@pytest.mark.parametrize("price", [None, Drafting(0.5)])
def test_without_drafts_or_where_they_are_dear_a_step_is_a_token(price: Drafting | None) -> None:
    bench = Bench(looks_back=2, drafting=price, context=512, kv_tokens=512)
    (result,) = run(bench, [generate((5, 6), 120)])
    assert len(bench.model.steps) == 120 and result.drafted_tokens == result.accepted_tokens == 0


REPEATED = (
    st.lists(st.integers(0, 12), min_size=1, max_size=8)
    .flatmap(lambda piece: st.tuples(st.just(piece), st.integers(1, 4), st.lists(st.integers(0, 96), max_size=4)))
    .map(lambda parts: [*parts[0] * parts[1], *parts[2], *parts[0]])
)


@given(st.data())
def test_whatever_the_prompts_replies_are_those_without_drafts(data: st.DataObject) -> None:
    """Alone and beside each other, greedy and drawn, with stops, forms, penalties and labels in between."""
    prompts = data.draw(st.lists(REPEATED, min_size=1, max_size=8))
    settings = [
        (
            Sampling(
                max_new_tokens=data.draw(st.integers(1, 60)),
                temperature=data.draw(st.sampled_from([0.0, 0.0, 0.05, 1.0])),
                seed=data.draw(st.integers(0, 9)),
                repetition_penalty=data.draw(st.sampled_from([1.0, 1.0, 1.3])),
                frequency_penalty=data.draw(st.sampled_from([0.0, 0.0, 0.5])),
                logprobs=data.draw(st.sampled_from([None, 2])),
                logit_bias=tuple((token, 50.0) for token in range(data.draw(st.sampled_from([0, 4, 12])))),
            ),
            frozenset(data.draw(st.sets(st.integers(0, VOCABULARY - 1), max_size=3))),
            data.draw(st.sampled_from([0, 0, 0, 20])),
        )
        for _ in prompts
    ]

    def make() -> list[Any]:
        works: list[Any] = [
            Generate(prompt, sampling, stop, None, Stripes(form) if form else None)
            for prompt, (sampling, stop, form) in zip(prompts, settings, strict=True)
        ]
        works.insert(1, Classify(prompts[0], LabelTrie(((1, 2), (1, 3)))))
        return works

    both(make, context=256, kv_tokens=1024, step_tokens=data.draw(st.sampled_from([16, 32])))


def test_a_reading_that_fails_in_a_draft_fails_alone() -> None:
    bench = Bench(looks_back=2, drafting=CHEAP, context=256, kv_tokens=512, slots=2)
    loop, heard = circle(first=60), list[int]()

    def hear(token: int, _: object) -> None:
        heard.append(token)
        if len(heard) == 9:
            raise ValueError("planted")

    bad = bench.submit(Generate(loop, Sampling(max_new_tokens=50), frozenset(), hear))
    good = bench.submit(generate(loop[1:], 50))
    bench.run()
    assert bad.future.exception(0) and good.future.result(0).ids == circle(loop[1:], 50)


# --- on real checkpoints


@dataclass
class Subject:
    """A model, its tokens, and how drafts are run on it."""

    loaded: checkpoint.Checkpoint
    adapters: tuple[str | None, ...] = (None,)

    @property
    def model(self) -> Qwen2:
        return self.loaded.model

    def run(self, works: Sequence[Work], drafting: Drafting | None, together: bool) -> list[Result]:
        cache = self.model.new_cache(8)
        slots = SlotTable(cache, 8, 8 * 384)
        scheduler = Scheduler(slots, step_tokens=64, longest=384, drafting=drafting)
        tickets = [Ticket(work) for work in works]
        for group in [tickets] if together else [[ticket] for ticket in tickets]:
            for ticket in group:
                scheduler.submit(ticket)
            while scheduler.running or scheduler.waiting:
                step(self.model, cache, scheduler)
        slots.check_integrity()
        return [ticket.future.result(0) for ticket in tickets]

    def prompts(self) -> list[list[int]]:
        """Some that repeat themselves and some that do not."""
        encode = self.loaded.tokenizer.encode
        line = "今天天气很好，我很开心。the room was clean and the staff were friendly。"
        own = encode("说不清，说不准。中性")
        return [
            encode(line * 3), encode(f"输入：{line}\n情感：正面\n输入：{line}\n情感："), encode("等了两个小时没人理我"),
            own * 5, own, encode("positive negative " * 6), encode(line), encode("正面。负面。" * 8),
        ]  # fmt: skip

    def works(self, sampling: Sampling, form: Callable[[], Form | None] = lambda: None) -> list[Generate]:
        whose = [self.adapters[number % len(self.adapters)] for number in range(8)]
        stops = self.loaded.stop_ids
        return [
            Generate(prompt, replace(sampling, seed=number), stops, None, form(), adapter)
            for number, (prompt, adapter) in enumerate(zip(self.prompts(), whose, strict=True))
        ]


def _load(folder: Path, kernels: Kernels = "auto") -> checkpoint.Checkpoint:
    return checkpoint.load(str(folder), "main", "fp32", 384, kernels)


@pytest.fixture(scope="module", params=["tiny", "native tiny", "demo"])
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    if request.param == "tiny":  # heads too small for native layers: torch's attention, other bits for a draft's rows
        return Subject(_load(request.getfixturevalue("tiny_checkpoint")))
    if native.library() is None:
        pytest.skip("there are no native kernels for this machine")
    if request.param == "demo":
        return Subject(_load(request.getfixturevalue("demo_checkpoint")))
    folder = tmp_path_factory.mktemp("drafts") / "base"
    write_checkpoint(folder, Shape(hidden=256, heads=4, kv_heads=2), dtype=torch.bfloat16)
    made = Subject(_load(folder), (None, "one", None, "other"))
    for seed, name in enumerate(("one", "other")):
        files = load_adapter_files(write_adapter(folder.parent / name, folder, seed=seed))
        assert files is not None
        made.model.adapt(name, load_adapter(files, made.model.config, "abc", [folder.name]))
    return made


LONG = Sampling(max_new_tokens=90)
WAYS = {
    "greedy": LONG,
    "drawn": replace(LONG, temperature=0.7, top_p=0.9),
    "drawn, top k": replace(LONG, temperature=0.3, top_k=5, min_p=0.05),
    "penalties": replace(LONG, repetition_penalty=1.05, frequency_penalty=0.02, presence_penalty=0.1),
    "logprobs": replace(LONG, logprobs=3),
}


@pytest.mark.parametrize("together", [False, True], ids=["alone", "eight at once"])
@pytest.mark.parametrize("way", WAYS)
def test_replies_are_the_same_token_for_token(subject: Subject, way: str, together: bool) -> None:
    if way == "drawn, top k" and not subject.model.rows_keep_their_bits:
        pytest.skip("how many of the k are kept, and so how much is drawn, hangs on the last bits of a sum")
    expected = subject.run(subject.works(WAYS[way]), None, together)
    results = subject.run(subject.works(WAYS[way]), CHEAP, together)
    assert [result.ids for result in results] == [result.ids for result in expected]
    assert [result.finish_reason for result in results] == [result.finish_reason for result in expected]
    if subject.model.rows_keep_their_bits:
        assert [result.logprobs for result in results] == [result.logprobs for result in expected]
    else:
        for result, other in zip(results, expected, strict=True):
            pairs = zip(result.logprobs, other.logprobs, strict=True)
            assert all(one.logprob == pytest.approx(two.logprob, abs=1e-4) for one, two in pairs)
    drafted, accepted = (sum(getattr(r, name) for r in results) for name in ("drafted_tokens", "accepted_tokens"))
    assert drafted > 0
    assert accepted > 0 or way.startswith("drawn"), "nothing was ever guessed rightly: the test shows nothing"


@pytest.mark.parametrize("together", [False, True], ids=["alone", "eight at once"])
def test_replies_of_a_form_are_the_same_token_for_token(subject: Subject, together: bool) -> None:
    forms = Forms(subject.loaded.tokenizer, subject.loaded.stop_ids)
    items = {"type": "object", "properties": {"name": {"enum": ["正面", "负面"]}}, "required": ["name"]}
    grammar = grammar_of(
        {"type": "array", "items": items | {"additionalProperties": False}, "minItems": 5, "maxItems": 5}
    )

    def outcome(drafting: Drafting | None) -> list[Result]:
        return subject.run(subject.works(LONG, lambda: forms.begin(grammar)), drafting, together)

    expected, results = outcome(None), outcome(CHEAP)
    assert [result.ids for result in results] == [result.ids for result in expected]
    assert [result.finish_reason for result in results] == [result.finish_reason for result in expected]
    assert sum(result.accepted_tokens for result in results) > 0


def test_the_next_turns_of_a_conversation_are_answered_alike(subject: Subject) -> None:
    answers = []
    for drafting in (None, CHEAP):
        cache = subject.model.new_cache(1)
        slots = SlotTable(cache, 1, 384)
        scheduler = Scheduler(slots, step_tokens=64, longest=384, drafting=drafting)
        history, replies, held = subject.prompts()[3][:20], list[tuple[int, ...]](), 0
        for _ in range(5):
            ticket = Ticket(Generate(history, Sampling(max_new_tokens=40), subject.loaded.stop_ids))
            scheduler.submit(ticket)
            while not ticket.future.done():
                step(subject.model, cache, scheduler)
            result = ticket.future.result(0)
            assert result.reused_tokens >= held
            replies.append(result.ids)
            history = [*history, *result.ids, *subject.prompts()[4][:5]]
            held = len(history) - 5 - 1
        answers.append(replies)
    assert answers[0] == answers[1]


@needs_native
def test_rows_of_a_draft_have_the_bits_of_single_steps(demo_checkpoint: Path) -> None:
    model = _load(demo_checkpoint).model
    assert model.rows_keep_their_bits
    cache, prompt, draft = model.new_cache(3), list(range(20, 60)), [7, 8, 9, 10, 11, 12, 13, 14, 15]
    others = [Chunk(2, 0, list(range(100, 133)))]
    for slot in (0, 1):
        model.forward([Chunk(slot, 0, prompt)], cache)
    rows = [
        model.logits(model.forward([Chunk(0, len(prompt) + place, [token])], cache))[0]
        for place, token in enumerate(draft)
    ]
    together = model.logits(model.forward([Chunk(1, len(prompt), draft, wants_last=len(draft)), *others], cache))
    assert torch.equal(together[: len(draft)], torch.stack(rows))


def test_with_torchs_kernels_no_drafts_are_made(tiny_checkpoint: Path, start: Start) -> None:
    model = _load(tiny_checkpoint, "torch").model
    assert not model.rows_keep_their_bits
    engine = start(loaded(model), capacity=Capacity(slots=2, kv_tokens=256, drafts=True))
    assert engine.drafting is None


# --- what a row costs


class Timed(FakeModel):
    """Its forward passes take `seconds` of a clock of its own, by their rows; every fifth of them `noise` more."""

    def __init__(self, seconds: Callable[[int], float], noise: float = 0.0) -> None:
        super().__init__()
        self.seconds, self.noise, self.now = seconds, noise, 0.0

    def forward(self, chunks: Sequence[Chunk], cache: Any) -> torch.Tensor:
        hidden = torch.zeros(len(chunks[0].tokens), 1)
        self.steps.append(list(chunks))
        self.now += self.seconds(len(chunks[0].tokens)) + self.noise * (len(self.steps) % 5 == 0)
        return hidden


@pytest.mark.parametrize(
    ("seconds", "price"),
    [
        (lambda rows: 0.05 + 0.005 * (rows - 1), 0.1),
        (lambda rows: 0.05 if rows < 9 else 0.13, 0.2),
        (lambda rows: 0.05, 0.02),
        (lambda rows: 0.01 * rows, 1.0),
    ],
    ids=["linear", "dear from some number on", "free", "by the row"],
)
@pytest.mark.parametrize("noise", [0.0, 5.0])
def test_the_price_of_a_row_is_measured(seconds: Callable[[int], float], price: float, noise: float) -> None:
    model = Timed(seconds, noise)
    found = price_of_a_row(model, model.new_cache(2), lambda: model.now)  # type: ignore[arg-type]
    assert found == pytest.approx(price)
    assert max(len(chunk.tokens) for chunks in model.steps for chunk in chunks) <= MOST_ROWS
    assert len(model.steps) <= 60


def test_measuring_ends_soon_on_a_slow_model_and_fits_a_short_context() -> None:
    model = Timed(lambda rows: 1.0)
    model.context = 64
    price_of_a_row(model, model.new_cache(1), lambda: model.now)  # type: ignore[arg-type]
    assert model.now == 9.0 and all(chunk.end <= 64 for chunks in model.steps for chunk in chunks)


@needs_native
def test_an_engine_that_may_draft_measures_and_drafts_where_it_pays(
    demo_checkpoint: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _load(demo_checkpoint).model
    prompt = list(range(50, 80)) * 3
    replies = []
    for price in (0.05, 0.9):
        monkeypatch.setattr("qwen_allinone.engine.engine.price_of_a_row", lambda *_, price=price: price)
        engine = start(loaded(model), capacity=Capacity(slots=2, kv_tokens=512, drafts=True))
        assert engine.drafting == Drafting(price)
        work = Generate(prompt, Sampling(max_new_tokens=60), frozenset())
        replies.append(submit(engine, work).future.result(WAIT))
    assert replies[0].ids == replies[1].ids
    assert replies[0].drafted_tokens > 0 == replies[1].drafted_tokens


@needs_native
def test_an_engine_measures_a_real_model_at_its_start(demo_checkpoint: Path, start: Start) -> None:
    engine = start(loaded(_load(demo_checkpoint).model), capacity=Capacity(slots=2, kv_tokens=512, drafts=True))
    assert engine.drafting is not None and 0 < engine.drafting.price < math.inf
