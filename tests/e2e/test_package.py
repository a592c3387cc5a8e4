"""The wheel in an environment of its own: it serves, asks and checks from any folder, with nothing beside it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.e2e.conftest import PROJECT, StartService, assert_is_chat, environment

SOURCES = ("qwen_allinone", "prompts", "demo/checkpoint", "demo/MODEL_CARD.md", "app.py", "gunicorn.conf.py", "setup.py",
           "native", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")  # fmt: skip


def run(*command: str | Path, folder: Path, **given: str) -> str:
    environ = environment(5000, folder, {"PYTHONPATH": "", "COLUMNS": "200"} | given)
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(demo_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the wheel, built from a copy of the sources, and this one's dependencies."""
    home = tmp_path_factory.mktemp("package")
    for name in SOURCES:
        target = home / "source" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (PROJECT / name).is_dir():
            shutil.copytree(PROJECT / name, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(PROJECT / name, target)
    pip = (sys.executable, "-m", "pip")
    run(
        *pip, "wheel", "-q", "--no-deps", "--no-index", "--no-build-isolation", "-w", home, home / "source", folder=home
    )
    (wheel,) = home.glob("*.whl")
    shutil.rmtree(home / "source")
    venv.create(home / "env", symlinks=True)
    programs = home / "env" / "bin"
    (site_packages,) = (home / "env" / "lib").glob("python*/site-packages")
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    target = ("--python", str(programs / "python"))
    run(*pip, *target, "install", "-q", "--no-deps", "--no-index", "--ignore-installed", wheel, folder=home)
    return programs


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder with modules that have the names of ours."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    for name in ("app.py", "gunicorn_conf.py", "settings.py"):
        (folder / name).write_text("raise SystemExit('not this one')\n")
    return folder


def test_the_package_is_the_installed_one(installed: Path, elsewhere: Path) -> None:
    where = run(installed / "python", "-c", "import qwen_allinone; print(qwen_allinone.__file__)", folder=elsewhere)
    assert str(installed.parent) in where


def test_the_installed_command_serves_from_any_folder(
    installed: Path, elsewhere: Path, start_service: StartService
) -> None:
    command = (str(installed / "qwen-allinone"), "serve")
    service = start_service(command=command, folder=elsewhere, PYTHONPATH="")
    assert_is_chat(service.chat("今天心情特别差"))
    assert service.ask("GET", "/openapi.json").json["openapi"].startswith("3.1")
    page = service.ask("GET", "/docs/swagger")
    assert page.status == 200 and b"swagger" in page.data.lower()
    session = b'{"text": "\xe4\xbd\xa0\xe5\xa5\xbd", "session": true}'
    assert service.ask("POST", "/chat", session, Content_Type="application/json").status == 200
    assert (elsewhere / "data" / "sessions.db").exists(), "relative to where it was started"


def test_the_installed_command_asks_and_checks(installed: Path, elsewhere: Path) -> None:
    program = installed / "qwen-allinone"
    answer = run(program, "ask", "今天心情特别差，工作也不顺利", folder=elsewhere)
    assert answer.startswith("😢 负面 (")
    assert "sentiment" in run(program, "check", "sentiment", "--no-wrong", folder=elsewhere)


def test_prompts_of_ones_own_are_named_relative_to_the_folder(
    installed: Path, elsewhere: Path, start_service: StartService
) -> None:
    shutil.copytree(PROJECT / "prompts" / "sentiment", elsewhere / "mine" / "sentiment")
    shutil.copytree(PROJECT / "prompts" / "chat", elsewhere / "mine" / "chat")
    command = (str(installed / "qwen-allinone"), "serve")
    service = start_service(command=command, folder=elsewhere, PYTHONPATH="", QAIO_PROMPTS="mine")
    names = [task["name"] for task in service.ask("GET", "/v1/tasks").json["tasks"]]
    assert names == ["chat", "sentiment"]
