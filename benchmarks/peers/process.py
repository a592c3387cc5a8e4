"""Programs that the comparison starts: ones that run to their end, and runners that stay and answer."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
_LINES_SHOWN = 8
_QUIT_S = 20.0


class PeerFailed(Exception):
    """A program ended that should not have; the message holds its last lines."""


def run(command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
    """Run `command` to its end, output into `log`; `environment` is added to ours.

    Raises:
        PeerFailed: it could not be started or did not end with 0.
    """
    with log.open("wb") as output:
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env={**os.environ, **environment}
            )
        except OSError as problem:
            raise PeerFailed(f"{command[0]}: {problem}") from None
    if done.returncode:
        raise PeerFailed(f"{' '.join(command)} ended with {done.returncode}\n{last_lines(log)}")


class Runner:
    """A program that holds a loaded model and answers measurements (see `runners.protocol`)."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        """Start it and wait until it has loaded. Raises PeerFailed."""
        self._log = log
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                encoding="utf-8",
                cwd=PROJECT,
                env={**os.environ, "HF_HUB_OFFLINE": "1"},
            )
        try:
            if self._answer().get("ready") is not True:
                raise PeerFailed("its first line does not say that it is ready")
        except BaseException:
            self.close()
            raise

    def decode_ms(self, batch: int, context: int, steps: int) -> float:
        """Median of one step of `batch` sequences behind `context` tokens each. Raises PeerFailed."""
        return self._ask({"do": "decode", "batch": batch, "context": context, "steps": steps})

    def prefill_ms(self, tokens: int, repeats: int) -> float:
        """Median of a prompt of `tokens` tokens up to its first new one. Raises PeerFailed."""
        return self._ask({"do": "prefill", "tokens": tokens, "repeats": repeats})

    def close(self) -> None:
        """Ask it to end; kill it if it does not. May be called twice."""
        if self._process.poll() is None:
            try:
                self._tell({"do": "quit"})
                self._process.wait(_QUIT_S)
            except (PeerFailed, subprocess.TimeoutExpired):
                self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                with suppress(OSError):  # what it did not read any more
                    pipe.close()

    def _ask(self, request: dict[str, Any]) -> float:
        self._tell(request)
        answer = self._answer()
        if not isinstance(answer.get("ms"), int | float):
            raise PeerFailed(f"not an answer to {request}: {answer}")
        return float(answer["ms"])

    def _tell(self, request: dict[str, Any]) -> None:
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise self._died() from None

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise self._died()
        try:
            answer = json.loads(line)
        except ValueError:
            raise PeerFailed(f"not an answer: {line.strip()[:200]}") from None
        return answer if isinstance(answer, dict) else {}

    def _died(self) -> PeerFailed:
        try:
            self._process.wait(_QUIT_S)
        except subprocess.TimeoutExpired:  # it closed its pipes and lives on
            self._process.kill()
        return PeerFailed(f"ended with {self._process.wait()}\n{last_lines(self._log)}")


def last_lines(log: Path) -> str:
    """The end of a log, for a person."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    # A progress bar is one line of many states: the last is enough.
    return "\n".join(line.rsplit("\r", 1)[-1] for line in lines[-_LINES_SHOWN:])
