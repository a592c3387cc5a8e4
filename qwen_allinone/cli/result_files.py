"""Files that commands leave behind, written whole or not at all: wrong rows, corrections, and a task's calibration."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import yaml

from qwen_allinone.cli.asking import AnsweredRow
from qwen_allinone.csv_files import MARK, encode
from qwen_allinone.errors import DataFileError
from qwen_allinone.files import replace_file, unwritable
from qwen_allinone.state import Correction
from qwen_allinone.tasks import CALIBRATION, Calibration
from qwen_allinone.wording import said

_OTHER_WRONG = said("name_another", option="--wrong")
_ABOUT = "# Written by `qwen-allinone calibrate`. It holds for this prompt and this model; delete it to go without.\n"

_WRONG_BEGINS, _WRONG_ENDS = MARK + b'"line",', b'"label","answer","probability"'
_LONGEST_HEADER = 10_000  # bytes


def check_wrong(file: Path) -> None:
    """See that `write_wrong` may write `file`: what is there is none, is empty, or is its own from another time.

    Raises:
        DataFileError: something else is there, or no folder that it could be in.
    """
    if not file.parent.is_dir():
        raise _unwritten(file, FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)), _OTHER_WRONG)
    if not os.path.lexists(file):
        return
    if not file.is_file() or not _is_ours(file):
        raise DataFileError(said("wrong_is_another", file=file))


def _is_ours(file: Path) -> bool:
    """Whether nothing would be lost with it but what `write_wrong` wrote: known by its header, whatever the inputs."""
    try:
        with file.open("rb") as there:
            header = there.readline(_LONGEST_HEADER)
    except OSError as error:
        raise _unwritten(file, error, _OTHER_WRONG) from None
    return not header or (header.startswith(_WRONG_BEGINS) and header.rstrip(b"\r\n").endswith(_WRONG_ENDS))


def write_wrong(file: Path, wrong: Iterable[AnsweredRow]) -> None:
    """The rows that were answered wrong. With a byte order mark, and with `'` before what looks like a formula.

    Raises:
        DataFileError: the file cannot be written, or is another than one of these.
    """
    check_wrong(file)
    rows: list[list[str]] = []
    names = ["text"]
    for answered in wrong:
        names = list(answered.row.inputs)
        values = [answered.row.inputs[name] for name in names]
        likelihood = f"{max(answered.probabilities):.4f}"
        rows.append([str(answered.row.line), *values, answered.row.label, answered.answer, likelihood])
    header = ["line", *names, "label", "answer", "probability"]
    _write(file, encode([header, *rows]), _OTHER_WRONG)


def write_corrections(file: Path, inputs: Sequence[str], kept: Iterable[Correction]) -> None:
    """What people said of answers, as `write_wrong` writes rows; `label` is the right one.

    Raises:
        DataFileError: the file cannot be written.
    """
    rows = [[*inputs, "label", "answer", "probability", "note", "prompt_version", "at"]]
    for correction in kept:
        answer = correction.answer
        likelihood = "" if answer.probability is None else f"{answer.probability:.4f}"
        at = datetime.fromtimestamp(answer.at, UTC).isoformat(timespec="seconds")
        values = [answer.inputs.get(name, "") for name in inputs]
        rows.append([*values, correction.label, answer.label, likelihood, correction.note, answer.version, at])
    _write(file, encode(rows), said("name_another", option="--out"))


def write_calibration(folder: Path, calibration: Calibration) -> Path:
    """Leave `calibration` beside the prompt in `folder`; returns the file.

    Raises:
        DataFileError: the folder cannot be written; the message holds what should stand in the file.
    """
    text = _ABOUT + yaml.safe_dump(calibration.model_dump(), sort_keys=False, allow_unicode=True)
    file = folder / CALIBRATION
    _write(file, text.encode(), said("put_this_there", text=text))
    return file


def is_writable(folder: Path) -> bool:
    """Whether a file can be made in `folder`: tried, because permissions do not tell of a read-only disk."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _write(file: Path, content: bytes, fix: str) -> None:
    try:
        replace_file(file, content)
    except OSError as error:
        raise _unwritten(file, error, fix) from None


def _unwritten(file: Path, error: OSError, fix: str) -> DataFileError:
    return DataFileError(said("result_unwritable", file=file, strerror=unwritable(file, error), fix=fix))
