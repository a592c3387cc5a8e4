"""The answer cache over HTTP, in memory."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import TestResponse

from qwen_allinone.access import keys
from qwen_allinone.errors import Cancelled
from qwen_allinone.service import Answer, CacheUse, Terms
from tests.integration.conftest import Gate, Later, Server, StartServer, until
from tests.integration.test_http_new_task import TITLE, add
from tests.support.tasks import make_greedy

TEXT = "今天心情特别差，工作也不顺利"


@pytest.fixture(scope="module")
def text_prompts(prompts_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a greedy text task, and with the chat's reply greedy too."""
    prompts = Path(shutil.copytree(prompts_folder, tmp_path_factory.mktemp("cache") / "prompts"))
    add(prompts, "title", TITLE)
    make_greedy(prompts / "chat", 16)
    return prompts


def ask(
    server: Server, text: str = TEXT, path: str = "/v1/tasks/sentiment", control: str = "", **more: Any
) -> TestResponse:
    headers = {"Cache-Control": control} if control else {}
    return server.client.post(path, json={"text": text} | more, headers=headers)


def cached(answer: TestResponse) -> str | None:
    assert answer.status_code == 200, answer.get_json()
    assert answer.headers["Cache-Control"] == "no-store"
    return answer.headers.get("X-Cache")


def test_the_second_time_the_answer_is_there_and_no_step_is_computed(start_server: StartServer) -> None:
    server = start_server()
    gate = Gate(server)
    first = ask(server, detail=True)
    steps = gate.steps
    again = ask(server, detail=True)
    assert (cached(first), cached(again)) == ("MISS", "HIT")
    assert gate.steps == steps > 0
    one, other = first.get_json(), again.get_json()
    assert one["label"] == other["label"]
    for key in ("probabilities", "label_mass", "model", "prompt_version", "finish_reason"):
        assert one["detail"][key] == other["detail"][key]
    usage = other["detail"]["usage"]
    assert usage["completion_tokens"] == 0 and usage["reused_tokens"] == usage["prompt_tokens"] > 0
    assert usage["prompt_tokens"] == one["detail"]["usage"]["prompt_tokens"]
    assert set(other["detail"]["timings"].values()) == {0.0}
    assert cached(ask(server, TEXT + "。")) == "MISS"


def test_no_store_is_neither_read_nor_kept_and_no_cache_is_kept_only(start_server: StartServer) -> None:
    server = start_server()
    assert [cached(ask(server, control="no-store")) for _ in range(2)] == ["MISS", "MISS"]
    assert cached(ask(server)) == "MISS", "nothing was kept"
    assert cached(ask(server, control="No-Store, max-age=0")) == "MISS", "nothing was read"
    assert cached(ask(server)) == "HIT"
    for control in ("no-cache", "max-age=0"):
        text = f"很开心 {control}"
        assert [cached(ask(server, text, control=control)) for _ in range(2)] == ["MISS", "MISS"]
        assert cached(ask(server, text)) == "HIT", "what was computed was kept"
    assert cached(ask(server, control="max-age=60")) == "HIT"


def test_ten_at_once_compute_once(start_server: StartServer) -> None:
    server = start_server()
    gate = Gate(server)
    gate.shut()
    asked = [Later(lambda: ask(server)) for _ in range(10)]
    until(lambda: server.service.engine.admitted == 10)
    gate.open()
    found = [cached(later.answer()) for later in asked]
    assert sorted(map(str, found)) == ["HIT"] * 9 + ["MISS"]
    assert gate.steps == 1
    until(lambda: server.service.engine.admitted == 0)


def test_those_who_wait_have_their_own_deadline_and_a_leader_that_is_too_late_harms_no_other(
    start_server: StartServer,
) -> None:
    server = start_server()
    gate = Gate(server)
    gate.shut()
    leader = Later(
        lambda: server.client.post("/v1/tasks/sentiment", json={"text": TEXT}, headers={"X-Timeout-Ms": "1500"})
    )
    assert gate.entered.wait(30)
    short = Later(
        lambda: server.client.post("/v1/tasks/sentiment", json={"text": TEXT}, headers={"X-Timeout-Ms": "200"})
    )
    patient = [Later(lambda: ask(server)) for _ in range(3)]
    assert short.answer().status_code == 504
    until(lambda: server.service.engine.admitted == 4)
    assert leader.answer().status_code == 504
    gate.open()
    assert sorted(str(cached(each.answer())) for each in patient) == ["HIT", "HIT", "MISS"]


