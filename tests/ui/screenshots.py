"""Pictures of the page for the documentation: `python -m tests.ui.screenshots ADDRESS FOLDER`, the page running."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from tests.ui.conftest import CHROMIUM, PATIENCE_MS

TALK = ("今天心情特别差，工作也不顺利", "终于通过了面试，开心！")
FEEDBACK = """编号,反馈
1,"房间干净，前台也很热情，下次还来"
2,"等了两个小时没人理我，太失望了"
3,"早餐丰富，孩子很喜欢"
4,"空调坏了一晚上，
打电话也没人修"
5,"价格实惠，住得很舒服"
6,"隔音太差，一夜没睡"
7,"服务员态度冷淡，很失望"
8,"位置方便，出门就是地铁，很满意"
9,
"""
WINDOWS: dict[str, dict[str, Any]] = {
    "light": {"viewport": {"width": 1100, "height": 720}},
    "dark": {"viewport": {"width": 1100, "height": 720}, "color_scheme": "dark"},
    "narrow": {"viewport": {"width": 390, "height": 780}},
}


def take(address: str, folder: Path) -> None:
    """Each tab in each window."""
    with sync_playwright() as driver, tempfile.TemporaryDirectory() as files:
        file = Path(files) / "留言.csv"
        file.write_text(FEEDBACK, encoding="utf-8")
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for name, window in WINDOWS.items():
            context = chromium.new_context(locale="zh-CN", **window)
            context.set_default_timeout(PATIENCE_MS)
            page = context.new_page()
            page.goto(address)
            page.get_by_text("个任务").wait_for()
            for turn, text in enumerate(TALK):
                page.locator("#say textarea").fill(text)
                page.locator("#say textarea").press("Enter")
                page.locator(".theirs.done").nth(turn).wait_for()
            page.locator("#send").wait_for()
            _save(page, folder / f"page-chat-{name}.png")
            page.get_by_role("tab", name="更多任务").click()
            page.locator("#input-text textarea").fill("房间很小，隔音也差")
            page.locator("#run").click()
            page.locator("#result .chip").first.wait_for()
            _save(page, folder / f"page-tasks-{name}.png")
            page.get_by_role("tab", name="批量反馈").click()
            page.locator("input[type=file]").set_input_files(str(file))
            page.locator("#start:enabled").click()
            page.locator("#download").wait_for()
            # A frame that lies outside the window is not painted.
            page.set_viewport_size({"width": window["viewport"]["width"], "height": 2200})
            page.frame_locator("#report-page iframe").locator("h1").first.wait_for()
            _save(page, folder / f"page-feedback-{name}.png")
            context.close()
        chromium.close()


def _save(page: Any, path: Path) -> None:
    page.mouse.move(0, 0)
    page.wait_for_timeout(500)  # bars grow and colours fade for a moment
    page.screenshot(path=str(path), full_page=True)


if __name__ == "__main__":
    take(sys.argv[1], Path(sys.argv[2]))
