"""How options of different lengths are best compared in /v1/decisions: accuracy of each rule on a few dozen questions.

    python -m benchmarks.option_scores --model DIR

English choices written for this, most with a right answer that is shorter or longer than the wrong ones. Each is asked
with its text, and once without, which `gain` needs. See docs/decisions.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, get_args

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.engine import Kind
from qwen_allinone.bootstrap import build_service
from qwen_allinone.engine import Status
from qwen_allinone.service import Service, Terms
from qwen_allinone.service.completions import Utterance
from qwen_allinone.service.questions import Option, OptionScores, Rule, TypedQuestion, compare, score_options
from qwen_allinone.settings import Settings

# A question, its options, and texts with the number of their right option.
Item = tuple[str, Sequence[str], Sequence[tuple[str, int]]]
ITEMS: Sequence[Item] = (
    (
        "What is the customer writing about?",
        ("delivery", "billing", "a defect of the product", "praise for the staff"),
        (
            ("The parcel was supposed to come on Monday and it is Friday now.", 0),
            ("I was charged twice for the same order.", 1),
            ("The screen went black after two days and will not turn on again.", 2),
            ("Your colleague Anna on the phone was so patient and kind, thank you!", 3),
            ("The courier left my box in the rain in front of the wrong house.", 0),
            ("Please explain the extra fee of nine dollars on my invoice.", 1),
        ),
    ),
    (
        "How does the writer feel?",
        ("happy", "angry", "sad", "worried about what is to come"),
        (
            ("We won! I cannot stop smiling.", 0),
            ("How dare they cancel it again without a word. I am furious.", 1),
            ("Since she moved away the house is so empty, and I cry a lot.", 2),
            ("The results come next week and I cannot sleep for fear of what they say.", 3),
            ("This is the third time you have lied to me. Enough.", 1),
            ("What a wonderful day by the lake with the children.", 0),
        ),
    ),
    (
        "Where does the scene take place?",
        ("at home", "in a restaurant", "on a train", "in the waiting room of a doctor"),
        (
            ("The waiter brought the menu and asked whether we wanted still or sparkling water.", 1),
            ("The next stop was announced and the conductor asked for our tickets.", 2),
            ("I washed the dishes in my kitchen while the cat slept on my bed.", 0),
            ("A nurse called the next patient while the others coughed behind old magazines.", 3),
            ("We lay on our sofa and watched the film until midnight.", 0),
            ("Fields and villages flew past the window of the carriage.", 2),
        ),
    ),
    (
        "What should be done with the message?",
        ("reply", "delete it as spam", "forward it to the legal department", "nothing"),
        (
            ("CONGRATULATIONS!!! You have won 5,000,000 dollars, click here now!", 1),
            ("Could you tell me whether the blue one is still available?", 0),
            ("Our attorneys will file a lawsuit for breach of contract within ten days.", 2),
            ("This is an automatic confirmation. No action is needed.", 3),
            ("What are your opening hours on Sunday?", 0),
            ("Cheap pills!!! Lose 20 kg in one week, buy today!", 1),
        ),
    ),
    (
        "Which animal is described?",
        ("a cat", "an elephant", "a hummingbird", "a great white shark"),
        (
            ("It has a trunk and tusks and is the heaviest animal on land.", 1),
            ("It hovers before flowers, and its wings beat eighty times a second.", 2),
            ("It purrs on the sofa and hunts mice at night.", 0),
            ("Its fin cuts the water, and its rows of teeth make swimmers tremble.", 3),
            ("It is tiny, drinks nectar and can fly backwards.", 2),
            ("It meows when its bowl is empty.", 0),
        ),
    ),
    (
        "How urgent is it?",
        ("not urgent", "it can wait until tomorrow", "now"),
        (
            ("There is smoke coming out of the server room!", 2),
            ("Some day we might think about another colour for the logo.", 0),
            ("Please look at this in the morning, today is fine without.", 1),
            ("The patient has stopped breathing.", 2),
            ("No hurry at all, whenever you find the time this year.", 0),
            ("If it is fixed by tomorrow noon, nobody will notice.", 1),
        ),
    ),
)


def questions() -> list[tuple[str, TypedQuestion, int]]:
    """Each text, its question, and the right option's number in the prompt."""
    asked = []
    for instructions, options, texts in ITEMS:
        question = TypedQuestion("choice", instructions, tuple(map(Option, options)))
        for text, right in texts:
            asked.append((text, question, question.in_prompt.index(question.options[right])))
    return asked


def accuracy(service: Service) -> dict[str, float]:
    """The share of right answers under each rule."""
    asked = questions()
    right: dict[str, int] = dict.fromkeys(get_args(Rule), 0)
    alone = {question: _scores(service, [], question) for _, question, _ in asked}
    for text, question, answer in asked:
        scores = _scores(service, [("user", text)], question)
        for rule in get_args(Rule):
            points = compare(scores, rule=rule, alone=alone[question])
            right[rule] += points.index(max(points)) == answer
    return {rule: count / len(asked) for rule, count in right.items()}


def _scores(service: Service, messages: Sequence[Utterance], question: TypedQuestion) -> OptionScores:
    with service.request(Terms()) as request:
        return score_options(request, messages, [question])[0][0]


def main(
    model: Annotated[str, typer.Option(help="Folder of the checkpoint, or demo")],
    weights: Annotated[Kind, typer.Option(help="As QAIO_WEIGHTS")] = Kind.FP32,
) -> None:
    """Print how often each rule is right."""
    service = build_service(Settings.load({"QAIO_MODEL": model, "QAIO_WEIGHTS": weights.value}))
    if service.engine.wait_until_settled() is not Status.READY:
        raise SystemExit(service.engine.problem)
    table = Table("rule", "accuracy", title=f"{len(questions())} choices")
    for rule, share in accuracy(service).items():
        table.add_row(rule, f"{share:.1%}")
    service.engine.stop()
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
