"""A file that the service works off in its own time: handed over, found again by its id, and what comes of it. The
service is a small one of this test that keeps files and batches, so that their state can be chosen."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from ui import batches
from ui.client import About, Api, ApiError, Task
from ui.desk_job import DeskJob, offers_desk

SENTIMENT = Task("sentiment", "情感", "label", ("text",), ("正面", "负面"), detail=True)
INTENT = Task("intent", "意图", "label", ("text",), ("表扬", "投诉"), detail=True)
CARE = Task("care", "求助", "label", ("text",), ("求助", "平常"), detail=True)
KEYWORDS = Task("keywords", "关键词", "list", ("text",), (), detail=True)
SUGGEST = Task("suggest", "回复", "text", ("text", "label", "intent"), (), detail=True)
ALL = (SENTIMENT, INTENT, CARE, KEYWORDS, SUGGEST)
ABOUT = About("demo", ALL, sessions=False, batches=True)
CSV = "编号,反馈\n1,房间干净\n2,等了两个小时，退钱\n3,\n4,房间干净\n5,不想活了，退钱\n6,多了,一列\n".encode("gb18030")


@dataclass
class Desk:
    """The service: batches are over as soon as `works`."""

    works: bool = True
    files: dict[str, bytes] = field(default_factory=dict)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    refuse: str = ""  # an endpoint that takes no batch
    draft: dict[str, Any] = field(default_factory=dict)  # what it suggests, if it is to be this

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path, method = request.url.path, request.method
        if path == "/v1/tasks":
            gold = {"cases": 40, "accuracy": 0.9}
            listed = [
                {"name": task.name, "labels": task.labels} | ({"gold": gold} if task.labels else {}) for task in ALL
            ]
            return httpx.Response(200, json={"tasks": listed})
        if (method, path) == ("POST", "/v1/files"):
            id = f"file-{len(self.files)}"
            boundary = request.headers["Content-Type"].partition("boundary=")[2].encode()
            part = next(p for p in request.content.split(b"--" + boundary) if b"filename=" in p)
            self.files[id] = part.partition(b"\r\n\r\n")[2][:-2]
            return httpx.Response(200, json={"id": id})
        if (method, path) == ("POST", "/v1/batches"):
            return self._begin(json.loads(request.content))
        if path == "/v1/batches":
            return httpx.Response(200, json={"data": [self._shown(id) for id in reversed(self.batches)]})
        kind, id = path.split("/")[2:4]
        kept: dict[str, Any] = self.files if kind == "files" else self.batches
        if id not in kept:
            return httpx.Response(404, json={"error": {"message": "没有", "code": "not_found"}})
        if method == "DELETE":
            del self.files[id]
            return httpx.Response(200, json={"deleted": True})
        if path.endswith("/content"):
            return httpx.Response(200, content=self.files[id])
        if path.endswith("/cancel"):
            self.batches[id]["status"] = "cancelled"
        return httpx.Response(200, json=self._shown(id))

    def _begin(self, body: dict[str, Any]) -> httpx.Response:
        if body["endpoint"] == self.refuse:
            return httpx.Response(429, json={"error": {"message": "批处理太多", "code": "batches_full"}})
        id = f"batch_{len(self.batches)}"
        self.batches[id] = {**body, "status": "in_progress"}
        return httpx.Response(200, json=self._shown(id))

    def _shown(self, id: str) -> dict[str, Any]:
        batch = self.batches[id]
        lines = [json.loads(line) for line in self.files.get(batch["input_file_id"], b"").splitlines()]
        if self.works and batch["status"] == "in_progress":
            batch["status"] = "completed"
            out = [json.dumps(_answered(line, self.draft), ensure_ascii=False) for line in lines]
            batch["output_file_id"] = f"out-{id}"
            self.files[f"out-{id}"] = "\n".join(out).encode()
        done = len(lines) if batch["status"] == "completed" else 0
        counts = {"total": len(lines), "completed": done, "failed": 0}
        return {
            "id": id,
            "output_file_id": None,
            "error_file_id": None,
            "errors": None,
            **batch,
            "request_counts": counts,
        }


def _answered(line: dict[str, Any], draft: dict[str, Any]) -> dict[str, Any]:
    task, text = line["url"].rpartition("/")[2], line["body"]["text"]
    bad, desperate = "退钱" in text, "不想活" in text
    label = {"sentiment": ("正面", "负面")[bad], "intent": ("表扬", "投诉")[bad], "care": ("平常", "求助")[desperate]}
    if task in label:
        body = {"label": label[task], "detail": {"probabilities": {label[task]: 0.97}}}
    else:
        body = {"items": ["房间"]} if task == "keywords" else draft or {"text": f"您好，关于“{text}”"}
    return {"custom_id": line["custom_id"], "response": {"status_code": 200, "body": body}, "error": None}


def talk(desk: Desk, work: Callable[[Api], Awaitable[Any]]) -> Any:
    import asyncio

    async def run() -> Any:
        api = Api("http://service")
        api._http = httpx.AsyncClient(base_url="http://service", transport=httpx.MockTransport(desk))
        try:
            return await work(api)
        finally:
            await api.close()

    return asyncio.run(run())


async def begin(api: Api, *, desk: bool = True, task: Task = SENTIMENT) -> DeskJob:
    return await DeskJob.begin(api, ABOUT, CSV, True, 1, task, "留言", most=100, desk=desk)


async def to_its_end(job: DeskJob) -> DeskJob:
    while not job.over:
        await job.look()
    await job.fetch()
    return job


def test_what_a_file_comes_to() -> None:
    desk = Desk()

    async def work(api: Api) -> tuple[DeskJob, Any]:
        job = await to_its_end(await begin(api))
        return job, await job.desk()

    job, found = talk(desk, work)
    rows = job.labelled.sheet.rows
    assert [job.labelled.outcome(row).label for row in rows] == ["正面", "负面", "", "正面", "负面"]
    assert [job.labelled.outcome(row).error for row in rows] == ["", "", "内容为空", "", ""]
    asked = {batch["endpoint"]: desk.files[batch["input_file_id"]].count(b"\n") for batch in desk.batches.values()}
    each = dict.fromkeys(("/v1/tasks/intent", "/v1/tasks/care", "/v1/tasks/keywords", "/v1/tasks/sentiment"), 3)
    assert asked == {**each, "/v1/tasks/suggest": 1}, "equal texts once; no reply to one who may be in danger"
    assert (found.figures.rows, found.figures.labelled, found.figures.alarmed) == (6, 4, 2)
    alarms = found.alarms()
    assert alarms.index("紧急") < alarms.index("等了两个小时")
    assert alarms.count("建议回复：") == 1 and "您好，关于“等了两个小时，退钱”" in alarms
    assert found.alarm_file().decode("utf-8-sig").splitlines()[2].startswith('"紧急","求助、投诉、强烈负面","不想活了')
    head, first = found.file().decode("utf-8-sig").splitlines()[:2]
    assert head.startswith('"编号","反馈","情感","情感概率","意图"') and first.startswith(
        '"1","房间干净","正面","0.9700"'
    )
    assert "<html" in found.report and "留言.csv" in found.report and "demo" in found.report


@pytest.mark.parametrize("reply", [{"text": "退款" * 30}, {"text": "我们会尽", "detail": {"finish_reason": "length"}}])
def test_a_draft_in_a_loop_or_cut_off_is_dropped_and_told(reply: dict[str, Any]) -> None:
    desk = Desk(draft=reply)

    async def work(api: Api) -> Any:
        return await (await to_its_end(await begin(api))).desk()

    found = talk(desk, work)
    (asked,) = (batch for batch in desk.batches.values() if batch["endpoint"].endswith("/suggest"))
    body = json.loads(desk.files[asked["input_file_id"]])["body"]
    assert body["detail"] is True, "whether it was cut off is among the details"
    assert found.figures.drafts_dropped == 1 and "另有 1 条不断重复或没有写完" in found.alarms()
    assert reply["text"] not in found.alarms() + found.report + found.file().decode()
    assert "拟的回复不断重复或没有写完，没有采用" in found.file().decode()


def test_a_file_is_found_again_by_its_id_whatever_has_happened_meanwhile() -> None:
    desk = Desk(works=False)
    job = talk(desk, begin)
    assert not job.over and "0 / 12 次判断" in job.progress() and "可以关掉这一页" in job.progress()
    again = talk(desk, lambda api: DeskJob.resume(api, ABOUT, job.main))
    assert (again.name, again.main, again.labelled.sheet.columns) == ("留言", job.main, ("编号", "反馈"))
    assert again.labelled.sheet.rows == job.labelled.sheet.rows and again.labelled.sheet.bad == job.labelled.sheet.bad
    assert set(again.parts) == {"sentiment", "intent", "care", "keywords"} and not again.over
    desk.works = True

    async def go_on(api: Api) -> DeskJob:
        return await to_its_end(await DeskJob.resume(api, ABOUT, job.main))

    ended = talk(desk, go_on)
    assert "完成" in ended.progress() and "suggest" in ended.parts
    twice = talk(desk, go_on)
    assert twice.parts["suggest"].id == ended.parts["suggest"].id, "replies are not asked for twice"


def test_what_is_no_file_of_the_page_is_not_taken_for_one() -> None:
    desk = Desk()

    async def another(api: Api) -> str:
        return (await batches.begin(api, "/v1/tasks/sentiment", {0: {"text": "好"}}, {"shop": "3"})).id

    id = talk(desk, another)
    for wrong in (id, "batch_of_nobody"):
        with pytest.raises(ApiError) as caught:
            talk(desk, lambda api, wrong=wrong: DeskJob.resume(api, ABOUT, wrong))
        assert caught.value.status == 404


def test_a_stop_keeps_what_there_is() -> None:
    desk = Desk(works=False)

    async def work(api: Api) -> tuple[DeskJob, Any]:
        job = await begin(api)
        await job.stop()
        job = await to_its_end(job)
        return job, await job.desk()

    job, found = talk(desk, work)
    assert "已停止" in job.progress()
    assert {job.labelled.outcome(row).error for row in job.labelled.sheet.rows} == {"未处理", "内容为空"}
    assert found.figures.labelled == 0 and "没有警报" in found.alarms()
    assert {batch["status"] for batch in desk.batches.values()} == {"cancelled"}


def test_a_service_that_takes_only_some_of_it_is_left_with_nothing() -> None:
    desk = Desk(works=False, refuse="/v1/tasks/sentiment")
    with pytest.raises(ApiError, match="批处理太多"):
        talk(desk, begin)
    assert desk.files == {}
    assert {batch["status"] for batch in desk.batches.values()} == {"cancelled"}


def test_replies_that_the_service_does_not_take_at_once_are_asked_for_again() -> None:
    desk = Desk(refuse="/v1/tasks/suggest")

    async def work(api: Api) -> Any:
        job = await begin(api)
        for _ in range(2):
            with pytest.raises(ApiError, match="批处理太多"):
                await job.look()
            assert not job.over
        desk.refuse = ""
        return await (await to_its_end(job)).desk()

    assert "您好" in talk(desk, work).report


def test_labels_alone_where_no_report_is_wanted_and_everything_is_forgotten_on_request() -> None:
    desk = Desk()

    async def work(api: Api) -> Any:
        job = await to_its_end(await begin(api, desk=False, task=INTENT))
        found = await job.desk()
        await job.discard()
        return job, found

    job, found = talk(desk, work)
    assert found is None and [job.labelled.outcome(row).label for row in job.labelled.sheet.rows][:2] == [
        "表扬",
        "投诉",
    ]
    assert desk.files == {}


def test_an_empty_column_is_refused_before_anything_is_sent() -> None:
    desk = Desk()
    with pytest.raises(ApiError, match="没有文字"):
        talk(
            desk,
            lambda api: DeskJob.begin(api, ABOUT, b"a,b\n1,\n", True, 1, SENTIMENT, "x", most=9, desk=True),
        )
    assert desk.files == {}


def test_a_report_is_offered_where_its_tasks_and_batches_are() -> None:
    assert offers_desk(ABOUT, SENTIMENT)
    assert not offers_desk(ABOUT, INTENT)
    assert not offers_desk(About("demo", ALL, sessions=False), SENTIMENT)
    assert not offers_desk(About("demo", (SENTIMENT, INTENT), sessions=False, batches=True), SENTIMENT)
    assert not offers_desk(None, SENTIMENT)
