"""What a visitor sees and can do, in headless Chromium against the real service on the demo model."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import until
from tests.support.relay import Planted, Relay
from tests.ui.conftest import Visit

SAD, HAPPY = "今天心情特别差，工作也不顺利", "终于通过了面试，开心！"
BUSY = Planted(
    503, json.dumps({"error": "服务器繁忙，请稍后再试", "code": "server_busy"}).encode(), {"Retry-After": "7"}
)
# Notes what the last answer shows each time that it changes.
WATCH = """() => {
  window.stages = [];
  new MutationObserver(() => {
    const said = [...document.querySelectorAll('.theirs')].pop();
    const stage = said ? {verdict: said.querySelector('.verdict')?.innerText ?? '', reply: said.querySelector('.reply')?.innerText ?? ''} : null;
    if (stage && JSON.stringify(stage) !== JSON.stringify(window.stages.at(-1))) window.stages.push(stage);
  }).observe(document.querySelector('#conversation'), {subtree: true, childList: true, characterData: true});
}"""


def test_the_sentiment_comes_first_and_then_the_reply_grows(visit: Visit) -> None:
    visitor = visit()
    visitor.page.evaluate(WATCH)
    visitor.say(SAD)
    visitor.wait_answered(1)
    stages = visitor.page.evaluate("window.stages")
    judged = [stage for stage in stages if stage["verdict"]]
    assert judged[0]["verdict"].startswith("😢 LLM 情感判断: 负面")
    assert judged[0]["reply"] == ""
    assert all(not stage["reply"] for stage in stages if not stage["verdict"])
    replies = [stage["reply"] for stage in judged]
    assert len(set(replies)) > 5
    assert all(later.startswith(earlier) for earlier, later in zip(replies, replies[1:], strict=False))
    assert visitor.page.locator("#say textarea").input_value() == ""


def test_a_conversation_keeps_its_turns_until_a_new_one_is_begun(visit: Visit, front: Relay) -> None:
    visitor = visit()
    front.seen.clear()
    visitor.say(SAD)
    visitor.wait_answered(1)
    visitor.say(HAPPY)
    visitor.wait_answered(2)
    assert visitor.page.locator(".mine").all_inner_texts() == [SAD, HAPPY]
    assert "😄 LLM 情感判断: 正面" in visitor.last_reply()
    box, end = (visitor.page.locator(name).bounding_box() for name in ("#conversation", ".theirs >> nth=-1"))
    assert end["y"] + end["height"] <= box["y"] + box["height"] + 1, "the newest turn is in view"
    sent = [json.loads(seen.body) for seen in front.seen if seen.path == "/chat"]
    assert [body["text"] for body in sent] == [SAD, HAPPY]
    assert sent[0]["session"] is True and "session_id" not in sent[0]
    kept = f"/v1/sessions/{sent[1]['session_id']}"
    visitor.page.locator("#fresh").click()
    visitor.page.locator(".empty").wait_for()
    assert visitor.page.locator(".mine").count() == 0
    until(lambda: ("DELETE", kept) in [(seen.method, seen.path) for seen in front.seen], "the service forgets it too")


@pytest.mark.parametrize("window", [{}, {"viewport": {"width": 390, "height": 844}}], ids=["wide", "narrow"])
def test_the_newest_turn_is_in_view_however_long_the_conversation(visit: Visit, window: dict[str, Any]) -> None:
    visitor = visit(**window)
    for turn in range(1, 9):
        visitor.say(f"第 {turn} 件事，今天真开心")
        visitor.wait_answered(turn)
        box, end = (visitor.page.locator(name).bounding_box() for name in ("#conversation", ".theirs >> nth=-1"))
        assert end["y"] + end["height"] <= box["y"] + box["height"] + 1, turn
        assert end["y"] >= box["y"], turn
    assert visitor.page.evaluate("document.querySelector('.newest').scrollHeight") > box["height"]


def test_an_answer_can_be_stopped_and_the_next_one_comes(
    visit: Visit, front: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor = visit()
    with monkeypatch.context() as patch:
        patch.setattr(front, "pause_s", 0.5)  # or the reply is done before anybody can stop it
        visitor.say(SAD)
        visitor.page.locator(".theirs .reply").wait_for()
        visitor.page.locator("#halt").click()
        visitor.page.locator(".theirs.stopped").wait_for()
    assert visitor.last_reply().endswith("已停止")
    visitor.say(HAPPY)
    visitor.wait_answered(2)
    assert "正面" in visitor.last_reply() and visitor.page.locator(".theirs.done").count() == 1


def test_a_refusal_is_told_and_what_was_typed_is_there_to_be_sent_again(visit: Visit, front: Relay) -> None:
    visitor = visit()
    front.plant("/chat", BUSY)
    visitor.say(SAD)
    visitor.page.get_by_text("服务器繁忙，请稍后再试（7 秒后再试）").wait_for()
    box = visitor.page.locator("#say textarea")
    visitor.page.wait_for_function("document.querySelector('#say textarea').value !== ''")
    assert box.input_value() == SAD
    visitor.wait_answered(1)
    front.plant("/chat", Planted(401, b'{"error": "...", "code": "unauthorized"}'))
    box.press("Enter")
    visitor.page.get_by_text("服务不接受本页的密钥").wait_for()
    visitor.wait_answered(2)
    front.plant("/chat", Planted(0))
    visitor.say(HAPPY)
    visitor.page.get_by_text("与服务的连接中断了").wait_for()
    visitor.wait_answered(3)
    front.pass_on()
    visitor.say(SAD)
    visitor.page.locator(".theirs.done").wait_for()
    assert "负面" in visitor.last_reply()


def test_a_page_opened_while_the_service_is_away_says_so_and_connects_later_and_keeps_its_key(
    visit: Visit, front: Relay
) -> None:
    front.seen.clear()
    visitor = visit()
    front.plant("/v1/tasks", Planted(503, b"<html>Bad gateway</html>"))
    visitor.page.reload()
    visitor.page.get_by_text("服务没有给出能读懂的回答（HTTP 503）").wait_for()
    front.pass_on()
    visitor.page.get_by_role("button", name="重新连接").click()
    visitor.page.get_by_text("模型 demo").wait_for()
    assert {seen.headers.get("Authorization") for seen in front.seen} == {"Bearer a-key"}
    assert "a-key" not in visitor.page.content()


def test_markup_in_what_people_and_the_model_write_stays_text(visit: Visit, front: Relay) -> None:
    evil = '<img src="http://outside.invalid/x" onerror="window.hurt=1"> ${window.hurt=1} {{value}} ![x](http://outside.invalid/y)'
    events = (
        ("sentiment", {"label": evil, "emoji": "😄", "probability": 0.9}),
        ("delta", {"text": evil}),
        ("done", {}),
    )
    stream = "".join(f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n" for name, data in events)
    visitor = visit()
    front.plant("/chat", Planted(200, stream.encode()))
    visitor.say(evil)
    visitor.wait_answered(1)
    assert visitor.page.locator(".mine").inner_text() == evil
    assert visitor.page.locator(".reply").inner_text() == evil
    assert evil in visitor.page.locator(".verdict").inner_text()
    assert visitor.page.evaluate("window.hurt") is None


def test_a_task_answers_with_a_bar_for_each_probability(visit: Visit, front: Relay) -> None:
    visitor = visit()
    visitor.open_tab("更多任务")
    visitor.page.locator("#input-text textarea").fill("房间很小，隔音也差")
    visitor.page.locator("#run").click()
    visitor.page.locator("#result .chip", has_text="负面").wait_for()
    assert visitor.page.locator("#result .bar-name").all_inner_texts() == ["负面", "正面"]
    answer = {"task": "sentiment", "label": "正面", "detail": {"probabilities": {"负面": 0.25, "正面": 0.75}}}
    front.plant("/v1/tasks/sentiment", Planted(200, json.dumps(answer).encode()))
    visitor.page.locator("#run").click()
    visitor.page.locator("#result .bar", has_text="75.0%").wait_for()
    assert visitor.page.locator("#result .bar").all_inner_texts() == ["正面\n75.0%", "负面\n25.0%"]
    fills = visitor.page.locator("#result .bar-fill").evaluate_all(
        "all => all.map(one => one.getBoundingClientRect().width)"
    )
    assert abs(fills[0] / fills[1] - 3) < 0.1
    front.plant("/v1/tasks/sentiment", BUSY)
    visitor.page.locator("#run").click()
    visitor.page.get_by_text("7 秒后再试").wait_for()
    assert visitor.page.locator("#input-text textarea").input_value() == "房间很小，隔音也差"


def test_the_model_picks_the_task_and_the_page_says_which(visit: Visit) -> None:
    visitor = visit()
    visitor.run_task("自动：由模型挑选适合的任务", "请翻译：我喜欢喝茶")
    visitor.page.locator("#result .remark", has_text="挑选的任务：").wait_for()
    assert "中英互译" in visitor.page.locator("#result .remark").inner_text()
    assert "tea" in visitor.page.locator("#result .said").inner_text()


def test_a_list_is_shown_item_by_item(visit: Visit) -> None:
    visitor = visit()
    visitor.run_task("从一段文字里提取关键词", "酒店的早餐很好吃")
    visitor.page.locator("#result .items .chip").first.wait_for()
    assert visitor.page.locator("#result .items .chip").all_inner_texts() == ["酒店", "早餐"]


def test_another_task_begins_without_the_answer_of_the_one_before(visit: Visit) -> None:
    visitor = visit()
    visitor.run_task("从一段文字里提取关键词", "酒店的早餐很好吃")
    answer = visitor.page.locator("#result .items .chip").first
    answer.wait_for()
    visitor.page.locator("#task input").click()
    visitor.page.get_by_role("option", name="中英互译").click()
    answer.wait_for(state="detached")


def test_without_batches_a_file_comes_back_labelled_with_its_shares_and_its_bad_rows(
    visit: Visit, front: Relay, tmp_path: Path
) -> None:
    rows = [
        '1,"房间干净，\n前台也很热情"',
        "2,等了两个小时没人理我，太失望了",
        "3,=1+1 很好用，出乎意料的满意",
        "4,",
        "5,多了,一列",
    ]
    file = tmp_path / "留言.csv"
    file.write_bytes("\r\n".join(["编号,反馈内容", *rows]).encode("gb18030"))
    book = tmp_path / "book.csv"
    book.write_bytes(b"PK\x03\x04" + bytes(range(256)))
    front.plant("/v1/batches?limit=1", Planted(404, b'{"error": {"message": "off", "code": "batches_off"}}'))
    visitor = visit()
    visitor.open_tab("批量反馈")
    assert not visitor.page.locator("#desk").is_visible(), "no report where the service works no batches off"
    visitor.page.locator("input[type=file]").set_input_files(str(book))
    visitor.page.get_by_text("另存为“CSV UTF-8”").wait_for()
    assert visitor.page.locator("#start").is_disabled()
    visitor.page.get_by_role("button", name="清除").click()
    visitor.page.locator("input[type=file]").set_input_files(str(file))
    visitor.page.get_by_text("读到 4 行，GBK 编码").wait_for()
    assert visitor.page.locator("#column input").input_value() == "反馈内容"
    visitor.page.locator("#start").click()
    visitor.page.locator("#download").wait_for()
    assert "3 / 3 条，完成" in visitor.page.locator("#progress").inner_text()
    assert visitor.page.locator("#shares .bar").all_inner_texts() == ["正面\n2 条 · 66.7%", "负面\n1 条 · 33.3%"]
    assert visitor.page.locator("#rows tbody tr td:nth-child(1)").all_inner_texts() == ["2", "4", "5", "6"]
    assert visitor.page.locator("#bad li").all_inner_texts() == ["第 6 行：内容为空", "第 7 行：有 3 列，应为 2 列"]
    with visitor.page.expect_download() as started:
        visitor.page.locator("#download").click()
    assert started.value.suggested_filename == "留言-sentiment.csv"
    data = Path(started.value.path()).read_bytes()
    assert data.startswith(b"\xef\xbb\xbf")
    head, *labelled = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""))
    assert head == ["编号", "反馈内容", "标签", "概率", "说明"]
    assert [row[2] for row in labelled] == ["正面", "负面", "正面", ""]
    assert labelled[0][1] == "房间干净，\n前台也很热情"
    assert labelled[2][1] == "'=1+1 很好用，出乎意料的满意"
    assert labelled[3][4] == "内容为空"


def test_no_tab_scrolls_sideways_in_a_narrow_window(visit: Visit, tmp_path: Path) -> None:
    file = tmp_path / "long.csv"
    file.write_text("一个很长的列名" * 5 + ",内容\n1," + "很长" * 60 + "\n2," + "w" * 120 + "\n", encoding="utf-8")
    visitor = visit(viewport={"width": 390, "height": 844})

    def too_wide() -> int:
        return int(visitor.page.evaluate("document.documentElement.scrollWidth - window.innerWidth"))

    visitor.say("w" * 80)
    visitor.wait_answered(1)
    assert too_wide() <= 0
    visitor.open_tab("更多任务")
    visitor.page.locator("#run").wait_for()
    assert too_wide() <= 0
    visitor.open_tab("批量反馈")
    visitor.page.locator("input[type=file]").set_input_files(str(file))
    visitor.page.locator("#start:enabled").click()
    visitor.page.locator("#rows table").wait_for()
    assert too_wide() <= 0


def test_a_file_goes_on_while_nobody_looks_and_is_shown_when_its_browser_comes_back(
    visit: Visit, front: Relay, tmp_path: Path
) -> None:
    rows = (
        "1,2026-03-01,房间干净，前台也很热情",
        "2,2026-03-02,等了两个小时没人理我，我要投诉，要求退款",
        "3,2026-03-03,",
        "4,2026-03-04,一列太多,x",
    )
    file = tmp_path / "留言.csv"
    file.write_text("\n".join(["编号;日期;反馈", *(row.replace(",", ";") for row in rows)]), encoding="gb18030")
    visitor = visit()
    visitor.open_tab("批量反馈")
    visitor.page.locator("input[type=file]").set_input_files(str(file))
    visitor.page.locator("#start:enabled").click()
    visitor.page.get_by_text("可以关掉这一页").wait_for()
    visitor = visitor.come_back()
    visitor.open_tab("批量反馈")
    visitor.page.locator("#download").wait_for()
    assert "次判断，完成" in visitor.page.locator("#progress").inner_text()
    assert visitor.page.locator("#rows tbody tr td:nth-child(1)").all_inner_texts() == ["2", "3", "4"]
    assert visitor.page.locator("#bad li").all_inner_texts() == ["第 4 行：内容为空", "第 5 行：有 4 列，应为 3 列"]
    alarm = visitor.page.locator("#alarms .alarm", has_text="要求退款")
    assert "投诉" in alarm.inner_text() and "建议回复：" in alarm.inner_text()
    report = visitor.page.frame_locator("#report-page iframe")
    report.get_by_text("留言.csv").first.wait_for()
    for button, name in (("#download", "留言-sentiment.csv"), ("#download-report", "留言-sentiment-report.html")):
        with visitor.page.expect_download() as started:
            visitor.page.locator(button).click()
        assert started.value.suggested_filename == name
    batches = [seen for seen in front.seen if (seen.method, seen.path) == ("POST", "/v1/batches")]
    assert json.loads(batches[-1].body)["endpoint"] == "/v1/tasks/suggest"
    sheet = json.loads(batches[-2].body)["metadata"]["sheet"]
    visitor.page.locator("#discard").click()
    visitor.page.get_by_text("服务里的文件和结果已经删除").wait_for()
    assert visitor.page.locator("#rows table").count() == 0
    gone = httpx.get(f"{front.address}/v1/files/{sheet}", trust_env=False)
    assert gone.status_code == 404


def test_what_is_remembered_is_shown_and_forgotten_by_keyboard_alone(visit: Visit, front: Relay) -> None:
    visitor = visit()
    page = visitor.page
    page.locator("#memory button").first.press("Enter")
    page.locator("#remember input").press("Space")
    me = page.locator("#memory-user input, #memory-user textarea").input_value()
    front.seen.clear()
    visitor.say("我叫小林，在杭州做电商，养了一只猫")
    visitor.wait_answered(1)
    sent = next(json.loads(seen.body) for seen in front.seen if seen.path == "/chat")
    assert sent["user"] == me and me.startswith("web-")
    evil = '用户喜欢 <img src="http://outside.invalid/x" onerror="window.hurt=1">'
    added = httpx.post(f"{front.address}/v1/memory/{me}", json={"text": evil}, trust_env=False)
    assert added.status_code == 200, added.text
    page.get_by_text("杭州做电商（").wait_for()
    page.locator("#memory-fresh").press("Enter")
    page.locator("#memories label", has_text=evil).wait_for()
    assert page.evaluate("window.hurt") is None
    page.locator("#memories label", has_text="手工添加").locator("input").press("Space")
    page.locator("#forget:enabled").press("Enter")
    page.get_by_text("忘掉了 1 件事").wait_for()
    page.locator("#memories label", has_text=evil).wait_for(state="detached")
    visitor = visitor.come_back()
    page = visitor.page
    page.locator("#memory button").first.press("Enter")
    page.locator("#memories label", has_text="杭州做电商").wait_for()
    assert page.locator("#remember input").is_checked()
    page.locator("#forget-all").press("Enter")
    page.locator("#forget-sure").press("Enter")
    page.get_by_text("全部忘掉了").wait_for()
    left = httpx.get(f"{front.address}/v1/memory/{me}", trust_env=False).json()
    assert left["memories"] == []
    page.locator("#memory-user input, #memory-user textarea").fill("alice")
    page.get_by_text("这不是本页的编号").wait_for()
    assert not any(seen.path == "/v1/memory/alice" for seen in front.seen), "nobody asks for a name that can be guessed"


def test_a_changed_prompt_is_tried_beside_the_old_one_and_saved(visit: Visit, front: Relay) -> None:
    visitor = visit()
    page = visitor.page
    visitor.open_tab("试验台")
    page.locator("#bench-task input").click()
    page.get_by_role("option", name="（sentiment）").click()
    prompt = page.locator("#bench-prompt textarea")
    page.get_by_text("44 条标准用例").wait_for()
    served = prompt.input_value()
    assert served.startswith("---\ndescription:") and "$text" in served
    prompt.fill("你好")
    page.locator("#bench-run").click()
    page.get_by_text("is missing or not closed").wait_for()
    page.locator("#bench-undo").click()
    page.wait_for_function("document.querySelector('#bench-prompt textarea').value.length > 100")
    assert prompt.input_value() == served
    prompt.fill(served[: served.rindex("---")] + "---\nuser: 今天星期几？$text\n")
    page.locator("#bench-run").click()
    page.locator("#bench-result tbody tr").nth(43).wait_for()
    bars = page.locator("#bench-result .bar-figure").all_inner_texts()
    before, now = (float(bar.rstrip("%")) for bar in bars)
    assert before > now
    assert page.locator("#bench-result tbody tr").first.locator(".chip").inner_text() == "变错"
    page.locator("#bench-undo").click()
    page.locator("#bench-name input, #bench-name textarea").fill("sentiment_shop")
    page.locator("#bench-save").click()
    page.get_by_text("qwen-allinone prompts reload").wait_for()
    page.locator("#bench-save").click()
    page.get_by_text("已经有名为 sentiment_shop 的任务文件夹").wait_for()


def test_a_service_without_memory_batches_or_a_bench_has_a_page_without_them(visit: Visit, front: Relay) -> None:
    document = httpx.get(f"{front.address}/openapi.json", trust_env=False).json()
    kept = {path: item for path, item in document["paths"].items() if "memory" not in path and "prompts" not in path}
    front.plant("/openapi.json", Planted(200, json.dumps(document | {"paths": kept}).encode()))
    front.plant("/v1/batches?limit=1", Planted(404, b'{"error": {"message": "off", "code": "batches_off"}}'))
    visitor = visit()
    assert visitor.page.get_by_role("tab").all_inner_texts() == ["对话", "更多任务", "批量反馈"]
    assert not visitor.page.locator("#memory").is_visible()


@pytest.mark.parametrize("window", [{}, {"color_scheme": "dark"}], ids=["light", "dark"])
def test_axe_finds_nothing_serious_on_any_tab(visit: Visit, window: dict[str, Any]) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="make install-ui-tests").Axe()
    visitor = visit(**window)
    visitor.page.locator("#memory button").first.click()
    visitor.page.locator("#remember").wait_for()
    visitor.say(HAPPY)
    visitor.wait_answered(1)
    for tab, there in (("对话", "#say"), ("更多任务", "#run"), ("批量反馈", "#file"), ("试验台", "#bench-prompt")):
        visitor.open_tab(tab)
        visitor.page.locator(there).wait_for()
        visitor.page.wait_for_timeout(500)  # colours fade for a moment
        found = axe.run(visitor.page).response["violations"]
        bad = [
            (one["id"], node["target"], node["failureSummary"])
            for one in found
            if one["impact"] in ("serious", "critical")
            for node in one["nodes"]
        ]
        assert bad == [], tab


def test_dark_mode_is_dark_and_readable(visit: Visit) -> None:
    visitor = visit(color_scheme="dark")
    visitor.say(HAPPY)
    visitor.wait_answered(1)
    # WCAG 2 contrast of text on what is behind it.
    contrast = """(selector) => {
      const shade = (colour) => { const [r, g, b] = colour.match(/[\\d.]+/g).map(Number).map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
      const style = getComputedStyle(document.querySelector(selector));
      const [low, high] = [shade(style.color), shade(style.backgroundColor)].sort((a, b) => a - b);
      return [shade(style.backgroundColor), (high + 0.05) / (low + 0.05)];
    }"""
    for selector in (".bubble.mine", ".bubble.theirs", ".chip", "#send", "body"):
        behind, ratio = visitor.page.evaluate(contrast, selector)
        assert ratio >= 4.5, (selector, ratio)
        assert behind < 0.25, (selector, behind)


def test_no_other_website_can_have_a_file_written_here(address: str) -> None:
    """A form of another site needs no permission to be sent; it must be refused when it comes."""
    page, form = address.rstrip("/"), {"files": ("a.csv", b"text\n1\n")}
    with httpx.Client(base_url=page, trust_env=False) as client:
        own = client.post("/gradio_api/upload", files=form, headers={"Origin": page})
        foreign = client.post("/gradio_api/upload", files=form, headers={"Origin": "https://evil.example"})
        rebound = client.get("/", headers={"Host": "evil.example"})
    assert (own.status_code, foreign.status_code, rebound.status_code) == (200, 403, 403)
