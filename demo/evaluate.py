"""Measures a checkpoint through the service, as its users meet it: every figure of the model card.

    python -m demo.evaluate [--model demo/checkpoint] [--data reviews.csv ...]

Replies are judged by people, see demo/judging.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from demo.corpus.dialogues import HELP
from demo.jobs import AT_ONCE, JOBS, Row, at_once, score
from qwen_allinone.bootstrap import build_service
from qwen_allinone.cli.figures import Judged, figures_of
from qwen_allinone.cli.gold_cases import check_task
from qwen_allinone.engine import Sampling, Status
from qwen_allinone.service import Service, Terms
from qwen_allinone.service.completions import Wanted, complete
from qwen_allinone.settings import Settings
from qwen_allinone.tasks import load_cases

ROOT = Path(__file__).parents[1]
HELD_OUT = ROOT / "demo" / "heldout"
RUN = 8  # characters that a reply must not say twice
SAMPLES = 10
CHEERS = ("恭喜", "祝贺", "太棒了", "太好了", "真为你高兴", "替你高兴", "替你开心", "真棒")
POSITIVE, NEEDED = "正面", "需要帮助"


@contextmanager
def serving(folder: Path) -> Iterator[Service]:
    """The service on the checkpoint in `folder`, remembering nothing: samples have to differ."""
    service = build_service(Settings(model=str(folder), cache_mb=0, max_waiting=64))
    try:
        assert service.engine.wait_until_settled() is Status.READY, service.engine.problem
        yield service
    finally:
        service.engine.stop()


def held_out(name: str) -> list[Row]:
    """Rows of demo/heldout: the first cell, and the cell `text`."""
    head, *lines = (HELD_OUT / f"{name}.tsv").read_text(encoding="utf-8").splitlines()
    place = head.split("\t").index("text")
    rows = [line.split("\t") for line in lines if line.strip()]
    return [(row[0], row[place]) for row in rows]


def reviews(path: Path) -> list[Row]:
    """A CSV with the columns label and text."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        return [(row["label"], row["text"]) for row in csv.DictReader(file)]


def report_labels(service: Service, data: Sequence[Path], errors: bool) -> None:
    """Sentiment on every set: accuracy and how honest the probabilities are; neutral lines; words of despair."""
    sets = {name: held_out(name) for name in ("fresh", "unseen", "everyday", "development")}
    sets |= {path.stem: reviews(path) for path in data}
    for name, rows in sets.items():
        answers = at_once(lambda row: service.run("sentiment", {"text": row[1]}), rows)
        judged = [
            Judged(label, str(answer.label), tuple((answer.probabilities or {}).values()))
            for (label, _), answer in zip(rows, answers, strict=True)
        ]
        figures = figures_of(judged, service.registry.get("sentiment").labels)
        print(f"{name}: {figures.accuracy:.1%} of {figures.rows}, ECE {figures.ece:.3f}", flush=True)
        if errors and name == "development":
            wrong = (row for row, each in zip(rows, judged, strict=True) if each.gold != each.answer)
            print(*(f"  {label} {text}" for label, text in wrong), sep="\n")
    neutral = [text for text, _ in held_out("neutral")]
    answers = at_once(lambda text: service.run("sentiment", {"text": text}), neutral)
    between = sum(0.3 < (answer.probabilities or {})[POSITIVE] < 0.7 for answer in answers)
    print(f"neutral: {between / len(neutral):.1%} of {len(neutral)} with 0.3 < p < 0.7")


def report_care(service: Service) -> None:
    """Whether /chat names help, and names none where nobody needs it."""
    rows = held_out("despair")
    named = at_once(lambda row: bool(HELP.search(service.chat(row[1]).reply.text)), rows)
    needed = [ok for (label, _), ok in zip(rows, named, strict=True) if label == NEEDED]
    other = [not ok for (label, _), ok in zip(rows, named, strict=True) if label != NEEDED]
    print(f"despair: help named {sum(needed)} of {len(needed)}; near misses left alone {sum(other)} of {len(other)}")