def test_a_client_that_leaves_takes_nobody_along(start_server: StartServer) -> None:
    server = start_server(QAIO_SLOTS="1")
    gate = Gate(server)
    gate.shut()
    busy = Later(lambda: ask(server, "别的"))
    assert gate.entered.wait(30)
    leaves: list[Callable[[], None]] = []

    def watch(leave: Callable[[], None]) -> AbstractContextManager[None]:
        leaves.append(leave)
        return nullcontext()

    def run() -> Answer:
        return server.service.run("sentiment", {"text": TEXT}, Terms(watch=watch, cache=CacheUse()))

    with ThreadPoolExecutor(3) as pool:
        asked = []
        for count in (1, 2, 3):
            asked.append(pool.submit(run))
            until(lambda count=count: len(leaves) == count and server.service.engine.waiting == 1)  # type: ignore[misc]
        leader, follower, last = asked
        leaves[1]()
        with pytest.raises(Cancelled):
            follower.result(30)
        assert not leader.done() and not last.done()
        leaves[0]()
        gate.open()
        with pytest.raises(Cancelled):
            leader.result(30)
        assert last.result(30).cache == "MISS", "it leads now"
    assert busy.answer().status_code == 200


def test_errors_are_not_kept(start_server: StartServer) -> None:
    server = start_server()
    for text, status in ((" ", 400), ("好" * 5000, 400), ("\\ud83d", 400)):
        body = b'{"text": "\\ud83d"}' if "ud83d" in text else {"text": text}
        for _ in range(2):
            answer = server.post("/v1/tasks/sentiment", body)
            assert answer.status_code == status and "X-Cache" not in answer.headers
    gate = Gate(server)
    model: Any = server.service.engine.model
    model.forward = lambda *_: (_ for _ in ()).throw(RuntimeError("broken"))
    assert ask(server).status_code == 500
    model.forward = gate
    assert cached(ask(server)) == "MISS"


def test_a_chat_remembers_the_sentiment_and_makes_a_new_reply_each_time(start_server: StartServer) -> None:
    server = start_server()
    assert cached(ask(server, detail=True)) == "MISS"
    replies = [ask(server, path="/chat", detail=True) for _ in range(6)]
    for reply in replies:
        assert cached(reply) is None, "half of the answer is new, so neither word would be true"
        halves = reply.get_json()["detail"]
        assert halves["sentiment"]["usage"]["completion_tokens"] == 0
        assert halves["response"]["usage"]["completion_tokens"] > 0
    assert len({reply.get_json()["response"] for reply in replies}) > 1
    fresh = ask(server, path="/chat", control="no-store", detail=True).get_json()
    assert fresh["detail"]["sentiment"]["usage"]["completion_tokens"] == 1


def test_greedy_text_is_remembered_and_sampled_text_is_not(start_server: StartServer, text_prompts: Path) -> None:
    server = start_server(QAIO_PROMPTS=str(text_prompts))
    titles = [ask(server, path="/v1/tasks/title", style="活泼") for _ in range(2)]
    assert [cached(title) for title in titles] == ["MISS", "HIT"]
    assert titles[0].data == titles[1].data
    assert cached(ask(server, path="/v1/tasks/title", style="庄重")) == "MISS"
    sampled = start_server()
    assert [cached(ask(sampled, path="/v1/tasks/chat", sentiment="负面")) for _ in range(2)] == [None, None]


def test_a_greedy_chat_is_made_anew_each_time_for_conversations_need_its_tokens(
    start_server: StartServer, text_prompts: Path
) -> None:
    server = start_server(QAIO_PROMPTS=str(text_prompts))
    assert [cached(ask(server, path="/v1/tasks/chat", sentiment="负面")) for _ in range(2)] == ["MISS", "HIT"]
    first, again = (server.service.chat(TEXT, Terms(cache=CacheUse())) for _ in range(2))
    assert (first.sentiment.cache, again.sentiment.cache) == ("MISS", "HIT")
    assert first.reply.cache is None and first.reply.result.ids == again.reply.result.ids != ()


