"""Answers to schemas that hypothesis made up: `python -m tests.sweeps.schemas --schemas 10000`.

Each is asked of the whole app on the demo's checkpoint, eight at a time, streamed or not, cold or hot. What ended by
itself has to parse and to fit its schema; what was cut or refused has to say so; anything else is a finding, told with
the case that brings it back.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import jsonschema
import typer
from flask import Flask
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from qwen_allinone import bootstrap
from qwen_allinone.engine import Status
from qwen_allinone.settings import Settings
from tests.support.schemas import SCHEMAS, Schema

_PATH = "/v1/chat/completions"
_AT_ONCE = 8
_TOLD_EVERY_S = 60.0
# The machine may be busy with something else: nothing here is about time.
_PATIENT = {"QAIO_DEADLINE_S": "3600", "QAIO_STUCK_S": "3600"}


@dataclass(frozen=True)
class Case:
    """One answer to be asked for."""

    schema: Schema
    prompt: str
    temperature: float
    seed: int
    stream: bool
    max_tokens: int

    @property
    def body(self) -> dict[str, Any]:
        """The request."""
        shape = {"type": "json_schema", "json_schema": {"name": "answer", "schema": self.schema}}
        return {
            "model": "demo",
            "messages": [{"role": "user", "content": self.prompt}],
            "temperature": self.temperature,
            "seed": self.seed,
            "stream": self.stream,
            "max_tokens": self.max_tokens,
            "response_format": shape,
        }


_PROMPTS = st.builds(
    str.__add__, st.sampled_from(["快递丢了，客服不理人。", "Answer in JSON: ", "{"]), st.text(max_size=60)
)
CASES: st.SearchStrategy[Case] = st.builds(
    Case,
    schema=SCHEMAS,
    prompt=_PROMPTS,
    temperature=st.sampled_from([0.0, 0.7, 1.2, 2.0]),
    seed=st.integers(0, 99),
    stream=st.booleans(),
    max_tokens=st.sampled_from([1, 40, 160, 160, 160]),
)


def outcome(app: Flask, case: Case) -> str:
    """`whole`, `cut` or `refused`, each as it should be.

    Raises:
        AssertionError, jsonschema.ValidationError, json.JSONDecodeError: what should not be.
    """
    reply = app.test_client().post(_PATH, json=case.body)
    raw = reply.get_data(as_text=True)
    if reply.status_code == 400:  # what nothing fits, as a list of at least 3 of which none may be
        assert json.loads(raw)["error"]["param"] == "response_format", raw
        return "refused"
    assert reply.status_code == 200, raw
    text, reason = _streamed(raw) if case.stream else _read(json.loads(raw))
    if reason == "length":
        return "cut"
    assert reason == "stop", reason
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    jsonschema.Draft202012Validator(case.schema, format_checker=checker).validate(json.loads(text))
    return "whole"


def _read(body: Any) -> tuple[str, str]:
    choice = body["choices"][0]
    return choice["message"]["content"], choice["finish_reason"]


def _streamed(raw: str) -> tuple[str, str]:
    """Text and reason of a stream, which has to be whole."""
    lines = [line.removeprefix("data: ") for line in raw.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]", lines[-1]
    choices = [choice for line in lines[:-1] for choice in json.loads(line)["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices), choices[-1]["finish_reason"]


def made_up(count: int, seed_: int) -> list[Case]:
    """So many cases, the same for equal seeds."""
    cases = list[Case]()

    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @seed(seed_)
    @given(CASES)
    def note(case: Case) -> None:
        cases.append(case)

    note()
    return cases[:count]


@dataclass(frozen=True)
class Finding:
    """A case whose answer was not as it should be, and how."""

    case: Case
    problem: str


def sweep(
    app: Flask, cases: list[Case], told: Callable[[Counter[str]], None] = lambda counts: None
) -> tuple[Counter[str], list[Finding]]:
    """How often each outcome came, and what is wrong; `told` hears of the first now and then."""
    counts, findings, heard = Counter[str](), list[Finding](), time.monotonic()

    def one(case: Case) -> str | Finding:
        try:
            return outcome(app, case)
        except Exception as error:
            return Finding(case, f"{type(error).__name__}: {str(error)[:500]}")

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for found in pool.map(one, cases):
            counts[found if isinstance(found, str) else "wrong"] += 1
            findings += [found] if isinstance(found, Finding) else []
            if time.monotonic() - heard > _TOLD_EVERY_S:
                told(counts)
                heard = time.monotonic()
    return counts, findings


@contextmanager
def demo_app() -> Iterator[Flask]:
    """The app on the demo's checkpoint, with its engine running."""
    config = Settings.load({"QAIO_MODEL": "demo", "QAIO_FIT": "off"} | _PATIENT)
    service = bootstrap.build_service(config)
    app = bootstrap.wrap(service, config)
    status = service.engine.wait_until_settled(600)
    assert status is Status.READY, service.engine.problem
    yield app
    app.extensions["telemetry"].close()
    service.engine.stop()


def main(
    schemas: Annotated[int, typer.Option(min=1, help="How many to make up")] = 1000,
    seed: Annotated[int, typer.Option(help="Other schemas for another number")] = 0,
) -> None:
    """Ask for answers to made-up schemas; exit status 1 if one is not as it should be."""
    logging.disable(logging.WARNING)
    cases, began = made_up(schemas, seed), time.monotonic()

    def tell(counts: Counter[str]) -> None:
        print(f"{counts.total()} of {len(cases)}, {time.monotonic() - began:.0f} s: {dict(counts)}", flush=True)

    with demo_app() as app:
        counts, findings = sweep(app, cases, tell)
    tell(counts)
    for finding in findings:
        print(finding.problem, json.dumps(finding.case.body, ensure_ascii=False), sep="\n  ")
    raise typer.Exit(1 if findings else 0)


if __name__ == "__main__":
    typer.run(main)
