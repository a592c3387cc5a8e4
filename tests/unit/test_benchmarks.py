"""The benchmarks count and compare rightly; what they measure is not asserted."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from benchmarks import decisions, drafts, engine, replay
from benchmarks.client import percentile
from benchmarks.replay import Reply, Row, read_rows, summarise


@pytest.mark.parametrize(("share", "value"), [(0.5, 5), (0.95, 10), (0.1, 1), (1.0, 10)])
def test_a_percentile_is_the_nearest_rank(share: float, value: int) -> None:
    assert percentile([float(x) for x in range(10, 0, -1)], share) == value


def test_a_replay_is_summed_up_over_good_answers_only() -> None:
    replies = [
        Reply(Row("a", "正面"), 1.0, "正面"),
        Reply(Row("b", "负面"), 3.0, "正面"),
        Reply(Row("c", "负面"), 9.0, error="503: busy"),
    ]
    figures = summarise(replies, seconds=2.0)
    assert figures["requests"] == 3
    assert figures["errors"] == 1
    assert figures["accuracy"] == 0.5
    assert (figures["p50_s"], figures["p95_s"]) == (1.0, 3.0)
    assert figures["requests_per_s"] == 1.5


def test_a_csv_without_the_columns_is_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("id,review\n1,好\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="needs the columns text and label"):
        read_rows(file)


def test_a_replay_against_nothing_reports_every_request_as_an_error(tmp_path: Path) -> None:
    data, figures = tmp_path / "x.csv", tmp_path / "figures.json"
    data.write_text("label,text\n正面,好\n负面,差\n", encoding="utf-8")
    app = replay.typer.Typer()
    app.command()(replay.main)
    # Port 1 on loopback: nothing listens there.
    arguments = ["--data", str(data), "--url", "http://127.0.0.1:1", "--clients", "2", "--json", str(figures)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert json.loads(figures.read_text())["errors"] == 2


def test_the_engine_benchmark_fills_in_every_figure(demo_checkpoint: Path, tmp_path: Path) -> None:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(quiet=True)) as progress:
        figures = engine.measure(demo_checkpoint, "fp32", 3, progress)
    assert set(figures["decode_ms"]) == {"1", "2", "4", "8", "16"}
    assert set(figures["prefill_ms"]) == {"16", "64", "256"}
    for name in ("label_ms", "load_s", "rss_mb", "read_gbps", "gemm_gflops"):
        assert figures[name] > 0
    assert engine.table_of(figures).row_count == 5 + 3 + 6


def test_the_benchmark_of_decisions_fills_in_every_figure() -> None:
    app = typer.Typer()
    app.command()(decisions.main)
    done = CliRunner().invoke(app, ["--model", "demo", "--rounds", "1", "--threads", "1", "--json"])
    assert done.exit_code == 0, done.output
    figures = json.loads(done.output.splitlines()[-1])
    assert set(figures) == {"one_call_s", "ten_calls_s", "ten_calls_unread_s", "ratio", "ratio_unread"}
    assert all(value > 0 for value in figures.values())


def test_the_benchmark_of_drafts_says_the_same_with_and_without(demo_checkpoint: Path, tmp_path: Path) -> None:
    app, file = typer.Typer(), tmp_path / "figures.json"
    app.command()(drafts.main)
    options = ["--batches", "1,2", "--tokens", "40", "--rounds", "1", "--price", "0.05", "--threads", "1"]
    done = CliRunner().invoke(app, ["--model", str(demo_checkpoint), *options, "--json", str(file)])
    assert done.exit_code == 0, done.output
    figures = json.loads(file.read_text())["figures"]
    assert len(figures) == 2 * 4 and all(row["same"] for row in figures.values())
    assert all(row["without"] > 0 and row["with"] > 0 and row["accepted"] <= row["drafted"] for row in figures.values())
    assert figures["copying, batch 1"]["drafted"] > 0
