"""Reads alerts.yaml, strictly: anything doubtful, and a rule that can never fire, is an error with its line and fix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ValidationError

from qwen_allinone.alerts import addresses, channels
from qwen_allinone.alerts.addresses import AddressRefused, Network
from qwen_allinone.alerts.channels import ChannelProblem, Sender
from qwen_allinone.alerts.rules import CHANNELS, Channel, Rule, Source
from qwen_allinone.errors import AlertsFileError
from qwen_allinone.strict_yaml import Path as KeyPath
from qwen_allinone.strict_yaml import StrictLoader, lines_of, wrong_in, yaml_problem
from qwen_allinone.tasks import Registry
from qwen_allinone.wording import meant, said

M = TypeVar("M", bound=BaseModel)

_TOP = ("channels", "rules")
_MOST = 100
# What the feedback command asks of a row, and /chat of a text; a line of a batch is one task or a chat.
_ON_A_ROW = frozenset({"sentiment", "intent", "care"})
_IN_A_CHAT = frozenset({"sentiment", "care"})


@dataclass(frozen=True)
class Alerts:
    """What a file says, ready for use: rules, and the channels that can be sent to, by name."""

    rules: tuple[Rule, ...]
    senders: Mapping[str, Sender]


def load_alerts(file: Path, registry: Registry, networks: Sequence[Network] = ()) -> Alerts:
    """Read a file of rules for the tasks of `registry`; `networks`: private ones that channels may reach.

    Raises:
        AlertsFileError: with the file, the line, the key and the fix.
    """
    return _Loader(file, registry, networks).load()


class _Loader:
    def __init__(self, file: Path, registry: Registry, networks: Sequence[Network]) -> None:
        self._file, self._registry, self._networks = file, registry, networks
        self._lines: Mapping[KeyPath, int] = {}

    def load(self) -> Alerts:
        raw = self._read()
        given = self._list(raw, "channels")
        made = [self._channel(number, entry) for number, entry in enumerate(given)]
        self._check_names("channels", [channel.name for channel in made])
        senders = {channel.name: self._sender(number, channel) for number, channel in enumerate(made)}
        rules = [self._validated(Rule, entry, ("rules", n)) for n, entry in enumerate(self._list(raw, "rules"))]
        self._check_names("rules", [rule.name for rule in rules])
        for number, rule in enumerate(rules):
            self._check_rule(("rules", number), rule, senders)
        return Alerts(tuple(rules), senders)

    def _read(self) -> dict[str, Any]:
        try:
            text = self._file.read_text(encoding="utf-8-sig")
        except OSError as error:
            raise self._wrong((), said("is_unreadable", error=error.strerror), said("name_alerts_file")) from None
        except UnicodeDecodeError as error:
            raise self._wrong((), said("is_not_utf8", reason=error.reason), said("save_as_utf8")) from None
        try:
            raw = yaml.load(text, Loader=StrictLoader)
            self._lines = lines_of(text)
        except Exception as error:  # YAML's constructors raise what they like on impossible dates and numbers
            raise self._wrong((), *yaml_problem(error, text)) from None
        if not isinstance(raw, dict):
            raise self._wrong((), said("is_no_mapping"), said("alerts_top_keys"))
        for key in raw:
            if key not in _TOP:
                raise self._wrong((str(key),), said("key_unknown", meant=meant(str(key), _TOP)), said("alerts_top"))
        return raw

    def _list(self, raw: Mapping[str, Any], key: str) -> list[Any]:
        found = raw.get(key)
        if not isinstance(found, list) or not 0 < len(found) <= _MOST:
            raise self._wrong((key,), said("no_list_of", most=_MOST), said("list_form", key=key))
        return found

    def _channel(self, number: int, entry: Any) -> Channel:
        path: KeyPath = ("channels", number)
        kind = entry.get("kind") if isinstance(entry, dict) else None
        if not isinstance(kind, str) or kind not in CHANNELS:
            problem = said("kind_unknown", kind=repr(kind), meant=meant(str(kind), CHANNELS))
            raise self._wrong((*path, "kind"), problem, said("write_one_of", names=CHANNELS))
        return self._validated(CHANNELS[kind], entry, path)

    def _sender(self, number: int, channel: Channel) -> Sender:
        path: KeyPath = ("channels", number)
        try:
            self._check_host(channel)
            return channels.make(channel, self._file.absolute().parent, self._networks)
        except AddressRefused as error:
            key = "url" if channel.kind == "webhook" else "host"
            raise self._wrong((*path, key), error.problem, error.fix) from None
        except ChannelProblem as error:
            at = (*path, error.key) if error.key else path
            raise self._wrong(at, error.problem, error.fix) from None

    def _check_host(self, channel: Channel) -> None:
        """An address that stands in the file is looked at now, a name each time that it is asked for."""
        host = urlsplit(channel.url).hostname or "" if channel.kind == "webhook" else getattr(channel, "host", "")
        if host.casefold() == "localhost":
            host = "127.0.0.1"
        if _is_address(host):
            addresses.check(host, self._networks)

    def _check_names(self, key: str, names: Sequence[str]) -> None:
        for number, name in enumerate(names):
            if name in names[:number]:
                raise self._wrong((key, number, "name"), said("there_before", name=name), said("own_names"))

    def _check_rule(self, path: KeyPath, rule: Rule, known: Mapping[str, Sender]) -> None:
        for channel in rule.channels:
            if channel not in known:
                problem = said("no_channel", channel=channel, meant=meant(channel, known))
                raise self._wrong((*path, "channels"), problem, said("write_some_of", names=known))
        for task in sorted(rule.when.tasks):
            self._check_task(path, rule, task)
        reasons = [reason for source in dict.fromkeys(rule.sources) if (reason := self._never(source, rule))]
        if len(reasons) == len(set(rule.sources)):
            why = reduce(lambda first, others: said("further", first=first, others=others), reasons)
            raise self._wrong(path, said("never_fires", why=why), said("change_or_remove"))

    def _check_task(self, path: KeyPath, rule: Rule, task: str) -> None:
        at = self._place_of(path, rule, task)
        label_tasks = [one.name for one in self._registry if one.labels]
        if task not in label_tasks:
            why = said("no_label_task_named", task=task, meant=meant(task, label_tasks))
            raise self._wrong(at, said("never_fires", why=why), said("write_one_of", names=label_tasks))
        found = self._registry.get(task)
        unknown = found.spec.output.unknown
        answers = [*found.labels, *([unknown.name] if unknown else [])]
        for label in rule.when.wanted.get(task, ()):
            if label not in answers:
                why = said("never_answers", task=task, label=label, meant=meant(label, answers))
                raise self._wrong(at, said("never_fires", why=why), said("write_some_of", names=answers))
        least = rule.when.probability.get(task, 0.0)
        if least and unknown and rule.when.wanted.get(task) == (unknown.name,):
            at = (*path, "when", "probability", task)
            why = said("answered_where_unlikely", label=unknown.name, task=task)
            raise self._wrong(at, said("never_fires", why=why), said("remove_probability"))

    def _place_of(self, path: KeyPath, rule: Rule, task: str) -> KeyPath:
        when = (*path, "when")
        if task in rule.when.labels:
            return (*when, "labels", task)
        return (*when, "intent") if task in rule.when.wanted else (*when, "probability", task)

    def _never(self, source: Source, rule: Rule) -> str:
        """Why a rule fires at nothing that comes from there; empty if it may."""
        tasks = rule.when.tasks
        if source == "feedback":
            if rule.rate:
                return said("rows_at_once")
            if missing := sorted(tasks - _ON_A_ROW):
                return said("rows_not_asked", task=missing[0])
            return ""
        if rule.when.rating:
            return said("live_without_rating") if source == "live" else said("batch_without_rating")
        if source == "batch" and len(tasks) > 1 and not tasks <= _IN_A_CHAT:
            return said("line_has_one_task", tasks=sorted(tasks))
        return ""

    def _validated(self, model: type[M], raw: Any, path: KeyPath) -> M:
        try:
            return model.model_validate(raw)
        except ValidationError as error:
            # A misspelt key is also a missing one: the misspelling is what to correct.
            detail = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
            raise self._wrong((*path, *detail["loc"]), *wrong_in(detail, model)) from None

    def _wrong(self, path: KeyPath, problem: str, fix: str) -> AlertsFileError:
        line = next((self._lines[part] for part in _shorter(path) if part in self._lines), None)
        shown = "".join(f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
        return AlertsFileError(self._file, line, shown or "(file)", problem, fix)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _shorter(path: KeyPath) -> Iterator[KeyPath]:
    """The path and all that it lies in, the innermost first."""
    for length in range(len(path), 0, -1):
        yield path[:length]
