"""What a result says of its own making."""

from __future__ import annotations

import pytest

from qwen_allinone.engine.sampling import Sampling
from qwen_allinone.engine.work import Embed, FinishReason, Generate
from qwen_allinone.model.attention import Chunk
from tests.support.fake_model import Bench, FakeModel, expected_reply


@pytest.mark.parametrize("last", [1, 3])
def test_who_hears_the_tokens_may_end_the_reply(last: int) -> None:
    bench, heard = Bench(), []

    def hear(token: int, _: object) -> bool:
        heard.append(token)
        return len(heard) == last

    ticket = bench.submit(Generate((5, 6), Sampling(max_new_tokens=9), frozenset(), hear))
    bench.run()
    result = ticket.future.result(0)
    assert result.finish_reason is FinishReason.STOP
    assert result.ids == tuple(heard) == expected_reply((5, 6), 9)[:last]


class OnlyEven:
    """Allows the even tokens, and ends the answer with the third."""

    def __init__(self) -> None:
        self.left = 3

    def allowed(self) -> bytes:
        return bytes([0b01010101]) * 2

    def take(self, token: int) -> bool:
        self.left -= 1
        return self.left == 0


def test_a_form_decides_which_tokens_come_and_when_it_ends() -> None:
    bench = Bench()
    ticket = bench.submit(Generate((5, 6), Sampling(max_new_tokens=9, logprobs=2), frozenset(), form=OnlyEven()))
    bench.run()
    result = ticket.future.result(0)
    assert result.finish_reason is FinishReason.STOP and len(result.ids) == 3
    assert all(token % 2 == 0 and token < 16 for token in result.ids)
    assert [told.token for told in result.logprobs] == list(result.ids)
    assert all(len(told.top) == 2 and told.top[0][1] >= told.top[1][1] for told in result.logprobs)


def test_an_embedding_is_the_state_after_the_last_token_however_the_prompt_is_cut() -> None:
    bench = Bench(step_tokens=16)
    prompt = tuple(range(1, 41))
    expected = FakeModel().forward([Chunk(0, 0, prompt)], FakeModel().new_cache(1)).tolist()[0]
    beside = bench.submit(Generate((5, 6), Sampling(max_new_tokens=9), frozenset()))
    first, again = bench.submit(Embed(prompt)), bench.submit(Embed((*prompt, 7)))
    bench.run()
    assert beside.future.result(0).ids == expected_reply((5, 6), 9)
    result = first.future.result(0)
    assert result.vector == tuple(expected) and result.ids == () and result.prompt_tokens == 40
    assert again.future.result(0).vector != result.vector
    reused = bench.submit(Embed(prompt))
    bench.run()
    assert reused.future.result(0).vector == tuple(expected) and reused.reused == 39
