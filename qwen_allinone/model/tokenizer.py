"""Text <-> token ids. User text can never become a control token.

A chat is put into the checkpoint's own Jinja template with place holders for the contents; the result is
cut at the template's control tokens, the contents are filled in, and what lies between is encoded with
control tokens switched off. For harmless text the ids are those of transformers' `apply_chat_template`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer as FastTokenizer

from qwen_allinone.errors import CheckpointError
from qwen_allinone.tasks.render import Chat, Completion, Rendered

# Private-use characters mark where a message's content goes; contents are filled in afterwards and
# never scanned, so a user who sends these characters gains nothing.
_PLACE = "\ue000{}\ue001"
_PLACES = re.compile("\ue000(\\d+)\ue001")


class Tokenizer:
    """The tokenizer of a checkpoint. Thread-safe: nothing changes after loading."""

    def __init__(self, fast: FastTokenizer, chat_template: str | None) -> None:
        fast.encode_special_tokens = True  # "<|im_start|>" in a text stays text
        fast.no_truncation()
        fast.no_padding()
        self._fast = fast
        self._control = {t.content: i for i, t in fast.get_added_tokens_decoder().items() if t.special}
        self._cuts = re.compile("(" + "|".join(map(re.escape, sorted(self._control, key=len, reverse=True))) + ")")
        self._template = _compile(chat_template) if chat_template else None

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """Read tokenizer.json and the chat template (tokenizer_config.json or chat_template.jinja).

        Raises:
            CheckpointError: a file is missing or broken.
        """
        try:
            fast = FastTokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # tokenizers raises bare Exception
            raise CheckpointError(f"{folder / 'tokenizer.json'} cannot be read ({error})") from None
        return cls(fast, _read_template(folder))

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, control tokens taken as plain text."""
        return self._fast.encode(text, add_special_tokens=False).ids

    def encode_rendered(self, rendered: Rendered) -> list[int]:
        """Ids of a rendered prompt; a chat ends with the generation prompt of the template."""
        if isinstance(rendered, Completion):
            return self.encode(rendered.text)
        return self._encode_chat(rendered)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`, control tokens left out; broken characters become U+FFFD."""
        return self._fast.decode(list(ids), skip_special_tokens=True)

    def control_id(self, token: str) -> int | None:
        """Id of a control token such as `<|im_end|>`, or None if the checkpoint has none of that name."""
        return self._control.get(token)

    @property
    def control_ids(self) -> frozenset[int]:
        """Ids of all control tokens."""
        return frozenset(self._control.values())

    def _encode_chat(self, chat: Chat) -> list[int]:
        if self._template is None:
            raise CheckpointError("the checkpoint has no chat template, which chat tasks need")
        messages = [{"role": role, "content": _PLACE.format(number)} for number, (role, _) in enumerate(chat.messages)]
        try:
            text = self._template.render(messages=messages, add_generation_prompt=True)
        except Exception as error:  # a template is a program: it raises what it likes
            raise CheckpointError(f"the checkpoint's chat template cannot be rendered ({error})") from None
        ids: list[int] = []
        for piece in self._cuts.split(text):
            if piece in self._control:
                ids.append(self._control[piece])
            elif piece:
                ids += self._fill(piece, chat)
        return ids

    def _fill(self, piece: str, chat: Chat) -> list[int]:
        """Ids of a piece of the template with its contents; those that are ids already are taken as they are."""
        ids: list[int] = []
        text = ""
        for index, part in enumerate(_PLACES.split(piece)):
            content = chat.messages[int(part)][1] if index % 2 else part
            if isinstance(content, str):
                text += content
            else:
                ids += [*self.encode(text), *content]
                text = ""
        return ids + self.encode(text)


def _read_template(folder: Path) -> str | None:
    """Newer checkpoints keep the template in a file of its own, older ones in the config."""
    file = folder / "chat_template.jinja"
    if file.exists():
        try:
            return file.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{file} cannot be read ({error})") from None
    config = folder / "tokenizer_config.json"
    try:
        template = json.loads(config.read_text(encoding="utf-8")).get("chat_template")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{config} cannot be read ({error})") from None
    return template if isinstance(template, str) else None


def _compile(source: str):  # type: ignore[no-untyped-def]
    """The sandbox, whitespace rules and helpers that transformers documents for chat templates."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])

    def raise_exception(message: str) -> NoReturn:
        raise TemplateError(message)

    environment.globals["raise_exception"] = raise_exception
    try:
        return environment.from_string(source)
    except TemplateError as error:
        raise CheckpointError(f"the checkpoint's chat template cannot be read ({error})") from None
