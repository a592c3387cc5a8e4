"""LangChain's ChatOpenAI as people use it. Not installed with the tests: `pip install langchain-openai` brings it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import httpx2
import openai
import pytest
from pydantic import BaseModel, Field

from tests.integration.conftest import Server

langchain_openai: Any = pytest.importorskip("langchain_openai", reason="langchain-openai is not installed")

SAID = "快递丢了，客服不理人"


class Ticket(BaseModel):
    """What a complaint is about."""

    category: Literal["物流", "质量", "服务"]
    urgency: int = Field(ge=1, le=5)
    summary: str = Field(max_length=12)
    product: str | None = Field(max_length=8)


def search(query: str) -> str:
    """Search the web."""
    raise AssertionError("no tool is ever called")


@pytest.fixture(scope="module")
def llm(server: Server) -> Iterator[Any]:
    with httpx2.Client(transport=httpx2.WSGITransport(server.app)) as here:
        options = {"model": "demo", "temperature": 0, "max_tokens": 120, "max_retries": 0, "http_client": here}
        yield langchain_openai.ChatOpenAI(base_url="http://localhost/v1", api_key="none", **options)


@pytest.mark.parametrize("options", [{}, {"method": "json_schema"}, {"strict": True}], ids=str)
def test_with_structured_output_gives_the_model_that_was_asked_for(llm: Any, options: dict[str, Any]) -> None:
    assert isinstance(llm.with_structured_output(Ticket, **options).invoke(SAID), Ticket)


def test_a_plain_schema_gives_a_dictionary_and_may_keep_the_message(llm: Any) -> None:
    schema = Ticket.model_json_schema()
    assert set(llm.with_structured_output(schema).invoke(SAID)) == set(Ticket.model_fields)
    kept = llm.with_structured_output(Ticket, include_raw=True).invoke(SAID)
    assert isinstance(kept["parsed"], Ticket) and kept["parsing_error"] is None
    assert kept["raw"].usage_metadata["output_tokens"] > 0


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")  # LangChain's own, of its chunks
def test_a_stream_of_it_ends_with_the_whole(llm: Any) -> None:
    pieces = list(llm.with_structured_output(Ticket).stream(SAID))
    assert pieces[-1] == llm.with_structured_output(Ticket).invoke(SAID)


def test_what_is_cut_is_told_and_is_no_answer(llm: Any) -> None:
    short = llm.model_copy(update={"max_tokens": 3})
    with pytest.raises(openai.LengthFinishReasonError):
        short.with_structured_output(Ticket).invoke(SAID)


def test_a_method_that_insists_on_a_call_is_told_that_there_are_none(llm: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="tool_choice"):
        llm.with_structured_output(Ticket, method="function_calling").invoke(SAID)


def test_offered_tools_get_a_text(llm: Any) -> None:
    answer = llm.bind_tools([search]).invoke(SAID)
    assert answer.content and answer.tool_calls == []


def test_a_plain_message_is_answered_and_streamed_alike(llm: Any) -> None:
    whole = llm.invoke(SAID).content
    assert "".join(piece.content for piece in llm.stream(SAID)) == whole != ""
