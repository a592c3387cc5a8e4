"""The comparison with other engines: what is chosen, computed, started and kept; what it measures is not asserted."""

import io
import json
import sys
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.peers import __main__ as peers
from benchmarks.peers.engines import ALL, KINDS, RIVALS, Choice, parse_batches, parse_engines
from benchmarks.peers.environments import ENVIRONMENTS, Environment, Workshop, key_of, unpack_converter
from benchmarks.peers.figures import Cell, by_size, medians, ratios, table_of
from benchmarks.peers.process import PROJECT, PeerFailed, Runner, run

ONE, FOUR, PROMPT = Cell("decode", 1), Cell("decode", 4), Cell("prefill", 256)

# A runner that measures nothing, prints where libraries do, and dies when asked for a batch of 13.
FAKE = """
import os, sys
sys.path.insert(0, {project!r})
from benchmarks.peers.runners.protocol import serve

class Fake:
    def __init__(self, model, mode, threads):
        print("a library says hello")
        os.write(1, b"and another, past Python\\n")
        if mode == "broken":
            raise SystemExit("no such weights")
    def decode_ms(self, batch, context, steps):
        print("a step")
        if batch == 13:
            sys.stderr.write("out of luck\\n")
            os._exit(3)
        return batch * 1000 + context + steps
    def prefill_ms(self, tokens, repeats):
        return tokens + repeats / 10

serve(Fake)
"""


@pytest.fixture
def fake(tmp_path: Path) -> list[str]:
    """A command that starts the fake runner."""
    script = tmp_path / "fake.py"
    script.write_text(FAKE.format(project=str(PROJECT)), encoding="utf-8")
    return [sys.executable, str(script), "--model", str(tmp_path), "--mode", "fp32", "--threads", "1"]


# Choosing


def test_engines_are_parsed_in_order_each_once() -> None:
    chosen = parse_engines("openvino:int8, ours:fp32,openvino:int8")
    assert [str(choice) for choice in chosen] == ["openvino:int8", "ours:fp32"]


def test_no_engines_named_means_all_that_fit_together() -> None:
    chosen = {str(choice) for choice in parse_engines("")}
    assert chosen > {"ours:int8", "transformers:fp32", "llama.cpp:q8_0", "openvino:fp16"}
    assert {str(choice) for choice in ALL} - chosen == {
        "openvino:fp32-kv32",
        "ours:torch-fp32",
        "ours:torch-int8",
    }


@pytest.mark.parametrize("text", ["ours", "ours:fp8", "onnx:fp32", "ours:fp32,llama:f32"])
def test_an_unknown_engine_is_refused_with_those_there_are(text: str) -> None:
    with pytest.raises(ValueError, match=r"unknown engine .*use ours:fp32, "):
        parse_engines(text)


def test_batches_are_parsed() -> None:
    assert parse_batches("1, 4,16,4", most=16) == [1, 4, 16]


@pytest.mark.parametrize("text", ["", "0", "17", "1,x", "-1", "1.5"])
def test_batches_that_cannot_be_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="from 1 to 16"):
        parse_batches(text, most=16)


def test_every_peer_has_a_rival_and_a_runner() -> None:
    names = {str(choice) for choice in ALL}
    assert set(RIVALS) == {name for name in names if not name.startswith("ours:") or ":torch-" in name}
    assert set(RIVALS.values()) <= names
    for kind in KINDS.values():
        assert (PROJECT / "benchmarks" / "peers" / "runners" / f"{kind.runner}.py").exists()
        assert kind.environment is None or kind.environment in ENVIRONMENTS


# Figures


def test_a_ratio_is_the_median_of_the_ratios_within_each_round() -> None:
    rounds = [
        {"ours": {ONE: 10.0}, "peer": {ONE: 20.0}},  # 2
        {"ours": {ONE: 100.0}, "peer": {ONE: 150.0}},  # 1.5, on a machine that is ten times slower
        {"ours": {ONE: 10.0}, "peer": {ONE: 40.0}},  # 4
    ]
    assert ratios(rounds, [ONE], {"peer": "ours"}) == {"peer": {ONE: 2.0}}
    assert medians(rounds, [ONE]) == {"ours": {ONE: 10.0}, "peer": {ONE: 40.0}}


def test_a_ratio_counts_only_rounds_in_which_both_answered() -> None:
    rounds = [
        {"ours": {ONE: 1.0, FOUR: 1.0}, "peer": {ONE: 3.0}},
        {"ours": {ONE: 1.0, FOUR: 1.0}},
    ]
    assert ratios(rounds, [ONE, FOUR], {"peer": "ours", "absent": "ours"}) == {"peer": {ONE: 3.0}}
    assert medians(rounds, [ONE, FOUR])["peer"] == {ONE: 3.0}


