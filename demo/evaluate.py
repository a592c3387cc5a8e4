"""Measures a checkpoint: label accuracy on held-out sentences, what its replies look like, and its further tasks.

python -m demo.evaluate --model demo/checkpoint [--data reviews.csv ...]
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import dataclass
from pathlib import Path

import torch

from demo.batches import LONGEST, ROOT, Prompts
from demo.corpus.lexicon import NEGATIVE
from demo.jobs import JOBS, score, serving
from demo.model import DemoModel
from demo.replies import Writer
from qwen_allinone.model.tokenizer import Tokenizer
from qwen_allinone.tasks import clean, load_cases

CHEERS = ("恭喜", "祝贺", "太棒了", "太好了", "真为你高兴", "替你高兴", "替你开心", "真棒")
RUN = 8
Labelled = tuple[str, str]  # label, text


@dataclass(frozen=True)
class Classifier:
    """Takes the likelier first token of the labels."""

    model: DemoModel
    prompts: Prompts

    @torch.inference_mode()
    def labels(self, texts: list[str], rows: int = 32) -> list[str]:
        """The label of each text."""
        prefix, suffix = self.prompts.cut(self.prompts.sentiment)
        coded = [self.prompts.tokenizer.encode(clean(text))[: 2 * LONGEST] + suffix for text in texts]
        names = list(self.prompts.labels)
        firsts = torch.tensor([self.prompts.labels[name][0] for name in names])
        answers = [""] * len(texts)
        order = sorted(range(len(texts)), key=lambda i: len(coded[i]))
        for start in range(0, len(order), rows):
            chosen = order[start : start + rows]
            longest = max(len(coded[i]) for i in chosen)
            padded = torch.tensor([coded[i] + [0] * (longest - len(coded[i])) for i in chosen])
            last = torch.tensor([len(coded[i]) - 1 for i in chosen])
            hidden = self.model(torch.tensor(prefix), padded)[torch.arange(len(chosen)), last]
            for i, best in zip(chosen, self.model.logits(hidden)[:, firsts].argmax(-1).tolist(), strict=True):
                answers[i] = names[best]
        return answers

    def accuracy(self, rows: list[Labelled]) -> tuple[float, list[Labelled]]:
        """Share of rows labelled right, and the rows labelled wrong."""
        answers = self.labels([text for _, text in rows])
        wrong = [row for row, answer in zip(rows, answers, strict=True) if row[0] != answer]
        return 1 - len(wrong) / len(rows), wrong


def held_out(name: str) -> list[Labelled]:
    """`unseen` is measured at the end; the others were looked at, or measured, while the recipe was chosen."""
    lines = (ROOT / "demo" / "heldout" / f"{name}.tsv").read_text(encoding="utf-8").splitlines()[1:]
    return [(line.split("\t", 1)[0], line.split("\t", 1)[1]) for line in lines if line.strip()]


def gold(prompts: Prompts) -> list[Labelled]:
    """The gold cases of the sentiment task."""
    return [
        (str(case.label), case.inputs["text"]) for case in load_cases(ROOT / "prompts/sentiment", prompts.sentiment)
    ]


def reviews(path: Path) -> list[Labelled]:
    """A CSV with the columns label and text."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        return [(row["label"], row["text"]) for row in csv.DictReader(file)]


def repeats(reply: str) -> bool:
    """True if some run of 8 characters occurs twice."""
    runs = [reply[i : i + RUN] for i in range(len(reply) - RUN + 1)]
    return len(runs) != len(set(runs))


def report_labels(classifier: Classifier, data: list[Path], errors: bool, final: bool) -> None:
    """Accuracy on every set; `unseen` only in a `final` measurement."""
    sets = {name: held_out(name) for name in ("development", "everyday")} | {"gold cases": gold(classifier.prompts)}
    if final:
        sets["unseen"] = held_out("unseen")
    sets |= {path.stem: reviews(path) for path in data}
    for name, rows in sets.items():
        accuracy, wrong = classifier.accuracy(rows)
        bias = sum(label == NEGATIVE for label, _ in wrong)
        print(
            f"{name}: {accuracy:.1%} of {len(rows)} (wrong: {bias} negative, {len(wrong) - bias} positive)", flush=True
        )
        if errors and name in ("development", "gold cases"):
            print(*(f"  {label} {text}" for label, text in wrong), sep="\n")


def report_replies(writer: Writer, name: str, show: int) -> None:
    """Shape of 200 sampled replies to the held-out sentences."""
    rows = held_out(name)
    replies = writer.write([(text, label) for label, text in rows])
    count = len(replies)
    cheers = [reply for (label, _), reply in zip(rows, replies, strict=True)
              if label == NEGATIVE and any(word in reply.text for word in CHEERS)]  # fmt: skip
    named = sum(any(text[i : i + 2] in reply.text for i in range(len(text) - 1))
                for (_, text), reply in zip(rows, replies, strict=True))  # fmt: skip
    print(
        f"replies: {count}, empty {sum(not r.text.strip() for r in replies)}, cut {sum(not r.ended for r in replies)}"
    )
    print(f"  repeated runs {sum(repeats(r.text) for r in replies) / count:.1%}, congratulating the sad {len(cheers)}")
    print(f"  sharing two characters in a row with the text {named / count:.1%}")
    for (label, text), reply in list(zip(rows, replies, strict=True))[:show]:
        print(f"  [{label}] {text} -> {reply.text}")


def report_jobs(folder: Path, errors: bool) -> None:
    """The further tasks on their held-out texts."""
    with serving(folder) as service:
        for task in JOBS:
            rows = held_out(task)
            result = score(service, task, rows)
            print(f"{task}: {result.right:.1%} of {len(rows)}" + (f"; {result.remark}" if result.remark else ""))
            if errors:
                print(*(f"  [{wanted}] {text} -> {said}" for (wanted, text), said in result.wrong), sep="\n")


def report_cases(writer: Writer) -> None:
    """The gold cases of the chat task."""
    cases = load_cases(ROOT / "prompts/chat", writer.prompts.chat)
    replies = writer.write([(case.inputs["text"], case.inputs["sentiment"]) for case in cases])
    passed = 0
    for case, reply in zip(cases, replies, strict=True):
        named = not case.any or any(word in reply.text for word in case.any)
        fits = named and not any(word in reply.text for word in case.none)
        fits = fits and (case.max_chars is None or len(reply.text) <= case.max_chars)
        passed += fits
        if not fits:
            print(f"  missed: {case.inputs['text']} -> {reply.text}")
    print(f"chat cases: {passed} of {len(cases)}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "demo" / "checkpoint")
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="CSV files with the columns label and text")
    parser.add_argument("--errors", action="store_true", help="print the sentences labelled wrong")
    parser.add_argument("--show", type=int, default=0, help="print this many replies")
    parser.add_argument("--no-replies", action="store_true")
    parser.add_argument("--only-jobs", action="store_true", help="the tasks beyond sentiment and chat, no more")
    parser.add_argument(
        "--trial", action="store_true", help="leave the unseen sentences alone: a recipe is being chosen"
    )
    options = parser.parse_args()
    report_jobs(options.model, options.errors)
    if options.only_jobs:
        return
    torch.manual_seed(1)
    prompts = Prompts(Tokenizer.load(options.model))
    report_labels(Classifier(DemoModel.load(options.model), prompts), options.data, options.errors, not options.trial)
    if not options.no_replies:
        writer = Writer(options.model, prompts)
        report_replies(writer, "development" if options.trial else "unseen", options.show)
        report_cases(writer)


if __name__ == "__main__":
    main()
