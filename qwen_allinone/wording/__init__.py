"""What people are told, in Chinese and in English: the one catalogue of messages, and which language somebody reads."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal

from qwen_allinone.did_you_mean import nearest
from qwen_allinone.wording.of_commands import OF_COMMANDS
from qwen_allinone.wording.to_clients import TO_CLIENTS
from qwen_allinone.wording.to_operators import TO_OPERATORS

__all__ = [
    "Language",
    "Said",
    "complaint",
    "in_language",
    "is_it",
    "meant",
    "message_of",
    "of_environment",
    "of_header",
    "one_of",
    "said",
]

Language = Literal["zh", "en"]
_CATALOGUE = TO_CLIENTS | TO_OPERATORS | OF_COMMANDS
_LANGUAGES: tuple[Language, ...] = ("zh", "en")  # as the catalogue has them
_BETWEEN = {"zh": "、", "en": ", "}  # the parts of a list


class Said(str):
    """A message of the catalogue with what is filled in; as a string it is Chinese to clients, English to operators.

    What is filled in may be such a message itself, and is then as it is by itself: an operator's message within a
    client's stays English until somebody asks for a language.
    """

    _name: str
    _values: Mapping[str, Any]

    def __new__(cls, name: str, values: Mapping[str, Any]) -> Said:
        made = super().__new__(cls, _written(name, values, "zh" if name in TO_CLIENTS else "en", None))
        made._name, made._values = name, values
        return made

    def __getnewargs__(self) -> tuple[str, Mapping[str, Any]]:  # type: ignore[override]  # str has one
        return self._name, self._values

    def within(self, language: Language) -> str:
        """The message in `language`."""
        return _written(self._name, self._values, language, language)


def said(message: str, /, **values: Any) -> Said:
    """The message of the catalogue called `message`. Lists become lists of words, as the language writes them."""
    return Said(message, values)


def is_it(written: str, known: Iterable[str]) -> str:
    """ "did you mean X?" within a message of the catalogue, or nothing."""
    meant = nearest(written, known)
    return said("is_it", meant=meant) if meant else ""


def meant(written: str, known: Iterable[str]) -> str:
    """ ", did you mean X?" for the end of a complaint, or nothing."""
    name = nearest(written, known)
    return said("meant", name=name) if name else ""


def in_language(text: str, language: Language | None) -> str:
    """`text` in `language` if it is of the catalogue; as it is otherwise, and where nobody asked for a language."""
    return text.within(language) if isinstance(text, Said) and language else str(text)


def message_of(error: BaseException) -> str:
    """What an error says, still of the catalogue if it is: `str(error)` would be one of its languages."""
    return next((part for part in error.args if isinstance(part, Said)), str(error))


def complaint(detail: Mapping[str, Any]) -> str:
    """What is wrong with a value, by one of the errors of pydantic's ValidationError: in our words if it has ours."""
    told = dict(detail.get("ctx", {}))
    if "error" in told:  # a validator raised it
        return message_of(told["error"])
    name = f"pydantic_{detail['type']}"
    if name not in TO_OPERATORS:
        return str(detail["msg"])
    one, _, other = str(told.get("expected", "")).rpartition(" or ")
    return said(name, **told | {"expected": said("one_or_other", one=one, other=other) if one else other})


def one_of(pair: tuple[str, str], language: Language) -> str:
    """The one of a text's two languages."""
    return pair[_LANGUAGES.index(language)]


def of_header(accept_language: str) -> Language | None:
    """The first of our languages in an Accept-Language header (RFC 9110, 12.5.4); None: neither is preferred."""
    weighed = [_weighed(part) for part in accept_language.split(",")]
    # Sorting keeps the order of those that weigh the same.
    for tag, weight in sorted(weighed, key=lambda one: -one[1]):
        if weight > 0 and (tag == "*" or tag in _LANGUAGES):
            return None if tag == "*" else tag  # type: ignore[return-value]  # it is one of them
    return None


def of_environment(environment: Mapping[str, str]) -> Language:
    """The language of a terminal's messages: Chinese where its locale is, English everywhere else."""
    locale = next(filter(None, map(environment.get, ("LC_ALL", "LC_MESSAGES", "LANG"))), "")
    return "zh" if locale.lower().startswith("zh") else "en"


def _weighed(part: str) -> tuple[str, float]:
    """`zh-CN;q=0.8` as ("zh", 0.8); what cannot be read weighs nothing."""
    tag, *parameters = (word.strip().lower() for word in part.split(";"))
    try:
        weight = next((float(word[2:]) for word in parameters if word.startswith("q=")), 1.0)
    except ValueError:
        weight = 0.0
    return tag.split("-")[0], weight


def _written(name: str, values: Mapping[str, Any], language: Language, inner: Language | None) -> str:
    """`inner`: the language of messages that are filled in; None: of each its own."""
    template = one_of(_CATALOGUE[name], language)
    filled = {key: _shown(value, language, inner) for key, value in values.items()}
    for key, value in filled.items():
        if isinstance(value, str) and value.endswith("?"):  # a question has its mark
            template = template.replace(f"{{{key}}};", f"{{{key}}}").replace(f"{{{key}}}.", f"{{{key}}}")
    return template.format_map(filled)


def _shown(value: Any, language: Language, inner: Language | None) -> Any:
    if isinstance(value, str):
        return in_language(_OF_SYSTEM.get(value, value), inner)
    if isinstance(value, BaseException):
        return in_language(message_of(value), inner)
    if isinstance(value, Collection):
        return _BETWEEN[language].join(str(_shown(one, language, inner)) for one in value)
    return value


# What the system says comes as a plain text in English, wherever it is filled in.
_OF_SYSTEM = {english: said(name) for name, (_, english) in TO_OPERATORS.items() if name.startswith("system_")}