def test_tables_show_a_dash_where_nothing_was_measured() -> None:
    table = table_of("ms", [("ours", {ONE: 1.25})], [ONE, FOUR], digits=1)
    assert [list(column.cells) for column in table.columns] == [["ours"], ["1.2"], ["-"]]


def test_the_json_names_cells_by_size() -> None:
    assert by_size({ONE: 1.0, FOUR: 2.0, PROMPT: 3.0}, "decode") == {"1": 1.0, "4": 2.0}
    rounds = [{"ours:fp32": {ONE: 10.0, PROMPT: 50.0}, "openvino:fp32": {ONE: 15.0, PROMPT: 25.0}}]
    figures = peers.figures_of(Path("m"), rounds, 8, [ONE, PROMPT])
    assert figures == {
        "model": "m",
        "rounds": 1,
        "steps": 8,
        "cells": {
            "ours:fp32": {"decode_ms": {"1": 10.0}, "prefill_ms": {"256": 50.0}},
            "openvino:fp32": {"decode_ms": {"1": 15.0}, "prefill_ms": {"256": 25.0}},
        },
        "ratios": {"openvino:fp32": {"decode": {"1": 1.5}, "prefill": {"256": 0.5}}},
    }


# Runners


def test_a_runner_answers_whatever_libraries_print(fake: list[str], tmp_path: Path) -> None:
    log = tmp_path / "log"
    with closing(Runner(fake, log)) as runner:
        assert runner.decode_ms(2, 200, 24) == 2224.0
        assert runner.prefill_ms(256, 3) == 256.3
    printed = log.read_text()
    assert "a library says hello" in printed
    assert "and another, past Python" in printed


def test_a_runner_that_dies_is_reported_with_its_last_lines(fake: list[str], tmp_path: Path) -> None:
    with closing(Runner(fake, tmp_path / "log")) as runner:
        with pytest.raises(PeerFailed, match=r"(?s)ended with 3.*out of luck"):
            runner.decode_ms(13, 200, 24)
        with pytest.raises(PeerFailed):
            runner.decode_ms(1, 200, 24)


def test_a_runner_that_cannot_load_is_reported(fake: list[str], tmp_path: Path) -> None:
    fake[fake.index("fp32")] = "broken"
    with pytest.raises(PeerFailed, match=r"(?s)ended with 1.*no such weights"):
        Runner(fake, tmp_path / "log")


@pytest.mark.parametrize("says", ["hello", "[]", '{"ready": 0}'])
def test_a_program_that_is_no_runner_is_refused(says: str, tmp_path: Path) -> None:
    script = tmp_path / "other.py"
    script.write_text(f"print({says!r})\n", encoding="utf-8")
    with pytest.raises(PeerFailed):
        Runner([sys.executable, str(script)], tmp_path / "log")


def test_a_dead_runner_does_not_stop_the_others(
    fake: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def command(choice: Choice, *_: object) -> list[str]:
        return [part if part != "fp32" or choice.mode != "int8" else "broken" for part in fake]

    monkeypatch.setattr(peers, "command_of", command)
    app = peers.typer.Typer()
    app.command()(peers.main)
    figures = tmp_path / "figures.json"
    arguments = ["--model", str(tmp_path), "--work", str(tmp_path / "work"), "--json", str(figures)]
    arguments += ["--engines", "ours:fp32,ours:int8,openvino:fp32", "--batches", "1,13,2", "--rounds", "2"]
    result = CliRunner().invoke(app, [*arguments, "--steps", "24"])
    assert result.exit_code == 1
    assert "ours:int8 failed: ended with 1" in result.stderr
    assert "openvino:fp32 failed: ended with 3" in result.stderr
    cells = json.loads(figures.read_text())["cells"]
    # Both fakes died at 13: what they had answered before stays, and the second round finds nobody.
    assert cells == {name: {"decode_ms": {"1": 1224.0}, "prefill_ms": {}} for name in ("ours:fp32", "openvino:fp32")}


def test_our_runner_measures_the_demo_model(demo_checkpoint: Path, tmp_path: Path) -> None:
    command = peers.command_of(Choice("ours", "fp32"), demo_checkpoint, Workshop(tmp_path), threads=1)
    with closing(Runner(command, tmp_path / "log")) as runner:
        assert 0 < runner.decode_ms(2, peers.CONTEXT, 3) < 10_000
        assert 0 < runner.prefill_ms(16, 2) < 10_000
        with pytest.raises(PeerFailed, match="context of 200"):
            runner.decode_ms(1, 100, 3)


# Environments and models


class FakeRun:
    """Stands in for pip and the converters: notes commands and leaves behind what they would."""

    def __init__(self, fail: str = "") -> None:
        self.commands: list[Sequence[str]] = []
        self._fail = fail

    def __call__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        if self._fail and self._fail in command:
            raise PeerFailed(self._fail)
        self.commands.append(command)
        if "--outfile" in command:
            Path(command[command.index("--outfile") + 1]).write_text("gguf")
        elif "openvino" in command:
            Path(command[-1]).mkdir()
        elif "download" in command:
            _write_archive(Path(command[command.index("--dest") + 1]))

    def take(self) -> list[Sequence[str]]:
        """The commands since the last call."""
        taken, self.commands = self.commands, []
        return taken


def _write_archive(folder: Path) -> None:
    """A source package as llama-cpp-python's: the converter, its modules, and what is not needed."""
    folder.mkdir()
    inside = "llama_cpp_python-0/vendor/llama.cpp/"
    names = ["convert_hf_to_gguf.py", "conversion/base.py", "gguf-py/gguf/__init__.py", "src/llama.cpp"]
    with tarfile.open(folder / "llama_cpp_python-0.tar.gz", "w:gz") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(inside + name), io.BytesIO())


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def test_an_environment_is_made_once(tmp_path: Path) -> None:
    pip = FakeRun()
    python = Workshop(tmp_path, pip).python("hf")
    assert python == tmp_path / "envs" / "hf" / "bin" / "python"
    venv, install = pip.take()
    assert list(venv) == [sys.executable, "-m", "venv", str(tmp_path / "envs" / "hf")]
    assert list(install) == [str(python), "-m", "pip", "install", *ENVIRONMENTS["hf"].requirements]
    assert Workshop(tmp_path, pip).python("hf") == python
    assert pip.take() == []


