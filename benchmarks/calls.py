"""The way a request walks, counted: calls of our own functions, and how often they go from one file to another.

    python -m benchmarks.calls            the table
    python -m benchmarks.calls --list     also every function, with how often it was called

One request each on the demo model, through the WSGI app, after others have warmed everything up. Counted are calls of
functions under qwen_allinone/, in the threads that make and send the answer, and in the engine's thread for each of its
steps. A generator that goes on is called again; comprehensions and lambdas belong to the function they stand in. A
crossing is a call from one of our files into another, whatever lies between. Replies are greedy, so that every run
counts the same, and no answer comes from the cache.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from flask import Flask
from rich.console import Console
from rich.table import Table

from qwen_allinone.bootstrap import build_service, wrap
from qwen_allinone.engine import Status
from qwen_allinone.settings import Settings

PROJECT = Path(__file__).resolve().parents[1]
PACKAGE = str(PROJECT / "qwen_allinone") + "/"
ENGINE = "engine"
REQUEST = ("MainThread", "stream")  # the threads that make and send the answer
TEXT = "今天心情特别差，工作也不顺利"
QUESTIONS = [
    {"type": "predicate", "instructions": "说话的人心情不好"},
    {"type": "choice", "instructions": "说的是什么", "choices": [{"value": "工作"}, {"value": "天气"}]},
]
REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "/chat": ("/chat", {"text": TEXT}),
    "/chat streamed": ("/chat", {"text": TEXT, "stream": True}),
    "/v1/decisions, two questions": ("/v1/decisions", {"model": "demo", "input": TEXT, "questions": QUESTIONS}),
}


@dataclass
class Count:
    """What the threads of one kind did."""

    calls: int = 0
    crossings: int = 0
    functions: Counter[str] = field(default_factory=Counter)


class Profile:
    """Counts calls while `on`: `request`, and `engine` for its thread. To be set before the threads are started."""

    def __init__(self) -> None:
        self.on = False
        self.request, self.engine = Count(), Count()

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        if not self.on or event != "call" or not _is_ours(frame):
            return
        file, thread = frame.f_code.co_filename, threading.current_thread().name
        if thread != ENGINE and thread not in REQUEST:
            return
        count = self.engine if thread == ENGINE else self.request
        count.calls += 1
        count.crossings += _calling_file(frame) != file
        count.functions[f"{file.removeprefix(PACKAGE)}: {frame.f_code.co_qualname}"] += 1


@dataclass(frozen=True)
class Walk:
    """What one request took; `steps` of the engine."""

    request: Count
    engine: Count
    steps: int


def _is_ours(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(PACKAGE) and not frame.f_code.co_name.startswith("<")


def _calling_file(frame: FrameType) -> str:
    """The file of ours that the call came from, however many others lie between; empty if there is none."""
    caller = frame.f_back
    while caller is not None and not caller.f_code.co_filename.startswith(PACKAGE):
        caller = caller.f_back
    return caller.f_code.co_filename if caller else ""


def measure(*, care: bool) -> dict[str, Walk]:
    """Ask each of REQUESTS, by name; without `care` /chat computes one label, not two."""
    profile = Profile()
    threading.setprofile(profile)
    with tempfile.TemporaryDirectory() as home:
        given = {"QAIO_MODEL": "demo", "QAIO_THREADS": "1", "QAIO_PROMPTS": str(_greedy_prompts(Path(home), care=care))}
        settings = Settings.load(given)
        service = build_service(settings)
        app = wrap(service, settings)
        assert service.engine.wait_until_settled() is Status.READY, service.engine.problem
        sys.setprofile(profile)
        try:
            return {name: _walk(app, profile, path, body) for name, (path, body) in REQUESTS.items()}
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
            service.engine.stop()
            app.extensions["telemetry"].close()


def _walk(app: Flask, profile: Profile, path: str, body: dict[str, Any]) -> Walk:
    _ask(app, path, body)
    profile.request, profile.engine, profile.on = Count(), Count(), True
    _ask(app, path, body)
    profile.on = False
    return Walk(profile.request, profile.engine, profile.engine.functions["engine/step.py: step"])


def _ask(app: Flask, path: str, body: dict[str, Any]) -> None:
    with app.test_client().post(path, json=body, headers={"Cache-Control": "no-cache"}) as answer:
        assert answer.status_code == 200 and answer.data, answer.data


def _greedy_prompts(home: Path, *, care: bool) -> Path:
    """The project's prompts, but that a chat's reply to a text is always the same."""
    folder = Path(shutil.copytree(PROJECT / "prompts", home / "prompts"))
    if not care:
        shutil.rmtree(folder / "care")
    file = folder / "chat" / "prompt.md"
    text = file.read_text("utf-8")
    greedy, changed = re.subn(r"strategy: sample.*?(?=, max_new_tokens)", "strategy: greedy", text)
    assert changed == 1, f"{file} is sampled in another way"
    file.write_text(greedy, "utf-8")
    return folder


def main(
    every: Annotated[bool, typer.Option("--list", help="Also every function, with how often it was called")] = False,
    care: Annotated[bool, typer.Option(help="With the task `care` beside the sentiment")] = True,
) -> None:
    """Count the calls of one request of each kind."""
    console, walks = Console(), measure(care=care)
    table = Table("request", "calls", "from file to file", "functions", "engine: calls", "steps", "calls a step")
    for name, walk in walks.items():
        request, engine = walk.request, walk.engine
        figures = (request.calls, request.crossings, len(request.functions), engine.calls, walk.steps)
        table.add_row(name, *map(str, figures), f"{engine.calls / walk.steps:.1f}")
    console.print(table)
    for name, walk in walks.items() if every else ():
        for thread, count in (("request", walk.request), (ENGINE, walk.engine)):
            console.print(f"\n{name}, {thread}", highlight=False)
            for function, times in count.functions.most_common():
                console.print(f"{times:5} {function}", highlight=False)


if __name__ == "__main__":
    typer.run(main)
