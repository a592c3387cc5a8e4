"""What the demo model is taught for the further tasks: apart from what is measured, the same from a seed, and sound."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import jsonschema
import pytest

from demo.corpus.apart import Apart, bare, measured_sentences
from demo.corpus.jobs.jobs import LABELS, WRITING, Jobs
from demo.corpus.jobs.sample import Sample
from demo.corpus.jobs.taught import BY_HAND, written
from demo.corpus.lexicon import Lexicon
from demo.evaluate import held_out
from demo.jobs import JOBS
from demo.prompts import TASKS
from demo.texts import TURNS
from qwen_allinone.tasks import Registry, clean

SAMPLE = 400


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return Lexicon.load()


@pytest.fixture(scope="module")
def drawn(lexicon: Lexicon) -> dict[str, list[Sample]]:
    jobs = Jobs(lexicon, seed=21)
    return {task: [jobs.draw(task) for _ in range(SAMPLE)] for task in jobs.tasks}


def test_all_tasks_that_ship_are_taught_and_measured(drawn: dict[str, list[Sample]], prompts_folder: Path) -> None:
    shipped = {task.name for task in Registry.load(prompts_folder)}
    assert set(TASKS) == shipped
    assert set(TURNS) == shipped - {"sentiment", "chat"}
    assert set(JOBS) == set(TURNS) - {"care", "suggest", "remember", "ticket", "aspects"}
    assert set(drawn) - {"aspects"} == set(JOBS) - set(BY_HAND)
    assert len(TURNS) % 2  # or each of two processes would meet half of them


def test_no_text_shares_a_sentence_or_a_run_with_what_is_measured(drawn: dict[str, list[Sample]]) -> None:
    measured = [bare(sentence) for sentence in measured_sentences() if bare(sentence)]
    runs = {s[i : i + 8] for s in measured for i in range(len(s) - 7) if not s.isascii()}
    runs |= {s[i : i + 24] for s in measured for i in range(len(s) - 23) if s.isascii()}
    for task in LABELS:
        for text in (bare(sample.text) for sample in drawn[task]):
            assert text not in measured, text
            assert not any(text[i : i + n] in runs for n in (8, 24) for i in range(len(text) - n + 1)), text


def test_english_sentences_may_share_words_but_not_five_in_a_row() -> None:
    apart = Apart(["The receptionist was friendly and the pool was warm."])
    assert apart.clear("The receptionist was rude and the pool was cold.")
    assert not apart.clear("I think the receptionist was friendly and so on")
    assert not apart.clear("the receptionist was friendly and the pool was warm")


def test_the_same_seed_gives_the_same_stream(lexicon: Lexicon) -> None:
    first, second = Jobs(lexicon, seed=3), Jobs(lexicon, seed=3)
    for task in first.tasks * 5:
        assert first.draw(task) == second.draw(task)


def test_labels_are_those_of_the_task_and_balanced(drawn: dict[str, list[Sample]], prompts_folder: Path) -> None:
    registry = Registry.load(prompts_folder)
    for task, labels in LABELS.items():
        counts = Counter(sample.answer for sample in drawn[task])
        assert set(counts) == set(labels) == set(registry.get(task).labels)
        assert max(counts.values()) < 1.3 * min(counts.values())


def test_texts_are_clean_as_the_service_cleans_them(drawn: dict[str, list[Sample]]) -> None:
    for samples in drawn.values():
        assert all(sample.text and sample.text == clean(sample.text) for sample in samples)


def test_keywords_stand_in_the_text_in_their_order(drawn: dict[str, list[Sample]]) -> None:
    for sample in drawn["keywords"]:
        words = sample.answer.split("、")
        assert len(set(words)) == len(words) <= 8
        places = [sample.text.find(word) for word in words]
        assert -1 not in places, sample
        assert places[0] == min(places), sample


def test_a_summary_is_shorter_than_its_text_and_taken_from_it(drawn: dict[str, list[Sample]]) -> None:
    for sample in drawn["summary"]:
        assert len(sample.answer) < len(sample.text)
        rest = iter(sample.text)  # a thing named in the first sentence may stand before the last one
        assert all(character in rest for character in clean(sample.answer)), sample


def test_a_translation_goes_into_the_other_language(drawn: dict[str, list[Sample]]) -> None:
    directions = Counter(sample.answer.isascii() for sample in drawn["translate"])
    assert min(directions.values()) > SAMPLE / 3
    for sample in drawn["translate"]:
        assert "  " not in sample.answer and sample.answer[-1] in ".?!。？！"
        if not sample.answer.isascii():
            assert not any(character.isascii() and character.isalpha() for character in sample.answer), sample


def test_the_aspects_of_a_review_stand_in_it_in_their_order(drawn: dict[str, list[Sample]]) -> None:
    counts = Counter[int]()
    for sample in [*drawn["aspects"], *(s for s in written("aspects"))]:
        place, found = 0, json.loads(sample.answer)
        counts[len(found)] += 1
        for part in found:
            place = sample.text.find(part["aspect"], place)
            assert place >= 0 and part["opinion"] in sample.text, sample
    assert min(counts[number] for number in range(4)) > 10


@pytest.mark.parametrize("task", ["ticket", "aspects"])
def test_written_answers_in_json_fit_the_schema_as_the_service_writes_it(task: str, prompts_folder: Path) -> None:
    schema = json.loads((prompts_folder / task / "schema.json").read_text("utf-8"))
    samples = list(written(task))
    assert len(samples) > 300
    for sample in samples:
        jsonschema.validate(json.loads(sample.answer), schema)
        assert sample.answer == json.dumps(json.loads(sample.answer), ensure_ascii=False)


def test_held_out_answers_are_answers_of_their_tasks(prompts_folder: Path) -> None:
    registry = Registry.load(prompts_folder)
    for task in JOBS:
        rows = held_out(task)
        assert len({text for _, text in rows}) == len(rows) >= 40
        if registry.get(task).labels:
            assert {label for label, _ in rows} == set(registry.get(task).labels)
        elif task != "translate":
            assert all(word in text for words, text in rows for word in words.split("、")), task
    assert set(LABELS) | set(WRITING) == set(JOBS) - set(BY_HAND)
