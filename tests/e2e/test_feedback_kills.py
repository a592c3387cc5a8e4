"""`qwen-allinone feedback` killed at random and gone on with, on the demo model: no row is lost, none is there twice.

The full proof: python -m pytest tests/e2e/test_feedback_kills.py --rows 20000 --kills 20 --timeout 36000
"""

from __future__ import annotations

import csv
import random
import subprocess
import sys
import time
from pathlib import Path

from tests.e2e.conftest import environment, free_port


def test_rows_are_neither_lost_nor_doubled_when_the_command_is_killed(
    demo_checkpoint: Path, tmp_path: Path, rows: int, kills: int
) -> None:
    texts = [f"第{n}件商品{'坏了，要求退款' if n % 2 else '很好用'}" for n in range(rows)]
    (tmp_path / "a.csv").write_text("评论\n" + "\n".join(texts) + "\n", "utf-8")
    journal = tmp_path / "out" / "journal.jsonl"
    chance = random.Random(0)
    killed = 0
    while True:
        process = start(tmp_path)
        if killed < kills:
            in_the_middle(process, journal, chance)
            process.kill()
        _, told = process.communicate()
        if process.returncode == 0:
            break
        assert process.returncode == -9, told.decode()
        killed += 1
    assert killed == kills or (killed and rows < 1000), "few rows may all be done before the last kill"
    with (tmp_path / "out" / "labelled.csv").open(encoding="utf-8-sig", newline="") as file:
        labelled = list(csv.DictReader(file))
    assert [row["评论"] for row in labelled] == texts
    assert all(row["情感"] and row["意图"] for row in labelled)


def start(folder: Path) -> subprocess.Popen[bytes]:
    command = (sys.executable, "-m", "qwen_allinone", "feedback", "a.csv", "--out", "out", "--resume", "--without",
               "keywords", "--without", "suggest")  # fmt: skip
    return subprocess.Popen(
        command, cwd=folder, env=environment(free_port(), folder, {}), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def in_the_middle(process: subprocess.Popen[bytes], journal: Path, chance: random.Random) -> None:
    """Wait until answers are written, and a random moment more."""

    def size() -> int:
        return journal.stat().st_size if journal.exists() else 0

    before = size()
    while size() <= before and process.poll() is None:
        time.sleep(0.01)
    time.sleep(chance.uniform(0, 0.5))
