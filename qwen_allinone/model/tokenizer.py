"""Text <-> token ids. User text can never become a control token.

A chat is put into the checkpoint's own Jinja template with place holders for the contents; the result is
cut at the template's control tokens, the contents are filled in, and what lies between is encoded with
control tokens switched off. For harmless text the ids are those of transformers' `apply_chat_template`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NoReturn

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer as FastTokenizer

from qwen_allinone.errors import CheckpointError
from qwen_allinone.tasks.render import Completion, Content, Rendered
from qwen_allinone.wording import said

# Private-use characters mark where a message's content goes; contents are filled in afterwards and
# never scanned, so a user who sends these characters gains nothing.
_MARK = "\ue000{}\ue001"
_MARKS = re.compile("\ue000(\\d+)\ue001")
# The roles of prompts and of short conversations come again and again: so many layouts, of so many messages, are kept.
_LAYOUTS_KEPT, _MOST_KEPT = 64, 16


def _byte_characters() -> dict[str, int]:
    """The character that stands for each byte in the names of byte-level tokens (GPT-2): itself if it can be printed,
    else one from U+0100 on, in order."""
    printed = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printed]
    return {chr(byte): byte for byte in printed} | {chr(0x100 + place): byte for place, byte in enumerate(others)}


_BYTES = _byte_characters()


@dataclass(frozen=True)
class Gap:
    """What stands between two control tokens of a chat and takes contents: texts, and the numbers of messages."""

    parts: tuple[str | int, ...]


# A chat template is a list of these: token ids that are always the same, and gaps.
Layout = tuple[tuple[int, ...] | Gap, ...]


class Tokenizer:
    """The tokenizer of a checkpoint. Thread-safe: nothing changes after loading."""

    def __init__(self, fast: FastTokenizer, chat_template: str | None) -> None:
        fast = _all_special(fast)
        fast.encode_special_tokens = True  # "<|im_start|>" in a text stays text
        fast.no_truncation()
        fast.no_padding()
        self._fast = fast
        self._control = {t.content: i for i, t in fast.get_added_tokens_decoder().items()}
        self.control_ids = frozenset(self._control.values())
        # All ids there are. A model's vocabulary may be larger: padded, with ids that mean nothing.
        self.ids = frozenset(fast.get_vocab(with_added_tokens=True).values())
        self._cuts = re.compile("(" + "|".join(map(re.escape, sorted(self._control, key=len, reverse=True))) + ")")
        self._template = _compile(chat_template) if chat_template else None
        self._kept_layout = lru_cache(_LAYOUTS_KEPT)(self._lay_out)

    def forget_beyond(self, vocabulary: int) -> None:
        """Forget the tokens from the id `vocabulary` on, which a model has not. Before the first use.

        Raises:
            ValueError: texts are made of such tokens too, not of added ones alone.
        """
        if max(self._fast.get_vocab(with_added_tokens=False).values(), default=0) >= vocabulary:
            raise ValueError(f"texts have ids from {vocabulary} on")
        self.ids = frozenset(token for token in self.ids if token < vocabulary)

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """Read tokenizer.json and the chat template (tokenizer_config.json or chat_template.jinja).

        Raises:
            CheckpointError: a file is missing or broken.
        """
        try:
            fast = FastTokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # tokenizers raises bare Exception
            raise CheckpointError(said("file_unreadable", file=folder / "tokenizer.json", error=error)) from None
        return cls(fast, _read_template(folder))

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, control tokens taken as plain text."""
        return self._fast.encode(text, add_special_tokens=False).ids

    def encode_rendered(self, rendered: Rendered) -> list[int]:
        """Ids of a rendered prompt; a chat ends with the generation prompt of the template."""
        if isinstance(rendered, Completion):
            return self.encode(rendered.text)
        layout = self.layout(tuple([role for role, _ in rendered.messages]))
        return self.encode_layout(layout, [content for _, content in rendered.messages])

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`, control tokens left out; broken characters become U+FFFD."""
        return self._fast.decode(list(ids), skip_special_tokens=True)

    def bytes_of(self, token: int) -> bytes:
        """What a token stands for; of a control token its name, of an id that is none nothing."""
        name = self._fast.id_to_token(token) or ""
        if token in self.control_ids or not all(character in _BYTES for character in name):
            return name.encode()
        return bytes(_BYTES[character] for character in name)

    def text_of(self, token: int) -> str:
        """The same as text; of a part of a character as OpenAI's clients know it, `bytes:\\xe4\\xbd`."""
        raw = self.bytes_of(token)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)

    def control_id(self, token: str) -> int | None:
        """Id of a control token such as `<|im_end|>`, or None if the checkpoint has none of that name."""
        return self._control.get(token)

    @property
    def definition(self) -> str:
        """All there is to know of it, as tokenizer.json has it; every added token is a special one."""
        return self._fast.to_str()

    def layout(self, roles: tuple[str, ...]) -> Layout:
        """The chat template around messages of these roles, up to where the model's turn begins.

        Raises:
            CheckpointError: there is no template, or it refuses these roles in this order.
        """
        return self._kept_layout(roles) if len(roles) <= _MOST_KEPT else self._lay_out(roles)

    def _lay_out(self, roles: tuple[str, ...]) -> Layout:
        if self._template is None:
            raise CheckpointError(said("no_chat_template"))
        messages = [{"role": role, "content": _MARK.format(number)} for number, role in enumerate(roles)]
        try:
            # Qwen3's would have the model think first; others do not know the word.
            text = self._template.render(messages=messages, add_generation_prompt=True, enable_thinking=False)
        except Exception as error:  # a template is a program: it raises what it likes
            raise CheckpointError(said("chat_template_fails", error=error)) from None
        layout: list[tuple[int, ...] | Gap] = []
        fixed: list[int] = []
        for piece in self._cuts.split(text):
            parts = [int(part) if index % 2 else part for index, part in enumerate(_MARKS.split(piece))]
            if piece in self._control:
                fixed.append(self._control[piece])
            elif len(parts) == 1:
                fixed += self.encode(piece)
            else:
                layout += [tuple(fixed), Gap(tuple(parts))]
                fixed = []
        return (*layout, tuple(fixed))

    def encode_layout(self, layout: Layout, contents: Sequence[Content]) -> list[int]:
        """Ids of a layout with the messages' contents; those that are ids already are taken as they are."""
        ids: list[int] = []
        for piece in layout:
            if not isinstance(piece, Gap):
                ids += piece
                continue
            text = ""
            for part in piece.parts:
                content = contents[part] if isinstance(part, int) else part
                if isinstance(content, str):
                    text += content
                else:
                    ids += [*self.encode(text), *content]
                    text = ""
            ids += self.encode(text)
        return ids


def _all_special(fast: FastTokenizer) -> FastTokenizer:
    """With all its added tokens marked special: those that are not (Qwen2.5's `<tool_call>`) would come from texts."""
    if all(token.special for token in fast.get_added_tokens_decoder().values()):
        return fast
    description = json.loads(fast.to_str())
    for token in description["added_tokens"]:
        token["special"] = True
    return FastTokenizer.from_str(json.dumps(description))


def _read_template(folder: Path) -> str | None:
    """Newer checkpoints keep the template in a file of its own, older ones in the config."""
    file = folder / "chat_template.jinja"
    if file.exists():
        try:
            return file.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise CheckpointError(said("file_unreadable", file=file, error=error)) from None
    config = folder / "tokenizer_config.json"
    try:
        template = json.loads(config.read_text(encoding="utf-8")).get("chat_template")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(said("file_unreadable", file=config, error=error)) from None
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
        raise CheckpointError(said("chat_template_unreadable", error=error)) from None
