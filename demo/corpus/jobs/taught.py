"""All samples of the tasks beyond sentiment and chat: drawn from word lists, and hand-written ones beside them."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

from demo.corpus.apart import Apart, measured_sentences
from demo.corpus.dialogues import HERE as DIALOGUES
from demo.corpus.dialogues import clear_of
from demo.corpus.jobs.formed import aspects, ticket
from demo.corpus.jobs.jobs import Jobs
from demo.corpus.jobs.sample import Sample
from demo.corpus.lexicon import Lexicon
from demo.corpus.messages import read_conversations
from qwen_allinone.tasks import clean

WRITTEN = Path(__file__).parent / "written"  # <task>.tsv: a text and its answer (of `ticket` its fields), with a header
BY_HAND = ("ticket", "urgency", "handover", "category", "satisfaction")  # of which there is nothing else
WRITTEN_SHARE = 0.35  # of the samples of a task that has both kinds
NEEDED, NOT_NEEDED = CARE = ("需要帮助", "没有")
# Kinds of messages, and beginnings of the names of files, of despair and of what only looks like it. In those of `q_care`
# despair may come later than in the first turn.
IN_NEED = ("despair", "violence", "en_despair")
DESPAIR, NEAR, EITHER = "f_care", ("f_near", "care.txt"), "q_care"


def taught(lexicon: Lexicon, seed: int, count: int) -> dict[str, list[Sample]]:
    """Samples by task, `count` of each that can be drawn without end."""
    apart, rng = Apart(measured_sentences()), Random(seed)
    jobs = Jobs(lexicon, seed, apart)
    samples = {task: [jobs.draw(task) for _ in range(count)] for task in jobs.tasks}
    for task, drawn in samples.items():
        by_hand = [sample for sample in written(task) if apart.clear(sample.text)]
        samples[task] = _mixed(drawn, by_hand, rng)
    samples["care"] = list(_care(apart))
    for task in BY_HAND:
        samples[task] = [s for s in written(task) if apart.clear(s.text)]
    samples["suggest"] = [s for s in _table(DIALOGUES / "suggest.tsv") if apart.clear(s.text)]
    samples["remember"] = [s for s in _table(DIALOGUES / "remember.tsv") if apart.clear(s.text)]
    return {task: [_cleaned(s) for s in part] for task, part in samples.items() if part}


def written(task: str) -> Iterator[Sample]:
    """What people wrote for a task, with the answers in the form that the task gives them."""
    for sample in _table(WRITTEN / f"{task}.tsv"):
        if task == "ticket":
            yield Sample(sample.text, ticket([*sample.about, sample.answer]))
        else:
            yield replace(sample, answer=aspects(sample.answer)) if task == "aspects" else sample


def _mixed(drawn: list[Sample], by_hand: list[Sample], rng: Random) -> list[Sample]:
    if not by_hand:
        return drawn
    times = max(1, round(len(drawn) * WRITTEN_SHARE / (1 - WRITTEN_SHARE) / len(by_hand)))
    return [*drawn, *(rng.choice(by_hand) for _ in range(min(times, 20) * len(by_hand)))]


def _care(apart: Apart) -> Iterator[Sample]:
    """Every text there is: whoever needs no help is never to be taken for one who does. Those of despair, and those that
    only look like it, come several times."""
    despair, near, other = list[str](), list[str](), list[str]()
    for dialogue in clear_of(apart, read_conversations()):
        if dialogue.source.startswith(EITHER):
            continue
        first = dialogue.turns[0]
        if first.kind in IN_NEED or dialogue.source.startswith(DESPAIR):
            despair += first.texts
        elif dialogue.source.startswith(NEAR):
            near += first.texts
        else:
            other += first.texts
    for sample in written("care"):
        if apart.clear(sample.text):
            (despair if sample.answer == NEEDED else near).append(sample.text)
    for texts, answer, times in ((despair, NEEDED, 10), (near, NOT_NEEDED, 8), (other, NOT_NEEDED, 1)):
        yield from (Sample(text, answer) for text in texts * times)


def _table(file: Path) -> Iterator[Sample]:
    """Rows of a table whose first column is `text`, its last the answer; what stands between is `about`."""
    if not file.exists():
        return
    with file.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    for number, row in enumerate(rows[1:], 2):
        if not row:
            continue
        if len(row) != len(rows[0]) or not all(cell.strip() for cell in row):
            raise ValueError(f"{file.name}:{number}: {len(row)} cells, {len(rows[0])} that are not empty are wanted")
        yield Sample(row[0].replace("\\n", "\n"), row[-1], tuple(row[1:-1]))


def _cleaned(sample: Sample) -> Sample:
    return Sample(clean(sample.text), sample.answer, sample.about)