def report_jobs(service: Service, errors: bool) -> None:
    """The further tasks on their held-out texts."""
    for task in JOBS:
        result = score(service, task, held_out(task))
        print(f"{task}: {result.right:.1%} of {len(held_out(task))}; {result.remark}", flush=True)
        if errors:
            print(*(f"  [{wanted}] {text} -> {said}" for (wanted, text), said in result.wrong), sep="\n")


def report_cases(service: Service, errors: bool) -> None:
    """Gold cases of every task, as `qwen-allinone check` counts them."""
    for task in service.registry:
        outcomes = list(check_task(service, task.name, load_cases(ROOT / "prompts" / task.name, task), 7, AT_ONCE))
        print(f"cases {task.name}: {sum(outcome.passed for outcome in outcomes)} of {len(outcomes)}", flush=True)
        if errors:
            print(*(f"  {o.case.inputs} -> {o.answer}: {o.problem}" for o in outcomes if not o.passed), sep="\n")


def report_replies(service: Service) -> None:
    """The form of sampled replies: repeated runs, endings, variety."""
    texts = [text for _, text in held_out("openers")]
    replies = at_once(lambda text: service.chat(text).reply, texts)
    repeated = sum(_repeats(reply.text) for reply in replies)
    cut = sum(reply.result.finish_reason.value == "length" for reply in replies)
    print(f"replies: {len(replies)}, empty {sum(not r.text.strip() for r in replies)}, cut {cut}, repeating {repeated}")
    cheered = [service_text for label, service_text in held_out("moods") if label == "坏消息"]
    said = at_once(lambda text: service.chat(text).reply.text, cheered)
    print(
        f"bad news answered with a word of congratulation: {sum(any(c in s for c in CHEERS) for s in said)} of {len(said)}"
    )
    chosen = texts[::10]
    different = [
        len(set(at_once(lambda _, text=text: service.chat(text).reply.text, range(SAMPLES)))) for text in chosen
    ]
    print(f"different replies in {SAMPLES} samples: {sum(different) / len(different):.1f}, at least {min(different)}")


def report_memory(service: Service) -> None:
    """What is known of the user, told in a system prompt: used where it matters, else left alone."""
    lines = (HELD_OUT / "memory.tsv").read_text(encoding="utf-8").splitlines()[1:]
    rows = [(line.split("\t") + [""])[:4] for line in lines if line.strip()]

    defaults = service.codec.sampling_defaults
    drawn = Sampling(128, temperature=defaults.temperature, top_p=defaults.top_p)

    def reply(row: list[str]) -> str:
        known = "".join(f"\n- {fact}" for fact in row[0].split("；"))
        messages = [("system", f"你是一位温暖、有同理心的聊天伙伴。\n你记得：{known}"), ("user", row[1])]
        return complete(service, messages, Wanted(drawn), Terms())[0].text

    said = at_once(reply, rows)
    used = [row[3] in text for row, text in zip(rows, said, strict=True) if row[2] == "1"]
    spared = [_unused(row, text) for row, text in zip(rows, said, strict=True) if row[2] == "0"]
    print(f"memories: used {sum(used)} of {len(used)} that matter, left alone {sum(spared)} of {len(spared)}")


def _unused(row: list[str], text: str) -> bool:
    """No two characters in a row of what is known, that the user did not say himself, stand in the reply."""
    known = row[0].replace("用户", "")
    pairs = {known[i : i + 2] for i in range(len(known) - 1) if known[i : i + 2].isalnum()}
    return not any(pair in text and pair not in row[1] for pair in pairs)


def _repeats(text: str) -> bool:
    runs = [text[i : i + RUN] for i in range(len(text) - RUN + 1)]
    return len(runs) != len(set(runs))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "demo" / "checkpoint")
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="CSV files with the columns label and text")
    parser.add_argument("--errors", action="store_true", help="print what went wrong")
    options = parser.parse_args()
    with serving(options.model) as service:
        report_labels(service, options.data, options.errors)
        report_care(service)
        report_replies(service)
        report_memory(service)
        report_jobs(service, options.errors)
        report_cases(service, options.errors)


if __name__ == "__main__":
    main()