def test_callers_with_keys_do_not_learn_what_others_asked(start_server: StartServer, tmp_path: Path) -> None:
    alice, bob = keys.add(tmp_path / "keys", "alice"), keys.add(tmp_path / "keys", "bob")
    server = start_server(QAIO_API_KEYS_FILE=str(tmp_path / "keys"))

    def by(key: str) -> str | None:
        return cached(server.client.post("/v1/tasks/sentiment", json={"text": TEXT}, headers={"X-API-Key": key}))

    assert [by(alice), by(alice), by(bob), by(bob)] == ["MISS", "HIT", "MISS", "HIT"]


def test_a_remembered_answer_costs_a_request_and_no_tokens(start_server: StartServer) -> None:
    server = start_server(QAIO_RATE_REQUESTS="3", QAIO_RATE_TOKENS="1")
    first = ask(server, control="no-store")
    assert first.status_code == 200
    server = start_server(QAIO_RATE_REQUESTS="3")
    assert [ask(server).status_code for _ in range(4)] == [200, 200, 200, 429]
    tokens = start_server(QAIO_RATE_TOKENS="100")
    left = [int(ask(tokens).headers["X-RateLimit-Remaining"]) for _ in range(3)]
    assert left == [99, 99, 99]


def test_hits_are_counted_and_are_no_prompt_tokens(start_server: StartServer) -> None:
    server = start_server()

    def metric(name: str) -> float:
        lines = server.client.get("/metrics").get_data(as_text=True).splitlines()
        return float(next(line.split()[-1] for line in lines if line.startswith(f"{name} ")))

    ask(server)
    computed = metric("qaio_prompt_tokens_total")
    ask(server)
    ask(server, path="/v1/tasks/chat", sentiment="负面")
    assert metric("qaio_answer_cache_queries_total") == 2
    assert metric("qaio_answer_cache_hits_total") == 1
    assert metric("qaio_prompt_tokens_total") > computed > 0
    labels = server.client.get("/metrics").get_data(as_text=True)
    assert sum(float(line.split()[-1]) for line in labels.splitlines() if line.startswith("qaio_labels_total{")) == 2


def test_without_memory_for_it_there_is_no_cache(start_server: StartServer) -> None:
    server = start_server(QAIO_CACHE_MB="0")
    assert [cached(ask(server)) for _ in range(2)] == [None, None]


def test_what_is_old_is_computed_anew(start_server: StartServer) -> None:
    server = start_server(QAIO_CACHE_TTL_S="1")
    assert cached(ask(server)) == "MISS"
    until(lambda: cached(ask(server, "别的")) is not None and cached(ask(server)) == "MISS")


def test_a_full_server_refuses_what_it_may_know_too(start_server: StartServer) -> None:
    """It does not look at the body first; docs/cache.md says so."""
    server = start_server(QAIO_SLOTS="1", QAIO_MAX_WAITING="0")
    assert cached(ask(server)) == "MISS"
    gate = Gate(server)
    gate.shut()
    busy = Later(lambda: ask(server, "别的"))
    until(lambda: server.service.engine.admitted == 1)
    assert ask(server).status_code == 503
    gate.open()
    assert busy.answer().status_code == 200


def test_classify_and_analyze_say_where_their_answers_come_from(start_server: StartServer) -> None:
    server = start_server()
    body = {"model": "demo", "input": [TEXT, "很开心"]}
    found = [cached(server.client.post("/v1/classify", json=body)) for _ in range(2)]
    assert found == ["MISS", "HIT"]
    half_new = body | {"input": [TEXT, "天气不错"]}
    assert cached(server.client.post("/v1/classify", json=half_new)) == "MISS", "a part of it was computed"
    asked = {"text": TEXT, "tasks": ["sentiment", "intent"]}
    assert [cached(server.client.post("/v1/analyze", json=asked)) for _ in range(2)] == ["MISS", "HIT"]
    fresh = server.client.post("/v1/classify", json=body, headers={"Cache-Control": "no-store"})
    assert cached(fresh) == "MISS"


def test_a_route_says_so_unless_the_task_it_picks_makes_something_new(start_server: StartServer) -> None:
    server = start_server()
    for text in ("翻译一下：我喜欢喝茶", "房间很小，隔音也差"):
        answers = [ask(server, text, path="/v1/route") for _ in range(2)]
        task = server.service.registry.get(answers[0].get_json()["task"])
        greedy = task.spec.decoding.strategy == "greedy"
        assert [cached(answer) for answer in answers] == (["MISS", "HIT"] if greedy else [None, None])
