"""The HTTP measurements count rightly against a server on loopback; what they measure is not asserted."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks import client, replay, serve
from benchmarks.client import EVENT_STREAM, Answer, Target, closed_loop, read_csv
from tests.support.loopback import (
    EVENTS,
    JSON,
    Said,
    ask,
    bodies,
    events,
    loopback,
    ok,
    refused,
    run,
    shown,
)


@pytest.fixture
def csv_file(tmp_path: Path) -> Path:
    file = tmp_path / "texts.csv"
    file.write_text("id,text\n1,好\n2,差\n3,一般\n", encoding="utf-8")
    return file


# The closed loop


def test_every_request_is_sent_once_and_no_client_has_two_under_way() -> None:
    def slow(path: str, text: str) -> Said:
        time.sleep(0.01)
        return ok()

    with loopback(slow) as server:
        answers = dict(closed_loop(Target(server.url), bodies(30), clients=3))
    assert sorted(answers) == list(range(30))
    assert sorted(server.texts, key=int) == [str(number) for number in range(30)]
    assert 1 < server.most_under_way <= 3
    assert {answer.problem for answer in answers.values()} == {""}


def test_a_client_keeps_its_connection() -> None:
    with loopback(lambda path, text: ok()) as server:
        assert len(list(closed_loop(Target(server.url), bodies(20), clients=2))) == 20
    assert server.connections <= 2


def test_an_answer_belongs_to_its_body() -> None:
    with loopback(lambda path, text: ok({"response": text})) as server:
        for number, answer in closed_loop(Target(server.url), bodies(20), clients=4):
            assert answer.body == {"response": str(number)}


def test_a_path_of_the_url_comes_before_the_route() -> None:
    with loopback(lambda path, text: ok()) as server:
        ask(Target(server.url + "/internal/", "/v1/tasks/sentiment"))
    assert server.asked[0][0] == "/internal/v1/tasks/sentiment"


def test_what_breaks_the_loop_is_raised_by_it() -> None:
    def broken() -> Iterator[dict[str, str]]:
        yield {"text": "好"}
        raise RuntimeError("no more texts")

    with loopback(lambda path, text: ok()) as server, pytest.raises(RuntimeError, match="no more texts"):
        list(closed_loop(Target(server.url), broken(), clients=2))


# Errors


def test_errors_are_counted_by_status_and_good_answers_alone_make_the_rate() -> None:
    said = {"0": refused("503 Busy"), "1": refused("503 Busy"), "2": refused("500 Oops"), "3": ok()}
    with loopback(lambda path, text: said[text]) as server:
        run_, answers = serve.measure(Target(server.url), iter("0123"), 2, 4, lambda: None)
    assert run_["errors"] == {"503": 2, "500": 1}
    assert list(run_["errors"]) == ["503", "500"]  # most frequent first
    assert run_["requests"] == len(answers) == 4
    assert run_["requests_per_s"] == pytest.approx(1 / run_["seconds"])


def test_an_error_says_what_came_instead() -> None:
    page = b"<html>bad gateway"
    said: dict[str, Said] = {
        "page": ("502 Bad Gateway", [("Content-Length", str(len(page)))], [page]),
        "text": ("200 OK", [JSON, ("Content-Length", "2")], [b"ok"]),
    }
    with loopback(lambda path, text: said[text]) as server:
        page_answer, text_answer = ask(Target(server.url), "page"), ask(Target(server.url), "text")
    assert (page_answer.problem, page_answer.detail) == ("502", "502: <html>bad gateway")
    assert (text_answer.problem, text_answer.status) == ("200 but no JSON object", 200)


def test_a_server_that_is_gone_is_an_error_by_name() -> None:
    # Port 1 on loopback: nothing listens there.
    answer = ask(Target("http://127.0.0.1:1"))
    assert (answer.status, answer.problem) == (0, "ConnectionRefusedError")


def test_an_answer_cut_short_is_an_error_and_the_next_request_is_sent() -> None:
    def script(path: str, text: str) -> Said:
        short = [JSON, ("Content-Length", "99"), ("Connection", "close")]
        return ("200 OK", short, [b"{"]) if text == "0" else ok()

    with loopback(script) as server:
        answers = dict(closed_loop(Target(server.url), bodies(3), clients=1))
    assert answers[0].problem == "IncompleteRead"
    assert [answers[1].problem, answers[2].problem] == ["", ""]


@pytest.mark.parametrize("url", ["127.0.0.1:5000", "ftp://127.0.0.1", "http://"])
def test_a_url_that_is_none_ends_the_program_with_the_way_to_write_it(url: str) -> None:
    with pytest.raises(SystemExit, match="write it as http://HOST:PORT"):
        Target(url)


# Patience


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that clients wait, without waiting."""
    waited: list[float] = []
    monkeypatch.setattr(client, "time", FakeTime(waited))
    return waited