def test_an_environment_is_made_again_when_its_packages_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip = FakeRun()
    workshop = Workshop(tmp_path, pip)
    workshop.python("ov")
    pip.take()
    monkeypatch.setitem(ENVIRONMENTS, "ov", Environment(("openvino-genai==2",), unwanted=("extra",)))
    python = workshop.python("ov")
    assert [list(command[1:]) for command in pip.take()[1:]] == [
        ["-m", "pip", "install", "openvino-genai==2"],
        ["-m", "pip", "uninstall", "-y", "extra"],
    ]
    assert workshop.python("ov") == python
    assert pip.take() == []


def test_a_failed_install_leaves_no_stamp(tmp_path: Path) -> None:
    with pytest.raises(PeerFailed):
        Workshop(tmp_path, FakeRun(fail="install")).python("llama")
    pip = FakeRun()
    Workshop(tmp_path, pip).python("llama")
    assert len(pip.take()) == 2


def test_a_model_is_converted_once_for_each_form(tmp_path: Path, model: Path) -> None:
    pip = FakeRun()
    workshop = Workshop(tmp_path / "work", pip)
    folder = workshop.converted(model, "openvino-fp16")
    assert folder.is_dir()
    assert tuple(pip.take()[-1][-3:-1]) == ("--weight-format", "fp16")
    gguf = workshop.converted(model, "gguf-q8_0")
    assert gguf.is_file()
    download, convert = pip.take()
    assert "download" in download
    assert list(convert[-5:]) == ["--outtype", "q8_0", "--outfile", f"{gguf}.partial", str(model)]
    workshop.converted(model, "gguf-f32")
    assert len(pip.take()) == 1  # the converter is there already
    assert workshop.converted(model, "gguf-q8_0") == gguf
    assert workshop.converted(model, "openvino-fp16") == folder
    assert pip.take() == []


def test_a_failed_conversion_is_tried_again(tmp_path: Path, model: Path) -> None:
    Workshop(tmp_path / "work", FakeRun()).python("export")
    with pytest.raises(PeerFailed):
        Workshop(tmp_path / "work", FakeRun(fail="openvino")).converted(model, "openvino-int8")
    assert Workshop(tmp_path / "work", FakeRun()).converted(model, "openvino-int8").is_dir()


def test_a_changed_checkpoint_is_another_model(model: Path) -> None:
    before = key_of(model)
    assert before == key_of(model)
    assert before.startswith("model-")
    (model / "model.safetensors").write_text("weights")
    assert key_of(model) != before


def test_only_the_converter_is_unpacked(tmp_path: Path) -> None:
    _write_archive(tmp_path / "source")
    unpack_converter(next((tmp_path / "source").iterdir()), tmp_path / "out")
    files = {str(file.relative_to(tmp_path / "out")) for file in (tmp_path / "out").rglob("*") if file.is_file()}
    assert files == {"convert_hf_to_gguf.py", "conversion/base.py", "gguf-py/gguf/__init__.py"}


def test_a_program_that_fails_is_reported_with_its_last_lines(tmp_path: Path) -> None:
    code = "import os, sys; print(os.environ['GREETING']); sys.exit('no wheel found')"
    with pytest.raises(PeerFailed, match=r"(?s)ended with 1\nhello.*no wheel found"):
        run([sys.executable, "-u", "-c", code], tmp_path / "log", {"GREETING": "hello"})
    with pytest.raises(PeerFailed, match="not-there"):
        run([str(tmp_path / "not-there")], tmp_path / "log", {})


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A test that forgot its fake pip must not reach an index."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    yield
