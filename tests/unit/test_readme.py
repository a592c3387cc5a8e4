"""The README's settings table is the code's."""

import re
from pathlib import Path

from qwen_allinone.settings import PREFIX, Settings
from qwen_allinone.shipped import SHIPPED

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")


def _row(field: str) -> str:
    info = Settings.model_fields[field]
    default = info.default
    if isinstance(default, Path) and default.is_absolute():
        default = default.relative_to(SHIPPED)
    shown = "unset" if default in (None, ()) else f"`{default}`"
    return f"| `{PREFIX}{field.upper()}` | {shown} | {info.description} |"


def test_every_setting_stands_in_the_readme_with_its_default_and_meaning() -> None:
    missing = [_row(field) for field in Settings.model_fields if _row(field) not in README]
    assert missing == []


def test_the_readme_lists_no_setting_the_code_does_not_have() -> None:
    listed = [line.split("`")[1] for line in README.splitlines() if line.startswith(f"| `{PREFIX}")]
    assert listed == Settings.names()


def test_the_caps_of_replies_that_the_readme_names_are_those_that_hold() -> None:
    from qwen_allinone.http import openai
    from qwen_allinone.tasks import load_task

    limits = README.split("## Limits")[1].split("## ")[0]
    chat, text = load_task(SHIPPED / "prompts" / "chat"), load_task(SHIPPED / "prompts" / "sentiment")
    assert f"at most {chat.spec.decoding.max_new_tokens} tokens" in " ".join(limits.split())
    assert f"at most {text.spec.inputs['text'].max_tokens} tokens" in limits
    default = re.search(r"缺省 (\d+)", str(openai.ChatCompletionRequest.model_fields["max_tokens"].description))
    assert default and f"{default[1]} for `/v1/chat/completions`" in " ".join(limits.split())


def test_the_readmes_example_task_loads(tmp_path: Path) -> None:
    from qwen_allinone.tasks import load_task

    section = README.split("## A task is a folder")[1].split("## Settings")[0]
    (tmp_path / "urgent").mkdir()
    (tmp_path / "urgent" / "prompt.md").write_text(section.split("```\n")[1].split("```")[0], encoding="utf-8")
    task = load_task(tmp_path / "urgent")
    assert task.labels == ("紧急", "普通")
    assert task.spec.output.unknown is not None
