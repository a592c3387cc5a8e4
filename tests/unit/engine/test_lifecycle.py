"""Where an engine's life may go, and where it stays."""

from __future__ import annotations

import pytest

from qwen_allinone.engine.lifecycle import Life, Status


def test_a_life_goes_from_loading_to_ready_and_back_over_a_failure() -> None:
    life = Life()
    assert life.status is Status.LOADING and life.problem == ""
    life.failed("no weights")
    assert (life.status, life.problem) == (Status.FAILED, "no weights")
    life.failed()
    assert life.problem == "no weights", "what is known is kept"
    life.loaded()
    assert (life.status, life.problem) == (Status.READY, "")


@pytest.mark.parametrize("end", ["stuck", "stopped"])
def test_nothing_leads_away_from_an_end(end: str) -> None:
    life = Life()
    life.loaded()
    life.stuck("hangs") if end == "stuck" else life.stopped()
    last, problem = life.status, life.problem
    life.loaded()
    life.failed("later")
    life.stopped()
    life.drain()
    assert (life.status, life.problem) == (last, problem)


def test_draining_hides_what_could_still_take_requests_and_no_trouble() -> None:
    life = Life()
    life.drain()
    assert life.status is Status.DRAINING
    life.loaded()
    assert life.status is Status.DRAINING
    life.failed("gone")
    assert life.status is Status.FAILED


def test_a_life_is_settled_by_the_first_load_however_it_ends() -> None:
    for act in (Life.loaded, Life.failed, Life.stopped):
        life = Life()
        assert life.wait_until_settled(0.01) is Status.LOADING
        act(life)
        assert life.wait_until_settled(0.01) is not Status.LOADING
