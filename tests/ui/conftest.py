"""The page in a real browser: one Gunicorn, one page, one Chromium for all tests; nothing leaves the loopback."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.e2e.conftest import GUNICORN, PROJECT, free_port, services, until
from tests.support.relay import Relay, relay

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# A busy machine must not fail a test; a hang must.
PATIENCE_MS = 120_000
_NEEDED = ("gradio", "playwright", "httpx")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One plain reason where something is not installed."""
    absent = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    absent += [] if CHROMIUM else ["chromium"]
    if absent:
        why = f"not installed: {', '.join(absent)} (make install-ui-tests, tests/install_services.sh)"
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=why))


@pytest.fixture(scope="session")
def front(demo_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """The service on the demo model behind a relay; its steps take 20 ms more, so that streams can be watched."""
    home = tmp_path_factory.mktemp("service")
    shutil.copytree(PROJECT / "prompts", home / "prompts")
    given = {
        "FAULT_FOLDER": str(home),
        "FAULT_STEP_S": "0.02",
        "QAIO_SESSIONS_FILE": str(home / "sessions.db"),
        "QAIO_BATCHES_FILE": str(home / "batches.db"),
        "QAIO_MEMORY": "1",
        "QAIO_PROMPT_EDIT": "1",
        "QAIO_PROMPTS": str(home / "prompts"),
        "QAIO_PROMPTS_KEPT": str(home / "kept"),
    }
    with services(home) as start:
        running = start(command=(*GUNICORN, "tests.support.faulty_app:app"), **given)
        with relay(running.port) as before:
            yield before


@pytest.fixture(scope="session")
def address(front: Relay, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running page, as people start it."""
    with page(front, tmp_path_factory.mktemp("page")) as running:
        yield running


@contextmanager
def page(front: Relay, home: Path) -> Iterator[str]:
    port = free_port()
    settings = {
        "QWEN_UI_SERVICE": front.address,
        "QWEN_UI_PORT": str(port),
        "QWEN_UI_API_KEY": "a-key",
        "TMPDIR": str(home),
    }
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("QWEN_UI_", "GRADIO_"))}
    log_file = home / "log.txt"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "ui"], cwd=PROJECT, env=inherited | settings, stdout=log, stderr=log
        )
    try:

        def up() -> bool:
            said = log_file.read_text(encoding="utf-8", errors="replace")
            assert process.poll() is None, said
            return "The page is at" in said

        until(up, "the page is served")
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")  # its event loop runs until it ends, and other modules want one of their own
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        # --no-sandbox: tests may run as root, where Chromium has no sandbox; it meets nothing but our own page.
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@dataclass(frozen=True)
class Visitor:
    """A browser window on the page. `outside` are the addresses it wanted beyond the loopback; none was reached."""

    page: Any
    outside: list[str]

    def come_back(self) -> Visitor:
        """The window is closed, and the same browser opens the page again."""
        address, context = self.page.url, self.page.context
        self.page.close()
        again = Visitor(context.new_page(), self.outside)
        again.page.goto(address)
        again.page.get_by_text("模型 demo").wait_for()
        return again

    def open_tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name).click()

    def run_task(self, description: str, text: str) -> None:
        """On the second tab: choose a task by what it is called there, and run it on `text`."""
        self.open_tab("更多任务")
        self.page.locator("#task input").click()
        self.page.get_by_role("option", name=description).click()
        self.page.locator("#input-text textarea").fill(text)
        self.page.locator("#run").click()

    def say(self, text: str) -> None:
        self.page.locator("#say textarea").fill(text)
        self.page.locator("#say textarea").press("Enter")

    def wait_answered(self, turns: int) -> None:
        """Until that many turns have ended, well or not."""
        ended = self.page.locator(".theirs.done, .theirs.stopped, .theirs.failed")
        ended.nth(turns - 1).wait_for()
        self.page.locator("#send").wait_for()

    def last_reply(self) -> str:
        return str(self.page.locator(".theirs").last.inner_text())


Visit = Callable[..., Visitor]


@pytest.fixture
def visit(browser: Any, address: str, front: Relay) -> Iterator[Visit]:
    """Opens windows; afterwards fails if any of them asked for something from outside."""
    contexts, visitors = [], []

    def opened(**window: Any) -> Visitor:
        context = browser.new_context(locale="zh-CN", accept_downloads=True, **window)
        context.set_default_timeout(PATIENCE_MS)
        outside: list[str] = []

        def guard(route: Any) -> None:
            url = urlsplit(route.request.url)
            if url.scheme in ("http", "https", "ws", "wss") and url.hostname != "127.0.0.1":
                outside.append(route.request.url)
                route.abort()
            else:
                route.continue_()

        context.route("**/*", guard)
        visitor = Visitor(context.new_page(), outside)
        visitor.page.goto(address)
        visitor.page.get_by_text("模型 demo").wait_for()
        contexts.append(context)
        visitors.append(visitor)
        return visitor

    front.pass_on()
    try:
        yield opened
    finally:
        front.pass_on()
        for context in contexts:
            context.close()
    assert [visitor.outside for visitor in visitors] == [[]] * len(visitors)
