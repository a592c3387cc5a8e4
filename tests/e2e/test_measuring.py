"""`qwen-allinone eval --url` against a real service with two workers and keys."""

from __future__ import annotations

import csv
import os
import subprocess
from pathlib import Path

from qwen_allinone.access import keys
from tests.e2e.conftest import PROJECT, StartService
from tests.support import forked


def test_a_running_service_is_measured(start_service: StartService, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(keys.add(tmp_path / "keys", "measurer") + "\n")
    lines = (PROJECT / "demo" / "heldout" / "development.tsv").read_text("utf-8").splitlines()[1:41]
    with (tmp_path / "data.csv").open("w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows([["label", "text"], *(line.split("\t", 1) for line in lines)])
    service = start_service(
        QAIO_WORKERS="2", QAIO_SLOTS="1", QAIO_MAX_WAITING="2", QAIO_API_KEYS_FILE=str(tmp_path / "keys")
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("QAIO_")}

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        where = ("--data", "data.csv", "--url", f"http://127.0.0.1:{service.port}")
        wide = environment | {"COLUMNS": "200", "LC_ALL": "C.UTF-8"}
        return forked.run("eval", "sentiment", *where, *more, folder=tmp_path, environment=wide)

    done = run("--key-file", "key")
    assert done.returncode == 0, done.stderr
    figures = dict(
        line.replace("│", "|").strip("| ").split("|")[:2] for line in done.stdout.splitlines() if "│" in line
    )
    shown = {name.strip(): value.strip() for name, value in figures.items()}
    assert shown["rows"] == "40", "though the service was full at times: it is waited for"
    assert 0.8 <= float(shown["accuracy"]) <= 1.0
    assert (tmp_path / "wrong.csv").exists()
    stranger = run()
    assert stranger.returncode == 2 and "40 rows that were not answered" in stranger.stderr and "401" in stranger.stderr