@dataclass
class FakeTime:
    waited: list[float]

    def sleep(self, seconds: float) -> None:
        self.waited.append(seconds)

    def perf_counter(self) -> float:
        return time.perf_counter() + sum(self.waited)


@pytest.mark.parametrize("status", ["503 Busy", "429 Too Many Requests"])
def test_a_patient_client_waits_as_long_as_it_is_told_and_sends_again(status: str, waits: list[float]) -> None:
    said = iter([refused(status, Retry_After="5"), refused(status, Retry_After="2"), ok()])
    with loopback(lambda path, text: next(said)) as server:
        answer = ask(Target(server.url, patient=True), "好")
    assert waits == [5.0, 2.0]
    assert (answer.problem, answer.sent_again) == ("", 2)
    assert answer.seconds >= 7.0  # from the first try on
    assert server.texts == ["好"] * 3


def test_an_impatient_client_takes_a_refusal_for_an_error(waits: list[float]) -> None:
    with loopback(lambda path, text: refused("503 Busy", Retry_After="5")) as server:
        answer = ask(Target(server.url))
    assert (answer.problem, answer.sent_again, waits) == ("503", 0, [])


@pytest.mark.parametrize("after", [{}, {"Retry_After": "soon"}])
def test_patience_needs_a_number_of_seconds(after: dict[str, str], waits: list[float]) -> None:
    with loopback(lambda path, text: refused("503 Busy", **after)) as server:
        assert ask(Target(server.url, patient=True)).problem == "503"
    assert waits == []


def test_patience_ends_with_the_time_limit(waits: list[float]) -> None:
    with loopback(lambda path, text: refused("503 Busy", Retry_After="40")) as server:
        answer = ask(Target(server.url, patient=True, timeout_s=100.0))
    assert (answer.problem, answer.sent_again, waits) == ("503", 2, [40.0, 40.0])


def test_other_errors_are_not_waited_out(waits: list[float]) -> None:
    with loopback(lambda path, text: refused("500 Oops", Retry_After="1")) as server:
        assert ask(Target(server.url, patient=True)).problem == "500"
    assert waits == []


# Event streams


def test_the_first_event_of_a_stream_is_timed_and_comments_are_none() -> None:
    def script(path: str, text: str) -> Said:
        def parts() -> Iterator[bytes]:
            yield b": ping\n\n"
            time.sleep(0.2)
            yield b'data: {"response": "a"}\n\n'
            yield b'data: {"usage": {"completion_tokens": 7}}\n\ndata: [DONE]\n\n'

        return "200 OK", [EVENTS], parts()

    with loopback(script) as server:
        answer = ask(Target(server.url, stream=True))
    assert answer.problem == ""
    assert answer.first_s is not None and 0.2 <= answer.first_s <= answer.seconds
    assert answer.tokens == 7
    assert EVENT_STREAM in server.asked[0][2]


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (events("event: error", 'data: {"message": "late"}', ""), "200 but an error event"),
        (events('data: {"error": "late"}', ""), "200 but an error event"),
        (events("event: error", 'data: {"message": "late"}', "", "data: more", ""), "200 but an error event"),
        (events("event: delta", "data: a", "", "event: done", "data: b", ""), ""),
        (events(": ping", ""), "200 but no event"),
    ],
)
def test_a_stream_may_fail_after_its_status(said: Said, problem: str) -> None:
    with loopback(lambda path, text: said) as server:
        assert ask(Target(server.url, stream=True)).problem == problem


@pytest.mark.parametrize(("end", "problem"), [(b"0\r\n\r\n", ""), (b"", "IncompleteRead")])
def test_a_stream_that_breaks_off_is_an_error(end: bytes, problem: str) -> None:
    said: Said = ("200 OK", [EVENTS, ("Transfer-Encoding", "chunked")], [b"9\r\ndata: a\n\n\r\n", end])
    with loopback(lambda path, text: said) as server:
        assert ask(Target(server.url, stream=True)).problem == problem


def test_a_stream_is_only_asked_for_if_told() -> None:
    with loopback(lambda path, text: ok()) as server:
        ask(Target(server.url))
    assert server.asked[0][2] == "application/json"


# Figures, table, command


def test_percentiles_are_those_of_good_answers() -> None:
    answers = [Answer(200, float(seconds)) for seconds in range(1, 21)] + [Answer(503, 99.0, "503")]
    figures = serve.summarise(answers, clients=4, seconds=10.0)
    assert (figures["p50_s"], figures["p95_s"], figures["max_s"]) == (10.0, 19.0, 20.0)
    assert figures["requests_per_s"] == 2.0
    assert not {"tokens_per_s", "first_p50_s", "sent_again"} & set(figures)


def test_tokens_are_counted_if_every_good_answer_says_them() -> None:
    said, silent = Answer(200, 1.0, tokens=6), Answer(200, 1.0)
    assert serve.summarise([said, said, Answer(503, problem="503")], 1, 4.0)["tokens_per_s"] == 3.0
    assert "tokens_per_s" not in serve.summarise([said, silent], 1, 4.0)


