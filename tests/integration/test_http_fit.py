"""How label tasks do on their gold cases, as clients, supervisors and Prometheus see it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from qwen_allinone.access import keys
from tests.integration.conftest import Server, StartServer

LABELLED = {"sentiment", "sentiment_en", "intent", "route", "urgency", "handover", "category", "satisfaction"}
# Labels that have nothing to do with the texts: whoever is right about them has guessed.
MUDDLED = "".join(
    f"- inputs: {{text: {text}}}\n  label: {label}\n"
    for number, text in enumerate(("真开心", "很满意", "太棒了", "好喜欢", "很难过", "太差了", "很失望", "真生气"))
    for label in ("正面", "负面")
)


def test_the_list_of_tasks_says_how_each_does(server: Server) -> None:
    tasks = {task["name"]: task for task in server.client.get("/v1/tasks").get_json()["tasks"]}
    assert {name for name, task in tasks.items() if "gold" in task} == LABELLED
    for name in LABELLED:
        gold = tasks[name]["gold"]
        assert gold["cases"] >= 30 and 0.6 < gold["accuracy"] <= 1 and gold["fitted"] in (True, False)


def test_metrics_show_it(server: Server) -> None:
    text = server.client.get("/metrics").get_data(as_text=True)
    found = dict(re.findall(r'^qaio_task_gold_accuracy\{task="(\w+)"\} (\S+)$', text, re.MULTILINE))
    assert found.keys() == LABELLED
    assert all(0.6 < float(accuracy) <= 1 for accuracy in found.values())


def test_a_task_that_only_guesses_is_told_to_the_operator_and_to_no_stranger(
    start_server: StartServer, prompts_folder: Path, tmp_path: Path
) -> None:
    prompts = Path(shutil.copytree(prompts_folder, tmp_path / "prompts"))
    (prompts / "sentiment" / "cases.yaml").write_text(MUDDLED, "utf-8")
    key = keys.add(tmp_path / "keys", "alice")
    server = start_server(QAIO_PROMPTS=str(prompts), QAIO_API_KEYS_FILE=str(tmp_path / "keys"))
    told = server.client.get("/readyz", headers={"X-API-Key": key})
    assert told.status_code == 200
    assert told.get_json() == {
        "status": "ok", "warnings": ["sentiment: no better than guessing on its gold cases"],
    }  # fmt: skip
    assert server.client.get("/readyz").get_json() == {"status": "ok"}
    assert server.client.get("/health", headers={"X-API-Key": key}).get_json() == {"status": "ok"}


def test_without_a_fit_nothing_is_said(start_server: StartServer) -> None:
    server = start_server(QAIO_FIT="off")
    assert not any("gold" in task for task in server.client.get("/v1/tasks").get_json()["tasks"])
    assert "qaio_task_gold_accuracy{" not in server.client.get("/metrics").get_data(as_text=True)
