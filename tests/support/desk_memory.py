"""How much memory the feedback desk takes for how many rows: python -m tests.support.desk_memory 1000000

Everything but the model: a clerk that is known answers at once. Each row has a number, a product, a day and keywords
of its own, so that whatever is counted by name meets as many names as there are rows.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from qwen_allinone import desk
from qwen_allinone.desk.asking import Said
from qwen_allinone.host import resident_bytes
from tests.support.known_clerk import known, say


def wordy(task: str, inputs: Mapping[str, str]) -> Said:
    """As the known clerk, but three keywords of each row's own."""
    text = inputs["text"]
    return Said(items=(text, text[::-1], text * 2)) if task == "keywords" else say(task, inputs)


def write(file: Path, rows: int) -> None:
    with file.open("w", encoding="utf-8") as out:
        out.write("编号,日期,商品,星级,评论\n")
        for n in range(rows):
            day = date(1990, 1, 1) + timedelta(days=n % 12_000)
            out.write(f"{n},{day},商品{n},{n % 5 + 1},第{n}条{'坏' * (n % 2)}\n")


def run(file: Path, folder: Path) -> None:
    """What `qwen-allinone feedback` does."""
    clerk, table = known(wordy), desk.open_table([file], desk.Columns())
    survey = desk.survey(table)
    with desk.Journal(folder / "journal.jsonl", {"files": table.fingerprint()}, resume=False) as journal:
        desk.label(table, clerk, desk.TASKS, journal, sure=0.95, at_once=16, on_done=lambda: None)
        told = desk.About(
            (file.name,), "a-model", table.chosen, dict(clerk.tasks), 0.95, datetime.now(), survey.doubles
        )
        figures = desk.write(folder, table, journal, told)
    assert figures.rows == figures.labelled == survey.rows


def peak_bytes() -> int:
    """The most memory this process has had resident since the peak was last forgotten."""
    (shown,) = re.findall(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(shown) * 1024


def main(rows: int) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        write(folder / "a.csv", rows)
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): forget the peak that importing torch has left
        before = resident_bytes()
        run(folder / "a.csv", folder)
        most = peak_bytes()
    print(json.dumps({"rows": rows, "before_mb": round(before / 1e6, 1), "grown_mb": round((most - before) / 1e6, 1)}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
