"""The service's HTTP API, as the page uses it. What goes wrong becomes an `ApiError` that a visitor can read."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from time import time
from typing import Any

import httpx

# The service ends every request itself (QAIO_DEADLINE_S) and pings in streams; this is for one that hangs.
_TIMEOUT = httpx.Timeout(10.0, read=150.0)
_LIMITS = httpx.Limits(max_connections=256, max_keepalive_connections=16)
_MOST_RETRY_S = 120.0
_ROUTE = "/v1/route"  # its name too: no task has one with a slash


class ApiError(Exception):
    """`str()` is for the visitor, in Chinese. `status` is None where no answer came; `retry_after` in seconds."""

    def __init__(
        self, message: str, *, status: int | None = None, code: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.retry_after = status, code, retry_after


@dataclass(frozen=True)
class Task:
    """One job of the service. `kind` is label, list, text, json or any; `labels` is empty but for label."""

    name: str
    description: str
    kind: str
    inputs: tuple[str, ...]
    labels: tuple[str, ...]
    detail: bool

    @property
    def path(self) -> str:
        """Where it is asked for."""
        return self.name if self.name == _ROUTE else f"/v1/tasks/{self.name}"


@dataclass(frozen=True)
class About:
    """What the service can do, by its own word. `router` picks one of the tasks for a text and runs that, if it can;
    `memory`: it remembers what users tell of themselves; `batches`: it answers files of requests in its own time;
    `bench`: changed prompts can be tried there."""

    model: str
    tasks: tuple[Task, ...]
    sessions: bool
    router: Task | None = None
    memory: bool = False
    batches: bool = False
    bench: bool = False

    @property
    def jobs(self) -> tuple[Task, ...]:
        """All that can be run by itself."""
        return self.tasks + ((self.router,) if self.router else ())

    def task(self, name: str | None) -> Task | None:
        return next((task for task in self.jobs if task.name == name), None)


@dataclass(frozen=True)
class Sentiment:
    """The first event of a chat. `probability` from 0 to 1; `session` where the service keeps one."""

    label: str
    emoji: str
    probability: float | None
    session: str | None


@dataclass(frozen=True)
class Delta:
    """The next piece of a reply."""

    text: str


@dataclass(frozen=True)
class Recalled:
    """What the reply was reminded of, known when it is whole."""

    memories: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """What a task answered: a label with the probabilities of all labels, items, a JSON value, or text.
    `task` is its name."""

    label: str | None = None
    probabilities: Mapping[str, float] | None = None
    items: tuple[str, ...] | None = None
    value: Any = None
    text: str | None = None
    task: str | None = None


class Api:
    """One service. Made once and used by all visitors; all methods raise ApiError."""

    def __init__(self, address: str, key: str | None = None) -> None:
        self.address = address
        headers = {"User-Agent": "qwen-allinone-ui"} | ({"Authorization": f"Bearer {key}"} if key else {})
        self._http = httpx.AsyncClient(
            base_url=address, headers=headers, timeout=_TIMEOUT, limits=_LIMITS, trust_env=False
        )
        self._about: About | None = None

    async def close(self) -> None:
        await self._http.aclose()

    async def about(self, *, fresh: bool = False) -> About:
        """What the service can do; asked once unless `fresh`."""
        if self._about is None or fresh:
            self._about = None
            response = await self._ask("GET", "/v1/tasks")
            tasks, document = _json(response)["tasks"], _json(await self._ask("GET", "/openapi.json"))
            self._about = About(
                response.headers.get("X-Model", ""),
                tuple(_task(entry, document) for entry in tasks),
                "session_id" in _fields_of(document, "/chat"),
                _router(document),
                await self._is_on(document, "/v1/memory/{user}", "/v1/memory/nobody"),
                await self._is_on(document, "/v1/batches", "/v1/batches?limit=1"),
                "/v1/prompts/{task}" in document.get("paths", {}),
            )
        return self._about

    async def _is_on(self, document: dict[str, Any], path: str, asked: str) -> bool:
        """`path` is described either way; where it is switched off, what is `asked` of it is answered with a 404."""
        if path not in document.get("paths", {}):
            return False
        try:
            await self._ask("GET", asked)
        except ApiError as error:
            return error.status != 404  # what fails for a while is there, and says so when it is used
        return True

    async def run(self, task: Task, inputs: Mapping[str, str]) -> Answer:
        """POST to the task's path, with probabilities where the service gives them."""
        body: dict[str, Any] = {**inputs, **({"detail": True} if task.detail else {})}
        data = _json(await self._ask("POST", task.path, body))
        items = data.get("items")
        return Answer(
            data.get("label"),
            (data.get("detail") or {}).get("probabilities"),
            None if items is None else tuple(map(_shown, items)),
            data.get("value"),
            data.get("text"),
            data.get("task"),
        )

    async def chat(
        self, text: str, session: str | None, user: str | None = None
    ) -> AsyncGenerator[Sentiment | Delta | Recalled, None]:
        """POST /chat as a stream: the sentiment, then the reply piece by piece. Ends only after a whole reply.

        `session` continues that conversation; None begins one where the service keeps conversations. With `user` the
        service uses what it remembers of him and adds to it, and says in the end what it used.
        """
        body: dict[str, Any] = {"text": text, "stream": True}
        if user is not None:
            body |= {"user": user, "detail": True}
        if (await self.about()).sessions:
            body |= {"session_id": session} if session else {"session": True}
        try:
            async with self._http.stream("POST", "/chat", json=body) as response:
                if response.status_code != 200:
                    await response.aread()
                    raise self._refusal(response)
                async for name, data in _events(response.aiter_bytes()):
                    if name == "sentiment":
                        yield Sentiment(
                            data["label"], data.get("emoji") or "", data.get("probability"), data.get("session_id")
                        )
                    elif name == "delta":
                        yield Delta(data["text"])
                    elif name == "error":
                        raise ApiError(data.get("error") or "服务出错了，请稍后再试", code=data.get("code", ""))
                    elif name == "done":
                        if recalled := (data.get("detail") or {}).get("memories"):
                            yield Recalled(tuple(memory["text"] for memory in recalled))
                        return
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        except (ValueError, KeyError, TypeError) as error:
            raise ApiError("服务的回答不合约定，请检查本页所连的地址") from error
        raise ApiError("回答中断了，没有说完，请再试一次")

    async def forget(self, session: str) -> None:
        """DELETE /v1/sessions/<id>."""
        await self._ask("DELETE", f"/v1/sessions/{session}")

    async def ask(self, method: str, path: str, body: Any = None, **form: Any) -> dict[str, Any]:
        """Any other request, with `body` as JSON or a `form` as httpx takes it; the JSON of its answer."""
        return _json(await self._ask(method, path, body, **form))

    async def read(self, path: str) -> bytes:
        """GET what is no JSON."""
        return (await self._ask("GET", path)).content

    async def _ask(self, method: str, path: str, body: Any = None, **form: Any) -> httpx.Response:
        try:
            response = await self._http.request(method, path, json=body, **form)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        if response.status_code != 200:
            raise self._refusal(response)
        return response

    def _unreachable(self, error: httpx.HTTPError) -> ApiError:
        if isinstance(error, httpx.ReadTimeout):
            return ApiError("服务很久没有回答，请稍后再试", code="timeout")
        if isinstance(error, httpx.RemoteProtocolError | httpx.ReadError):
            return ApiError("与服务的连接中断了，请再试一次", code="broken")
        return ApiError(f"连不上服务 {self.address}，请确认它已经启动（make demo 或 make serve）", code="unreachable")

    def _refusal(self, response: httpx.Response) -> ApiError:
        status = response.status_code
        try:
            told = response.json()["error"]
            message, code = (told["message"], told["code"]) if isinstance(told, dict) else (told, "")
            code = code or response.json().get("code", "")
            if not isinstance(message, str):
                raise TypeError(message)
        except (ValueError, KeyError, TypeError):
            message, code = f"服务没有给出能读懂的回答（HTTP {status}），请检查本页所连的地址 {self.address}", ""
        if status == 401:
            message = "服务不接受本页的密钥，请管理员设置 QWEN_UI_API_KEY 后重新启动本页"
        return ApiError(str(message), status=status, code=str(code), retry_after=_retry_after(response))


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds, whether the header counts them or names a date; at most two minutes."""
    value = response.headers.get("Retry-After")
    if value is None:
        return None
    try:
        seconds = float(value) if value.isdecimal() else parsedate_to_datetime(value).timestamp() - time()
    except ValueError:
        return None
    return min(max(seconds, 0.0), _MOST_RETRY_S)


async def _events(blocks: AsyncIterator[bytes]) -> AsyncIterator[tuple[str, Any]]:
    """Server-sent events. Split at line feeds only: httpx also ends lines at U+2028, which JSON may hold."""
    rest = b""
    async for block in blocks:
        *frames, rest = (rest + block).split(b"\n\n")
        for frame in frames:
            fields = dict(line.partition(b": ")[::2] for line in frame.split(b"\n") if not line.startswith(b":"))
            if b"event" in fields:
                yield fields[b"event"].decode(), json.loads(fields[b"data"])


def _json(response: httpx.Response) -> dict[str, Any]:
    try:
        data = response.json()
    except ValueError:
        data = None
    if not isinstance(data, dict):
        raise ApiError("服务的回答不合约定，请检查本页所连的地址", status=response.status_code)
    return data


def _task(entry: dict[str, Any], document: dict[str, Any]) -> Task:
    detail = "detail" in _fields_of(document, f"/v1/tasks/{entry['name']}")
    return Task(
        entry["name"], entry["description"], entry["kind"], tuple(entry["inputs"]), tuple(entry["labels"]), detail
    )


def _router(document: dict[str, Any]) -> Task | None:
    fields = _fields_of(document, _ROUTE)
    if "text" not in fields:
        return None
    return Task(_ROUTE, "自动：由模型挑选适合的任务", "any", ("text",), (), "detail" in fields)


def _fields_of(document: dict[str, Any], path: str) -> set[str]:
    """The fields that a POST to `path` takes, by the OpenAPI document; none where it is not there."""
    try:
        schema = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        if reference := schema.get("$ref"):
            schema = document["components"]["schemas"][reference.rpartition("/")[2]]
        return set(schema["properties"])
    except KeyError:
        return set()


def _shown(item: Any) -> str:
    return item if isinstance(item, str) else json.dumps(item, ensure_ascii=False)