def test_the_table_has_no_column_for_what_nobody_knows() -> None:
    answers = [Answer(200, 1.0), Answer(503, 1.0, "503"), Answer(503, 1.0, "503")]
    runs = [serve.summarise(answers[:1], 1, 2.0), serve.summarise(answers, 8, 2.0)]
    text = shown(serve.table_of(runs, "title"))
    assert "2 x 503" in text and "requests/s" in text
    assert "tokens/s" not in text and "first event" not in text and "sent again" not in text
    streamed = serve.summarise([Answer(200, 1.0, first_s=0.5, tokens=3)], 1, 2.0)
    text = shown(serve.table_of([*runs, streamed], "title"))
    assert "tokens/s" in text and "first event p95 s" in text


def test_a_run_in_which_all_failed_has_no_times() -> None:
    figures = serve.summarise([Answer(503, 1.0, "503")], 1, 2.0)
    assert "p50_s" not in figures
    assert "-" in shown(serve.table_of([figures, serve.summarise([Answer(200, 1.0)], 1, 2.0)], "title"))


def test_the_command_prints_a_row_and_writes_data_for_each_number_of_clients(csv_file: Path, tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    with loopback(lambda path, text: ok()) as server:
        result = run(
            serve.main, "--url", server.url, "--data", csv_file, "--clients", "1,3", "--requests", 4, "--json", figures
        )
    assert result.exit_code == 0, result.output
    written = json.loads(figures.read_text())
    assert [(each["clients"], each["requests"], each["errors"]) for each in written["runs"]] == [(1, 4, {}), (3, 4, {})]
    assert (written["url"], written["path"]) == (server.url, "/chat")
    assert "p95" in result.output
    # One client keeps the order; the next run goes on where it stopped.
    assert server.texts[:4] == ["好", "差", "一般", "好"]
    assert server.texts.count("差") == 3


def test_the_command_fails_if_a_request_failed_and_says_how(csv_file: Path) -> None:
    with loopback(lambda path, text: ok() if text == "好" else refused("503 Busy")) as server:
        result = run(serve.main, "--url", server.url, "--data", csv_file, "--clients", "1", "--requests", 3)
    assert result.exit_code == 1
    assert "2 x 503: {'error': 'busy'}" in result.stderr


def test_with_patience_a_full_server_is_no_error(csv_file: Path, tmp_path: Path) -> None:
    figures, first = tmp_path / "figures.json", itertools.count()
    with loopback(lambda path, text: ok() if next(first) else refused("503 Busy", Retry_After="0")) as server:
        arguments = ("--url", server.url, "--data", csv_file, "--clients", "1", "--requests", 3, "--json", figures)
        result = run(serve.main, *arguments, "--patient")
    assert result.exit_code == 0, result.output
    (only,) = json.loads(figures.read_text())["runs"]
    assert (only["errors"], only["sent_again"]) == ({}, 1)


def test_a_server_that_does_not_stream_is_counted_plain_and_named(csv_file: Path) -> None:
    arguments = ("--data", csv_file, "--clients", "1", "--requests", 2, "--stream")
    with loopback(lambda path, text: ok()) as server:
        result = run(serve.main, "--url", server.url, *arguments)
    assert result.exit_code == 0
    assert "no event stream but application/json: counted as plain answers" in result.stderr
    with loopback(lambda path, text: events("data: a", "")) as server:
        result = run(serve.main, "--url", server.url, *arguments)
    assert result.exit_code == 0
    assert "counted as plain" not in result.stderr


@pytest.mark.parametrize(
    ("clients", "requests", "problem"),
    [("1,x", 9, "with commas"), ("0", 9, "1 to 256"), ("1,16", 9, "too few for 16"), ("", 9, "with commas")],
)
def test_impossible_numbers_of_clients_are_refused(csv_file: Path, clients: str, requests: int, problem: str) -> None:
    result = run(serve.main, "--data", csv_file, "--clients", clients, "--requests", requests)
    assert result.exit_code == 2
    assert problem in result.stderr


def test_a_csv_needs_the_column_and_rows(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("id,review\n1,好\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="needs the column text, has"):
        read_csv(file, "text")
    file.write_text("text\n", encoding="utf-8")
    assert run(serve.main, "--data", file, "--clients", "1").exit_code == 1


def test_a_replay_compares_labels_over_the_same_client(tmp_path: Path) -> None:
    data, figures = tmp_path / "x.csv", tmp_path / "figures.json"
    data.write_text("label,text\n正面,好\n负面,差\n正面,空\n", encoding="utf-8")
    with loopback(lambda path, text: ok({"sentiment": "正面"} if text == "空" else None)) as server:
        result = run(replay.main, "--data", data, "--url", server.url, "--json", figures)
    assert result.exit_code == 1  # an answer without a reply is an error
    written = json.loads(figures.read_text())
    assert (written["requests"], written["errors"], written["accuracy"]) == (3, 1, 0.5)
