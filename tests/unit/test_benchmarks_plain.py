"""The comparison with the plain app: it answers as the service does, and both are measured alike."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from benchmarks.plain import __main__ as plain
from benchmarks.plain.__main__ import Sample, Yardstick, figures_of, unequal
from benchmarks.plain.servers import Server, service
from qwen_allinone.model.tokenizer import Tokenizer
from qwen_allinone.tasks import Chat, Completion, load_task, render
from tests.support.loopback import (
    Said,
    Script,
    loopback,
    ok,
    refused,
    shown,
)

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def plain_app(demo_checkpoint: Path) -> Iterator[ModuleType]:
    """The app with the demo model, which it loads when it is imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLAIN_MODEL", str(demo_checkpoint))
        patch.delenv("PLAIN_FIXED", raising=False)
        patch.delitem(sys.modules, "benchmarks.plain.app", raising=False)
        yield importlib.import_module("benchmarks.plain.app")
    sys.modules.pop("benchmarks.plain.app", None)


def test_the_plain_app_answers_as_the_service_does(plain_app: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_app, "LABEL_TOKENS", 4)
    monkeypatch.setattr(plain_app, "REPLY_TOKENS", 4)
    flask = plain_app.app.test_client()
    answer = flask.post("/chat", json={"text": "房间干净，下次还来"})
    assert answer.status_code == 200
    assert set(answer.json) == {"sentiment", "response"}
    assert answer.json["sentiment"] == "正面"
    assert flask.post("/sentiment", json={"text": "太差了，再也不来"}).json == {"sentiment": "负面"}


def test_fixed_answers_are_as_long_as_their_limits(plain_app: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = []
    generate = plain_app.model.generate

    def watched(**given: Any) -> Any:
        output = generate(**given)
        lengths.append(output.shape[1] - given["input_ids"].shape[1])
        return output

    monkeypatch.setattr(plain_app.model, "generate", watched)
    monkeypatch.setattr(plain_app, "FIXED", True)
    monkeypatch.setattr(plain_app, "LABEL_TOKENS", 4)
    monkeypatch.setattr(plain_app, "REPLY_TOKENS", 40)
    plain_app.app.test_client().post("/chat", json={"text": "好"})
    assert lengths == [4, 40]


def test_the_plain_app_asks_what_the_service_asks(plain_app: ModuleType, prompts_folder: Path) -> None:
    text = "房间干净，下次还来"
    sentiment = render(load_task(prompts_folder / "sentiment"), {"text": text})
    assert Completion(plain_app.SENTIMENT.replace("$text", text)) == sentiment
    chat = render(load_task(prompts_folder / "chat"), {"text": text, "sentiment": "正面"})
    assert isinstance(chat, Chat)
    assert chat.messages == (("system", plain_app.SYSTEM.replace("$sentiment", "正面")), ("user", text))


def test_a_ratio_is_the_median_of_the_ratios_within_rounds() -> None:
    chat = [{"fp32": Sample(1.0, 100.0), "plain": Sample(ratio, 104.0)} for ratio in (2.0, 9.0, 3.0)]
    sentiment = [{"fp32": Sample(0.5, None), "plain": Sample(2.0, None)}]
    load = [{"fp32": Sample(0.25, 90.0), "plain": Sample(10.0, 100.1)}]
    figures = {"fp32": figures_of({"chat": chat, "sentiment": sentiment, "load": load}, "fp32")}
    assert figures["fp32"]["chat"] == {
        "ours_s": 1.0,
        "plain_s": 3.0,
        "ratio": 3.0,
        "ours_tokens": 100.0,
        "plain_tokens": 104.0,
    }
    assert figures["fp32"]["sentiment"] == {"ours_s": 0.5, "plain_s": 2.0, "ratio": 4.0}
    assert figures["fp32"]["load"]["ours_requests_per_s"] == 4.0
    assert figures["fp32"]["load"]["ratio"] == 40.0
    # Only the last differs by more than a tenth.
    assert list(unequal(figures)) == [
        "/chat, many at once, requests/s (fp32): replies of 90 and 100 tokens are not comparable"
    ]
    assert "100 / 104" in shown(plain.table_of(figures))


def test_servers_take_turns_with_the_same_texts(demo_checkpoint: Path) -> None:
    order: list[tuple[str, str, str]] = []

    def named(name: str) -> Script:
        def script(path: str, text: str) -> Said:
            order.append((name, path, text))
            return ok({"sentiment": "正面", "response": "好好", "label": "正面"})

        return script

    with loopback(named("fp16")) as ours, loopback(named("plain")) as other:
        servers = [Server("plain", other.url, "/sentiment"), Server("fp16", ours.url, "/v1/tasks/sentiment")]
        done = itertools.count()
        yardstick = Yardstick(Tokenizer.load(demo_checkpoint), lambda: next(done))
        yardstick.warm_up(servers, at_once=1)
        alone = yardstick.alone(servers, rounds=2)
        load = yardstick.under_load(servers, rounds=1, clients=3)
    assert next(done) == len(order) == 2 + 2 * 2 * (plain.CHATS + plain.LABELS) + 2 * 3
    turns = [turn for turn, _ in itertools.groupby((name, path) for name, path, _ in order[2:])]
    chats = [("plain", "/chat"), ("fp16", "/chat")]
    labels = [("plain", "/sentiment"), ("fp16", "/v1/tasks/sentiment")]
    # The second round goes backwards.
    assert turns == chats + labels + chats[::-1] + labels[::-1] + chats
    assert sum(path == "/sentiment" for _, path, _ in order) == 1 + 2 * plain.LABELS
    texts = {name: sorted(text for who, _, text in order[2:] if who == name) for name in ("plain", "fp16")}
    assert texts["plain"] == texts["fp16"]
    assert len(set(texts["plain"])) == len(texts["plain"])
    assert [sample.tokens is None for sample in alone["sentiment"][0].values()] == [True, True]
    assert load["load"][0]["fp16"].tokens == load["load"][0]["plain"].tokens


def test_a_failed_request_ends_the_comparison_by_name(demo_checkpoint: Path) -> None:
    with loopback(lambda path, text: refused("503 Busy")) as server:
        yardstick = Yardstick(Tokenizer.load(demo_checkpoint), lambda: None)
        with pytest.raises(SystemExit, match=r"fp16: /label failed: 503"):
            yardstick.warm_up([Server("fp16", server.url, "/label")], at_once=1)


def test_a_service_that_does_not_start_says_why(demo_checkpoint: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(SystemExit, match="(?s)int3 did not start.*QAIO_WEIGHTS"),
        service(demo_checkpoint, "int3", tmp_path),
    ):
        pass


@pytest.mark.timeout(600)
def test_the_comparison_runs_with_real_servers(demo_checkpoint: Path, tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks.plain", "--model", demo_checkpoint, "--weights", "fp32"]
    done = subprocess.run(
        [*map(str, command), "--rounds", "1", "--json", str(figures)],
        cwd=PROJECT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    cells = json.loads(figures.read_text())["weights"]["fp32"]
    assert set(cells) == {"chat", "sentiment"}
    for cell in cells.values():
        assert min(cell.values()) > 0
    assert "times faster" in done.stdout
    # The demo model ends its replies itself, the plain app must not: that is what the warning is for.
    assert "not comparable" in done.stderr
