"""What well-known clients send, as they come: the fields of each, with its default values, answered by a real server.

Written down from what these clients send; the texts are ours, and so is the model's name, which people set. A body
without "stream" is answered whole.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.conftest import Reply, Service

SYSTEM = {"role": "system", "content": "You are a helpful assistant."}
USER = {"role": "user", "content": "今天好累"}
PARTS = {"role": "user", "content": [{"type": "text", "text": "今天好累"}]}
USAGE = {"include_usage": True}
CHAT, TEXTS, VECTORS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"


def tool(name: str, **more: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}
    return {"type": "function", "function": {"name": name, "description": name, "parameters": schema} | more}


BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "openai-python": (CHAT, {"messages": [USER]}),
    "openai-python streamed": (CHAT, {"messages": [USER], "stream": True}),
    "openai-python responses": (RESPONSES, {"input": "今天好累"}),
    "openai-python embeddings": (VECTORS, {"input": ["今天好累"], "encoding_format": "base64"}),
    "openai-node streamed": (CHAT, {"messages": [{"role": "developer", "content": "简短"}, USER], "stream": True}),
    "OpenAI's documentation, curl": (CHAT, {"messages": [{"role": "developer", "content": "You are a helpful assistant."}, {"role": "user", "content": "Hello!"}]}),
    "OpenAI's documentation, functions": (CHAT, {"messages": [{"role": "user", "content": "What is the weather like in Boston today?"}], "tools": [tool("get_current_weather")], "tool_choice": "auto"}),
    "OpenAI's documentation, logprobs": (CHAT, {"messages": [{"role": "user", "content": "Hello!"}], "logprobs": True, "top_logprobs": 2}),
    "OpenAI's documentation, completions": (TEXTS, {"prompt": "Say this is a test", "max_tokens": 7, "temperature": 0}),
    "LangChain ChatOpenAI": (CHAT, {"messages": [{"content": "今天好累", "role": "user"}], "stream": False}),
    "LangChain ChatOpenAI streamed": (CHAT, {"messages": [{"content": "今天好累", "role": "user"}], "stream": True, "stream_options": USAGE}),
    "LangChain bind_tools": (CHAT, {"messages": [{"content": "今天好累", "role": "user"}], "stream": False, "tools": [tool("search")]}),
    "LangChain.js": (CHAT, {"messages": [USER], "temperature": 1, "top_p": 1, "frequency_penalty": 0, "presence_penalty": 0, "n": 1, "stream": True, "stream_options": USAGE}),
    "LlamaIndex OpenAILike": (CHAT, {"messages": [SYSTEM, USER], "stream": False, "temperature": 0.1}),
    "LiteLLM": (CHAT, {"messages": [USER], "stream": True, "stream_options": USAGE}),
    "Open WebUI": (CHAT, {"messages": [USER], "stream": True}),
    "Open WebUI with its tools": (CHAT, {"messages": [SYSTEM, USER], "stream": True, "stream_options": USAGE, "tools": [tool("search_web"), tool("get_current_timestamp", parameters={"type": "object", "properties": {}})]}),
    "Open WebUI, a title": (CHAT, {"messages": [USER], "stream": False, "max_completion_tokens": 1000}),
    "LobeChat": (CHAT, {"messages": [SYSTEM, USER], "stream": True, "stream_options": USAGE, "temperature": 1, "top_p": 1, "frequency_penalty": 0, "presence_penalty": 0}),
    "LobeChat with plugins": (CHAT, {"messages": [USER], "stream": True, "stream_options": USAGE, "temperature": 1, "tools": [tool("lobe-web-browsing____search____builtin")]}),
    "NextChat": (CHAT, {"messages": [USER], "stream": True, "temperature": 0.5, "presence_penalty": 0, "frequency_penalty": 0, "top_p": 1}),
    "ChatBox": (CHAT, {"messages": [SYSTEM, USER], "stream": True, "stream_options": USAGE, "temperature": 0.7, "top_p": 1}),
    "Cherry Studio": (CHAT, {"messages": [SYSTEM, USER], "stream": True, "stream_options": USAGE, "temperature": 1, "top_p": 1}),
    "Continue": (CHAT, {"messages": [SYSTEM, PARTS], "stream": True, "max_tokens": 4096}),
    "Continue, agent": (CHAT, {"messages": [SYSTEM, USER], "stream": True, "max_tokens": 4096, "tools": [tool("read_file"), tool("create_new_file")], "parallel_tool_calls": False}),
    "Cursor": (CHAT, {"messages": [SYSTEM, PARTS], "stream": True, "stream_options": USAGE, "temperature": 0, "user": "u-1", "tools": [tool("codebase_search"), tool("read_file")], "tool_choice": "auto"}),
    "Cline": (CHAT, {"messages": [SYSTEM, PARTS], "stream": True, "stream_options": USAGE, "temperature": 0}),
    "Zed": (CHAT, {"messages": [PARTS], "stream": True, "stream_options": USAGE, "stop": [], "temperature": 1.0, "tools": [tool("grep")], "tool_choice": "auto"}),
    "AutoGen": (CHAT, {"messages": [SYSTEM, USER | {"name": "user"}], "stream": False}),
    "AutoGen with tools": (CHAT, {"messages": [SYSTEM, USER | {"name": "user"}], "stream": False, "tools": [tool("web_search", strict=False)]}),
    "CrewAI": (CHAT, {"messages": [SYSTEM, USER], "stop": ["\nObservation:"], "stream": False}),
    "Dify": (CHAT, {"messages": [SYSTEM, USER], "stream": True, "stream_options": USAGE, "temperature": 0.7, "max_tokens": 512, "top_p": 1, "presence_penalty": 0, "frequency_penalty": 0, "user": "abc-123"}),
    "FastGPT": (CHAT, {"messages": [SYSTEM, USER], "stream": True, "stream_options": USAGE, "temperature": 0.01, "max_tokens": 2000, "top_p": 1}),
    "One API, a channel's test": (CHAT, {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2, "stream": False}),
    "One API, passed on": (CHAT, {"messages": [USER], "stream": True, "stream_options": USAGE, "temperature": 0.7}),
    "Vercel AI SDK, chat": (CHAT, {"messages": [SYSTEM, USER], "stream": True, "stream_options": USAGE}),
    "Vercel AI SDK, generateText": (CHAT, {"messages": [USER], "temperature": 0}),
    "Vercel AI SDK, responses": (RESPONSES, {"input": [{"role": "system", "content": "简短"}, {"role": "user", "content": [{"type": "input_text", "text": "今天好累"}]}], "stream": True}),
    "Semantic Kernel, Python": (CHAT, {"messages": [SYSTEM, PARTS], "stream": False, "n": 1, "temperature": 0.0, "top_p": 1.0, "frequency_penalty": 0.0, "presence_penalty": 0.0, "max_tokens": 256, "logit_bias": {}}),
    "Semantic Kernel, .NET with functions": (CHAT, {"messages": [SYSTEM, USER], "tools": [tool("Lights-get_state")], "tool_choice": "auto"}),
    "Spring AI": (CHAT, {"messages": [{"content": "今天好累", "role": "user"}], "stream": False, "temperature": 0.7}),
    "LangChain4j": (CHAT, {"messages": [USER], "temperature": 0.7}),
    "LangChain4j streamed": (CHAT, {"messages": [USER], "temperature": 0.7, "stream": True, "stream_options": USAGE}),
    "Haystack": (CHAT, {"messages": [SYSTEM, USER], "n": 1, "stream": False}),
    "instructor, JSON mode": (CHAT, {"messages": [{"role": "system", "content": "Answer as JSON: {\"name\": string}"}, USER], "response_format": {"type": "json_object"}}),
    "instructor, JSON schema mode": (CHAT, {"messages": [USER], "response_format": {"type": "json_schema", "json_schema": {"name": "User", "schema": {"type": "object", "properties": {"mood": {"type": "string", "maxLength": 8}}, "required": ["mood"]}}}}),
    "DSPy": (CHAT, {"messages": [SYSTEM, USER], "temperature": 0.0, "max_tokens": 1000, "stream": False}),
    "Raycast": (CHAT, {"messages": [SYSTEM, USER], "stream": True, "temperature": 0.5}),
    "SillyTavern": (CHAT, {"messages": [SYSTEM, USER], "stream": True, "temperature": 1, "top_p": 1, "max_tokens": 300, "presence_penalty": 0, "frequency_penalty": 0, "stop": [], "logit_bias": {}}),
    "AnythingLLM": (CHAT, {"messages": [SYSTEM, USER], "stream": True, "temperature": 0.7, "max_tokens": 1024}),
    "LibreChat": (CHAT, {"messages": [USER], "stream": True, "user": "665f00000000000000000000"}),
    "Jan": (CHAT, {"messages": [USER], "stream": True, "temperature": 0.7, "top_p": 0.95, "max_tokens": 4096, "stop": [], "frequency_penalty": 0, "presence_penalty": 0}),
    "a client of vLLM": (CHAT, {"messages": [USER], "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}),
}  # fmt: skip


@pytest.mark.parametrize(("path", "body"), BODIES.values(), ids=BODIES)
def test_what_clients_send_by_default_is_answered(service: Service, path: str, body: dict[str, Any]) -> None:
    sent = json.dumps({"model": "demo"} | body).encode()
    reply = service.ask("POST", path, sent, Content_Type="application/json", Authorization="Bearer none")
    assert reply.status == 200, reply.data.decode()
    if not body.get("stream"):
        assert reply.headers["Content-Type"].startswith("application/json")
        assert said(path, reply.json)
    elif path == RESPONSES:
        assert events(reply)[-1]["type"] in ("response.completed", "response.incomplete")
    else:
        assert_is_streamed(reply, body)


def events(reply: Reply) -> list[dict[str, Any]]:
    """The data of a stream's events, without the [DONE] at its end."""
    assert reply.headers["Content-Type"].startswith("text/event-stream")
    lines = reply.data.decode().splitlines()
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    return [json.loads(text) for text in data if text != "[DONE]"]


def assert_is_streamed(reply: Reply, body: dict[str, Any]) -> None:
    chunks = events(reply)
    assert reply.data.endswith(b"data: [DONE]\n\n") and not any("error" in chunk for chunk in chunks)
    deltas = [choice for chunk in chunks for choice in chunk["choices"]]
    assert deltas[0]["delta"]["role"] == "assistant"
    assert "".join(delta["delta"].get("content") or "" for delta in deltas)
    assert deltas[-1]["finish_reason"] in ("stop", "length")
    assert not any("tool_calls" in delta["delta"] for delta in deltas)
    if "stream_options" in body:
        assert chunks[-1]["choices"] == [] and chunks[-1]["usage"]["completion_tokens"] > 0


def said(path: str, answer: Any) -> str:
    """The text of an answer, or its vector."""
    if path == VECTORS:
        return str(answer["data"][0]["embedding"])
    if path == RESPONSES:
        return str(answer["output"][0]["content"][0]["text"])
    (choice,) = answer["choices"]
    text = choice["text"] if path == TEXTS else choice["message"]["content"]
    return str(text)
