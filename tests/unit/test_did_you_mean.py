"""The name that somebody meant, told wherever a name is refused."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from qwen_allinone.did_you_mean import hint, names_within, nearest
from qwen_allinone.errors import SettingsError, UnknownTask
from qwen_allinone.settings import Settings


class Inner(BaseModel):
    temperature: float


class Outer(BaseModel):
    items: list[Inner]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("sentimnet", "sentiment"),
        ("Sentiment", "sentiment"),
        ("max-tokens", "max_tokens"),
        ("weather", None),
        ("", None),
        ("x" * 100_000, None),
    ],
)
def test_the_nearest_name_is_found_and_none_where_none_is_like_it(written: str, meant: str | None) -> None:
    assert nearest(written, ["sentiment", "keywords", "max_tokens"]) == meant


def test_nothing_is_said_where_nothing_is_like_it() -> None:
    assert hint("modle", ["model"]) == ", did you mean model?"
    assert hint("zzz", ["model"]) == ""


def test_names_of_what_a_model_holds_count_too() -> None:
    assert names_within(Outer.model_json_schema()) == {"items", "temperature"}


def test_a_setting_is_told() -> None:
    with pytest.raises(SettingsError, match="did you mean QAIO_MODEL"):
        Settings.load({"QAIO_MODLE": "demo"})


def test_a_task_is_told() -> None:
    assert "是不是 'sentiment'？" in UnknownTask("sentimet", ["sentiment", "chat"]).message
