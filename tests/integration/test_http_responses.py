"""Responses and what follows them, asked for with OpenAI's official client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel, Field

from qwen_allinone.access import keys
from qwen_allinone.errors import EngineFailed
from tests.integration.conftest import Gate, Later, Server, StartServer
from tests.support.openai_client import client_of

SAID = "今天心情特别差，工作也不顺利"
PATH = "/v1/responses"


class Ticket(BaseModel):
    """What a complaint is about."""

    category: Literal["物流", "质量", "服务"]
    urgency: int = Field(ge=1, le=5)
    summary: str = Field(max_length=12)


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with client_of(server.app) as made:
        yield made


def create(client: openai.OpenAI, **fields: Any) -> Any:
    return client.responses.create(**{"model": "demo", "input": SAID, "temperature": 0} | fields)


def chat(client: openai.OpenAI, messages: list[Any]) -> Any:
    return client.chat.completions.create(model="demo", messages=messages, temperature=0).choices[0].message.content


def test_a_response_is_the_reply_that_a_chat_gets(client: openai.OpenAI) -> None:
    answer = create(client, instructions="简短", metadata={"a": "b"})
    messages = [{"role": "system", "content": "简短"}, {"role": "user", "content": SAID}]
    assert answer.output_text == chat(client, messages)
    assert (answer.object, answer.status, answer.model, answer.error) == ("response", "completed", "demo", None)
    assert (answer.temperature, answer.instructions, answer.metadata) == (0, "简短", {"a": "b"})
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    cut = create(client, max_output_tokens=3)
    assert (cut.status, cut.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert cut.usage.output_tokens == 3 and cut.output[0].status == "incomplete"


def test_one_may_follow_another_and_two_may_follow_the_same(client: openai.OpenAI) -> None:
    first = create(client, instructions="简短")
    texts = [create(client, input=said, previous_response_id=first.id) for said in ("谢谢你", "那怎么办")]
    history = [{"role": "user", "content": SAID}, {"role": "assistant", "content": first.output_text}]
    for said, answer in zip(("谢谢你", "那怎么办"), texts, strict=True):
        assert answer.output_text == chat(client, [*history, {"role": "user", "content": said}])
        assert answer.previous_response_id == first.id
    third = create(client, input="好", previous_response_id=texts[1].id)
    client.responses.delete(first.id)
    assert create(client, input="好", previous_response_id=texts[1].id).output_text == third.output_text


def test_the_items_of_an_answer_may_be_sent_back(client: openai.OpenAI) -> None:
    first = create(client, store=False, include=["message.output_text.logprobs"], top_logprobs=1)
    parts = [{"type": "input_text", "text": "谢谢"}, {"type": "input_text", "text": "你"}]
    again = create(client, input=[{"role": "user", "content": SAID}, *first.output, {"role": "user", "content": parts}])
    kept = create(client)
    assert again.output_text == create(client, input="谢谢你", previous_response_id=kept.id).output_text


def test_what_is_kept_is_read_and_deleted_and_what_is_not_is_nowhere(client: openai.OpenAI) -> None:
    answer = create(client)
    assert client.responses.retrieve(answer.id).to_dict() == answer.to_dict()
    client.responses.delete(answer.id)
    unkept = create(client, store=False)
    for id in (answer.id, unkept.id, "resp_", "none", "resp_" + "a" * 32, answer.id.removeprefix("resp_")):
        with pytest.raises(openai.NotFoundError) as caught:
            client.responses.retrieve(id)
        assert caught.value.code == "response_not_found"
        with pytest.raises(openai.NotFoundError) as caught:
            create(client, previous_response_id=id)
        assert caught.value.param == "previous_response_id"


def test_a_stream_ends_with_the_same_response_and_tells_each_part_of_it(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"include": ["message.output_text.logprobs"], "top_logprobs": 2, "max_output_tokens": 30}
    whole = create(client, **asked)
    with client.responses.stream(model="demo", input=SAID, temperature=0, **asked) as stream:
        events = list(stream)
        streamed = stream.get_final_response()
    assert streamed.output_text == whole.output_text
    assert streamed.output[0].content[0].logprobs == whole.output[0].content[0].logprobs != []
    kinds = [event.type for event in events]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[-3:] == ["response.content_part.done", "response.output_item.done", f"response.{whole.status}"]
    deltas: list[Any] = [event for event in events if event.type == "response.output_text.delta"]
    assert len(deltas) > 3 and "".join(event.delta for event in deltas) == whole.output_text
    told = [one.to_dict() for event in deltas for one in event.logprobs]
    assert told == [
        {name: value for name, value in one.to_dict().items()} for one in whole.output[0].content[0].logprobs
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert client.responses.retrieve(streamed.id).output_text == whole.output_text


def test_the_client_parses_a_model_of_pydantics(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "demo", "input": SAID, "text_format": Ticket, "max_output_tokens": 120}
    parsed = client.responses.parse(**asked, temperature=1.0).output_parsed
    assert isinstance(parsed, Ticket)
    with client.responses.stream(**asked, temperature=0) as stream:
        assert isinstance(stream.get_final_response().output_parsed, Ticket)


OFFERED: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather in a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": True,
}


@pytest.mark.parametrize("choice", ["auto", "none", None])
def test_tools_may_be_offered_and_are_never_called(client: openai.OpenAI, choice: str | None) -> None:
    plain = create(client, max_output_tokens=8)
    offered = create(client, max_output_tokens=8, tools=[OFFERED, OFFERED | {"parameters": None}], tool_choice=choice)
    assert offered.output_text == plain.output_text
    assert [item.type for item in offered.output] == ["message"]
    assert [tool.name for tool in client.responses.retrieve(offered.id).tools] == ["get_weather"] * 2
    assert offered.tools[0].to_dict() == OFFERED and offered.tool_choice == (choice or "auto")


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({"input": ""}, "input"),
    "no items": ({"input": []}, "input"),
    "a picture": ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "a"}]}]}, "input"),
    "a call": ({"input": [{"type": "function_call", "name": "a", "arguments": "", "call_id": "b"}]}, "input"),
    "the model's own turn last": ({"input": [{"role": "assistant", "content": "好"}]}, "input"),
    "more than fits": ({"input": "好，" * 5000}, "input"),
    "a tool": ({"tools": [{"type": "web_search"}]}, "tools"),
    "a tool without a name": ({"tools": [{"type": "function"}]}, "tools"),
    "a tool as chat completions have it": ({"tools": [{"type": "function", "function": {"name": "a"}}]}, "tools"),
    "a call at any rate": ({"tools": [OFFERED], "tool_choice": "required"}, "tool_choice"),
    "a call of one": ({"tools": [OFFERED], "tool_choice": {"type": "function", "name": "get_weather"}}, "tool_choice"),
    "thought": ({"reasoning": {"effort": "high"}}, "reasoning"),
    "the background": ({"background": True}, "background"),
    "a cut beginning": ({"truncation": "auto"}, "truncation"),
    "likely tokens of none": ({"top_logprobs": 2}, "top_logprobs"),
    "too many of them": (
        {"top_logprobs": 20, "include": ["message.output_text.logprobs"], "max_output_tokens": 9999},
        "top_logprobs",
    ),
    "a conversation": ({"conversation": "conv_1"}, "conversation"),
    "a schema that is none": (
        {"text": {"format": {"type": "json_schema", "name": "a", "schema": {"not": {}}}}},
        "text.format.schema",
    ),
}


@pytest.mark.parametrize(("fields", "param"), BAD.values(), ids=BAD)
def test_what_cannot_be_done_is_a_400_that_names_it(client: openai.OpenAI, fields: dict[str, Any], param: str) -> None:
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as caught:
            create(client, stream=stream, **fields)
        assert str(caught.value.param).startswith(param)


def test_another_key_finds_nothing(start_server: StartServer, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    alices, bobs = keys.add(file, "alice"), keys.add(file, "bob")
    server = start_server(QAIO_API_KEYS_FILE=str(file), QAIO_SESSIONS_FILE=str(tmp_path / "sessions"))
    with client_of(server.app, api_key=alices) as alice, client_of(server.app, api_key=bobs) as bob:
        hers = create(alice, max_output_tokens=2)
        for ask in (bob.responses.retrieve, bob.responses.delete):
            with pytest.raises(openai.NotFoundError):
                ask(hers.id)
        with pytest.raises(openai.NotFoundError):
            create(bob, previous_response_id=hers.id)
        assert alice.responses.retrieve(hers.id).id == hers.id


def test_one_that_fails_leaves_nothing_behind(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(QAIO_SESSIONS_FILE=str(tmp_path / "sessions"))
    gate = Gate(server)
    gate.shut()
    asked = {"model": "demo", "input": SAID, "stream": True}
    later = Later(lambda: server.post(PATH, asked))
    assert gate.entered.wait(30)

    def broken(*_: Any) -> Any:
        raise EngineFailed

    gate._forward = broken
    gate.open()
    raw = later.answer().get_data(as_text=True)
    assert "event: error" in raw and "response.completed" not in raw
    id = raw.split('"id": "')[1].split('"')[0]
    assert server.client.get(f"{PATH}/{id}").status_code == 404


def test_without_its_store_only_what_is_to_be_kept_is_refused(start_server: StartServer, tmp_path: Path) -> None:
    (tmp_path / "sessions").mkdir()
    server = start_server(QAIO_SESSIONS_FILE=str(tmp_path / "sessions"))
    asked = {"model": "demo", "input": SAID, "max_output_tokens": 2}
    assert server.post(PATH, asked).status_code == 503
    assert server.post(PATH, asked | {"store": False}).status_code == 200
