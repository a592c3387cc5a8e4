"""What the READMEs and docs/ say of the code is so, and each pair of English and Chinese documents says the same."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from qwen_allinone.settings import PREFIX, Settings
from qwen_allinone.shipped_files import SHIPPED
from qwen_allinone.wording import Language, one_of
from qwen_allinone.wording.of_settings import OF_SETTINGS

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CHINESE = (ROOT / "README.zh-CN.md").read_text(encoding="utf-8")
SETTINGS, SETTINGS_CHINESE = (
    (ROOT / "docs" / f"settings{language}.md").read_text(encoding="utf-8") for language in ("", ".zh-CN")
)
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
TREE = ARCHITECTURE.split("## What is where")[1].split("\n## ")[0]
DOCUMENTS = [ROOT / "README.md", ROOT / "README.zh-CN.md", *sorted((ROOT / "docs").glob("*.md"))]
IN_CHINESE = [path for path in DOCUMENTS if path.name.endswith(".zh-CN.md")]
IN_BOTH = pytest.mark.parametrize("chinese", IN_CHINESE, ids=lambda path: path.name.removesuffix(".zh-CN.md"))

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
# `engine/step.py` `step`, `_read`
_IN_FILE = re.compile(r"`([a-z_0-9/]+\.py)` ((?:`[A-Za-z_.]+`(?:, )?)+)")


def _row(field: str, language: Language) -> str:
    return f"{_name_and_default(field)} {one_of(OF_SETTINGS[field], language)} |"


def _name_and_default(field: str) -> str:
    default = Settings.model_fields[field].default
    if isinstance(default, Path) and default.is_absolute():
        default = default.relative_to(SHIPPED)
    shown = "unset" if default in (None, (), {}) else f"`{default}`"
    return f"| `{PREFIX}{field.upper()}` | {shown} |"


def _prose(text: str) -> str:
    """All that is outside of fenced blocks."""
    return _BLOCK.sub("", text)


def _commands(text: str) -> list[str]:
    """What stands in fenced blocks, without comments and without pictures (```text)."""
    blocks = [body for language, body in _BLOCK.findall(text) if language != "text"]
    return [re.sub(r"(^|\s+)# .*$", "", block, flags=re.MULTILINE) for block in blocks]


def _headings(text: str) -> list[tuple[int, str]]:
    return [(len(marks), title) for marks, title in re.findall(r"^(#+) (.+)$", _prose(text), re.MULTILINE)]


def _anchors(text: str) -> set[str]:
    """Of the headings, as GitHub makes them."""
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for _, title in _headings(text)}


def _english(chinese: Path) -> Path:
    return chinese.with_name(chinese.name.replace(".zh-CN", ""))


def _tree(text: str) -> list[str]:
    """The paths that the tree names: names, then two blanks or more, then what they are for."""
    (tree,) = [body for language, body in _BLOCK.findall(text) if language == "text"]
    paths, folder = [], ""
    for line in tree.splitlines():
        names = re.split(r"\s{2,}", line.strip())[0].split(" ")
        inside = line.startswith(" ")
        paths += [f"{folder if inside else ''}{name}" for name in names]
        if not inside:
            folder = names[-1] if names[-1].endswith("/") else ""
    return paths


@pytest.mark.parametrize(("page", "language"), [(SETTINGS, "en"), (SETTINGS_CHINESE, "zh")], ids=["en", "zh"])
def test_the_settings_are_listed_with_their_defaults_and_meanings_and_no_others(page: str, language: Language) -> None:
    listed = [line for line in page.splitlines() if line.startswith(f"| `{PREFIX}")]
    assert listed == [_row(field, language) for field in Settings.model_fields]


def test_the_readmes_fit_three_screens() -> None:
    assert all(len(text.splitlines()) <= 180 for text in (README, CHINESE))


@IN_BOTH
def test_both_languages_have_the_same_commands_in_the_same_order(chinese: Path) -> None:
    text = chinese.read_text(encoding="utf-8")
    assert _commands(_english(chinese).read_text(encoding="utf-8")) == _commands(text)
    assert re.search(r"[\u4e00-\u9fff]", text)


@IN_BOTH
def test_both_languages_have_headings_of_the_same_levels_and_tables_of_the_same_size(chinese: Path) -> None:
    english = _english(chinese).read_text(encoding="utf-8")
    text = chinese.read_text(encoding="utf-8")
    assert [level for level, _ in _headings(english)] == [level for level, _ in _headings(text)]
    assert len(re.findall(r"^\|", english, re.MULTILINE)) == len(re.findall(r"^\|", text, re.MULTILINE))


@IN_BOTH
def test_both_languages_link_to_the_same_places_and_to_each_other_at_the_top(chinese: Path) -> None:
    english = _english(chinese)

    def links(path: Path) -> list[str]:
        found = (link.replace(".zh-CN", "") for link in _LINK.findall(_prose(path.read_text(encoding="utf-8"))))
        return sorted({link for link in found if link != english.name})

    assert links(english) == links(chinese)
    assert f"({chinese.name})" in english.read_text(encoding="utf-8").split("\n## ")[0]
    assert f"({english.name})" in chinese.read_text(encoding="utf-8").split("\n## ")[0]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    lost = []
    for link in _LINK.findall(_prose(document.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        if not target.exists() or (anchor and anchor not in _anchors(target.read_text(encoding="utf-8"))):
            lost.append(link)
    assert lost == []


def test_what_the_tree_names_exists() -> None:
    assert [name for name in _tree(TREE) if not (ROOT / name).exists()] == []
    assert [name for name in _tree(TREE) if (ROOT / name).is_dir() != name.endswith("/")] == []


def test_the_tree_names_every_file_and_folder_of_the_top_two_levels() -> None:
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode or not listing.stdout:
        pytest.skip("no checkout")
    there = set()
    for parts in (line.split("/") for line in listing.stdout.splitlines() if (ROOT / line).exists()):
        there.update("/".join(parts[:depth]) + "/" * (depth < len(parts)) for depth in (1, 2) if depth <= len(parts))
    assert {name for name in there if not name.endswith("/__init__.py")} - set(_tree(TREE)) == set()


def test_the_readme_names_every_task_that_ships() -> None:
    shipped = {folder.name for folder in (ROOT / "prompts").iterdir() if folder.is_dir()}
    for text, section in ((README, "## A task is a folder"), (CHINESE, "## 一个任务就是一个文件夹")):
        paragraph = text.split(f"{section}\n\n")[1].split("\n\n")[0]
        assert set(re.findall(r"`([a-z_]+)`", paragraph)) == shipped
    table = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8").split("\n## ")[0]
    assert set(re.findall(r"^\| `([a-z_]+)` \|", table, re.MULTILINE)) == shipped


def test_the_table_of_contents_has_every_document() -> None:
    contents = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    listed = {link for link in _LINK.findall(contents) if "/" not in link}
    assert listed == {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}


def test_the_picture_of_the_rooms_is_the_one_that_import_linter_enforces() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        contract = tomllib.load(file)["tool"]["importlinter"]["contracts"][0]
    layers = [
        {room.strip().removeprefix("qwen_allinone.") for room in layer.split("|")} for layer in contract["layers"]
    ]
    picture = next(body for language, body in _BLOCK.findall(ARCHITECTURE) if language == "text")
    drawn = [
        {re.split(r"/|\.py", line)[0] for line in group.strip().splitlines()}
        for group in re.split(r"^\s*│\s*$", picture, flags=re.MULTILINE)
    ]
    assert drawn == layers


def test_the_architecture_names_only_functions_and_classes_that_are_there() -> None:
    named = _IN_FILE.findall(ARCHITECTURE)
    assert len(named) > 50
    lost = []
    for file, names in named:
        source = (ROOT / "qwen_allinone" / file).read_text(encoding="utf-8")
        for name in re.findall(r"`([^`]+)`", names):
            lost += [
                f"{file}: {name}" for part in name.split(".") if not re.search(rf"\b(?:def|class) {part}\b", source)
            ]
    assert lost == []


def test_the_caps_of_replies_that_the_readme_names_are_those_that_hold() -> None:
    from qwen_allinone.http import openai
    from qwen_allinone.tasks import load_task

    limits = README.split("## Limits")[1].split("## ")[0]
    chat, text = load_task(SHIPPED / "prompts" / "chat"), load_task(SHIPPED / "prompts" / "sentiment")
    assert f"at most {chat.spec.decoding.max_new_tokens} tokens" in " ".join(limits.split())
    assert f"at most {text.spec.inputs['text'].max_tokens} tokens" in limits
    default = re.search(r"缺省 (\d+)", str(openai.ChatCompletionRequest.model_fields["max_tokens"].description))
    assert default and f"{default[1]} for `/v1/chat/completions`" in " ".join(limits.split())


@pytest.mark.parametrize("document", [ROOT / "README.md", ROOT / "docs" / "task-folder.md"], ids=lambda path: path.name)
def test_the_example_of_a_task_loads(tmp_path: Path, document: Path) -> None:
    from qwen_allinone.tasks import load_task

    (tmp_path / "urgent").mkdir()
    section = document.read_text(encoding="utf-8").split("## A task is a folder")[-1]
    (tmp_path / "urgent" / "prompt.md").write_text(section.split("```\n")[1].split("```")[0], encoding="utf-8")
    task = load_task(tmp_path / "urgent")
    assert task.labels == ("紧急", "普通")
    assert (task.spec.output.unknown is not None) == (document.name == "task-folder.md")
