"""API keys: made, found, taken away; the file of hashes is whole at any moment and for its owner alone."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import pytest

from qwen_allinone.access import keys
from qwen_allinone.errors import AccessFileError
from qwen_allinone.wording import in_language, message_of

HEX = "0" * 64


def read(path: Path) -> dict[str, bytes]:
    return keys.parse(path.read_bytes())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def test_a_key_is_found_and_no_other(file: Path) -> None:
    alice, bob = keys.add(file, "alice"), keys.add(file, "bob")
    held = read(file)
    assert (keys.holder(held, alice), keys.holder(held, bob)) == ("alice", "bob")
    for other in ("", alice[:-1], alice + "x", alice.upper(), held["alice"].hex(), "ключ", "\ud800"):
        assert keys.holder(held, other) is None


def test_keys_are_long_and_never_the_same(file: Path) -> None:
    made = {keys.add(file, f"k{number}") for number in range(20)}
    assert len(made) == 20
    for key in made:
        assert re.fullmatch(r"qaio_[A-Za-z0-9_-]{43}", key)  # 256 bits


def test_the_file_holds_hashes_and_is_for_its_owner_alone(file: Path) -> None:
    key = keys.add(file, "alice")
    text = file.read_text()
    assert key not in text and key.removeprefix("qaio_") not in text
    assert f"alice: sha256:{hashlib.sha256(key.encode()).hexdigest()}\n" in text
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o644)
    keys.add(file, "bob")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_no_right_to_give_files_away_is_needed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd's unit has none: the call is refused even where nothing would change."""

    def refused(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "fchown", refused)
    keys.add(file, "alice")
    keys.add(file, "bob")
    assert len(file.read_text().splitlines()) >= 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_a_file_changed_by_root_stays_its_owners(file: Path) -> None:
    keys.add(file, "alice")
    os.chown(file, 12345, 12346)
    keys.add(file, "bob")
    assert (file.stat().st_uid, file.stat().st_gid) == (12345, 12346)


@pytest.mark.parametrize(
    "name", ["", " ", "-a", ".a", "a b", "a:b", "jwt:a", "a\nb: sha256:" + HEX, "a\n", "爱丽丝", "a/b", "#a", "a" * 65]
)
def test_an_impossible_name_is_refused_and_nothing_written(file: Path, name: str) -> None:
    with pytest.raises(AccessFileError, match="is no name for a key"):
        keys.add(file, name)
    assert not file.exists()


def test_a_name_that_is_taken_is_refused_and_its_key_still_holds(file: Path) -> None:
    key = keys.add(file, "alice")
    before = file.read_bytes()
    with pytest.raises(AccessFileError, match="alice has a key already"):
        keys.add(file, "alice")
    assert file.read_bytes() == before
    assert keys.holder(read(file), key) == "alice"


def test_a_removed_key_no_longer_holds_and_its_name_is_free(file: Path) -> None:
    old, other = keys.add(file, "alice"), keys.add(file, "alice.2")
    keys.remove(file, "alice")
    assert keys.names(file) == ["alice.2"]
    assert keys.holder(read(file), old) is None
    assert keys.holder(read(file), other) == "alice.2"
    assert keys.add(file, "alice") != old


def test_when_the_last_key_is_removed_nobody_gets_in(file: Path) -> None:
    keys.add(file, "alice")
    keys.remove(file, "alice")
    assert read(file) == {}, "and the file is not taken for a broken one"


def test_removing_who_is_not_there_is_refused(file: Path) -> None:
    with pytest.raises(AccessFileError):
        keys.remove(file, "alice")
    keys.add(file, "alice")
    with pytest.raises(AccessFileError, match="bob has no key"):
        keys.remove(file, "bob")


def test_what_people_wrote_in_the_file_stays(file: Path) -> None:
    file.write_text(f"# ours\n\ncarol: sha256:{HEX}\n# hers until May\ndave: sha256:{HEX}")
    keys.add(file, "alice")
    keys.remove(file, "dave")
    assert file.read_text().startswith(f"# ours\n\ncarol: sha256:{HEX}\n# hers until May\nalice: sha256:")


def test_a_link_stays_a_link(file: Path, tmp_path: Path) -> None:
    file.symlink_to(tmp_path / "elsewhere")
    keys.add(file, "alice")
    assert file.is_symlink() and keys.names(tmp_path / "elsewhere") == ["alice"]


BROKEN = {
    "nothing at all": (b"", "is empty"),
    "only blanks": (b"\n \n", "is empty"),
    "a plain key": (b"alice: qaio_abc\n", "line 1"),
    "a short hash": (f"# x\nalice: sha256:{HEX[1:]}\n".encode(), "line 2"),
    "a hash in capitals": (f"alice: sha256:{'A' * 64}\n".encode(), "line 1"),
    "another hash": (f"alice: md5:{HEX}\n".encode(), "line 1"),
    "a name twice": (f"a: sha256:{HEX}\na: sha256:{HEX}\n".encode(), "line 2: a is there twice"),
    "no UTF-8": (b"\xff\xfe\x00", "UTF-8"),
}


@pytest.mark.parametrize(
    ("language", "told"),
    [("en", "holds hashes of keys, never keys: remove"), ("zh", "保存密钥的散列，不保存密钥：请删除")],
)
def test_who_pastes_a_key_is_told_that_the_file_holds_hashes_and_what_makes_one(
    file: Path, language: Literal["en", "zh"], told: str
) -> None:
    file.write_text("qaio_abcdef\n")
    with pytest.raises(AccessFileError) as caught:
        keys.names(file)
    message = in_language(message_of(caught.value), language)
    assert told in message and "`qwen-allinone keys new NAME`" in message
    assert "qaio_abcdef" not in message, "a log is no place for keys"


@pytest.mark.parametrize(("raw", "words"), list(BROKEN.values()), ids=list(BROKEN))
def test_a_broken_file_is_refused_and_left_as_it_is(file: Path, raw: bytes, words: str) -> None:
    file.write_bytes(raw)
    with pytest.raises(AccessFileError, match=words):
        keys.names(file)
    if raw:
        with pytest.raises(AccessFileError):
            keys.add(file, "alice")
        assert file.read_bytes() == raw


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(AccessFileError) as caught:
        keys.add(tmp_path / "no ne" / "keys", "alice")
    folder = f"{tmp_path}/no ne"
    told = f"{folder}/keys: cannot be written: there is no folder {folder}; make it: mkdir -p '{folder}'"
    assert str(caught.value) == told
    assert f"没有文件夹 {folder}，请先建立：mkdir -p '{folder}'" in in_language(message_of(caught.value), "zh")


def test_writers_at_once_lose_nothing_and_readers_see_whole_files(file: Path) -> None:
    keys.add(file, "first")
    done = threading.Event()
    seen: list[int] = []

    def read_on() -> None:
        while not done.is_set():
            seen.append(len(read(file)))  # raises for a part of a file

    with ThreadPoolExecutor(9) as pool:
        reader = pool.submit(read_on)
        list(pool.map(lambda number: keys.add(file, f"k{number}"), range(40)))
        done.set()
        reader.result()
    assert len(read(file)) == 41
    assert seen == sorted(seen)
    assert [path.name for path in file.parent.iterdir()] == ["keys"], "no temporary file is left"
