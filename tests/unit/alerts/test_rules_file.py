"""alerts.yaml: what is read, and each mistake with its line."""

from __future__ import annotations

import os
from ipaddress import ip_network
from pathlib import Path

import pytest
import yaml

from qwen_allinone.alerts import Heard, Subject, events, load_alerts
from qwen_allinone.errors import AlertsFileError
from qwen_allinone.tasks import Registry
from tests.support.receiver import write_alerts

PROJECT = Path(__file__).resolve().parents[3]
LOCAL = (ip_network("127.0.0.0/8"),)
URL = "http://127.0.0.1:9/hook"
# Behind the channel: line 4 is the first rule.


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load(PROJECT / "prompts")


def problem(folder: Path, registry: Registry, rules: str, url: str = URL) -> str:
    with pytest.raises(AlertsFileError) as raised:
        load_alerts(write_alerts(folder, url, rules), registry, LOCAL)
    return str(raised.value).replace(str(folder), "")


@pytest.mark.parametrize(
    ("rule", "line", "said"),
    [
        ("{name: a, when: {labels: {sentimnet: 负面}}, channels: ops}", 4, "did you mean sentiment?"),
        ("{name: a, when: {intent: 投拆}, channels: ops}", 4, "never answers '投拆'"),
        ("{name: a, when: {labels: {keywords: x}}, channels: ops}", 4, "there is no label task 'keywords'"),
        ("{name: a, when: {intent: 投诉}, channels: op}", 4, "there is no channel 'op', did you mean ops?"),
        ("{name: a, when: {intent: 投诉}, chanels: ops}", 4, "did you mean channels?"),
        ("{name: a, when: {}, channels: ops}", 4, "would fire at every text"),
        ("{name: a, when: {pattern: 'a*'}, channels: ops}", 4, "say how often at most"),
        ("{name: a, when: {pattern: 12}, channels: ops}", 4, "put quotes"),
        ("{name: a, when: {rating: {at_least: 4, at_most: 2}}, channels: ops}", 4, "can never be"),
        (
            "{name: a, when: {rating: {at_most: 2}}, sources: live, channels: ops}",
            4,
            "only rows of a file have a rating",
        ),
        ("{name: a, when: {rating: {at_most: 2}}, rate: {count: 2, within: 1h}, channels: ops}", 4, "can never fire"),
        (
            "{name: a, when: {intent: 投诉}, rate: {count: 2, within: 1h}, sources: feedback, channels: ops}",
            4,
            "rows of a",
        ),
        ("{name: a, when: {intent: 投诉}, rate: {count: 2, within: 0s}, channels: ops}", 4, "can never be"),
        (
            "{name: a, when: {intent: 投诉}, rate: {count: 1, within: 1h}, channels: ops}",
            4,
            "greater than or equal to 2",
        ),
        ("{name: a, when: {intent: 投诉}, rate: {count: 2, within: 1 hour}, channels: ops}", 4, "as 10m"),
        ("{name: a, when: {intent: 投诉}, cooldown: 8d, channels: ops}", 4, "a week"),
        ("{name: a, when: {labels: {sentiment: 负面}, intent: 投诉}, sources: batch, channels: ops}", 4, "one task"),
        ("{name: a, when: {labels: {route: 翻译}}, sources: feedback, channels: ops}", 4, "can never fire"),
        ("{name: a, when: {probability: {sentiment: 1.5}}, channels: ops}", 4, "less than or equal to 1"),
        ("{name: a, when: {intent: 投诉, labels: {intent: 咨询}}, channels: ops}", 4, "twice"),
        ("{name: A b, when: {intent: 投诉}, channels: ops}", 4, "rules[1].name"),
        ("{name: a, when: {keywords: []}, channels: ops}", 4, "keywords"),
    ],
)
def test_each_mistake_is_told_with_its_line(
    rule: str, line: int, said: str, tmp_path: Path, registry: Registry
) -> None:
    told = problem(tmp_path, registry, f"  - {rule}\n")
    assert f"alerts.yaml, line {line}: rules" in told and said in told and " Fix: " in told, told


def test_the_line_is_that_of_the_key_and_not_of_the_rule(tmp_path: Path, registry: Registry) -> None:
    rules = (
        "  - name: first\n    when:\n      intent: 投诉\n      labels:\n        sentimnet: 负面\n    channels: ops\n"
    )
    assert "line 8: rules[1].when.labels.sentimnet: can never fire" in problem(tmp_path, registry, rules)


def test_a_name_that_comes_twice_is_refused(tmp_path: Path, registry: Registry) -> None:
    rule = "  - {name: a, when: {intent: 投诉}, channels: ops}\n"
    assert "line 5: rules[2].name: 'a' is there before" in problem(tmp_path, registry, rule + rule)


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.1/x",
        "https://[::1]/x",
        "https://169.254.169.254/latest",
        "http://0.0.0.0/",
        "https://[::ffff:10.0.0.1]/",
    ],
)
def test_a_private_address_is_refused_unless_a_setting_allows_it(url: str, tmp_path: Path, registry: Registry) -> None:
    told = problem(tmp_path, registry, "  - {name: a, when: {intent: 投诉}, channels: ops}\n", url)
    assert "line 2: channels[1].url" in told and "QAIO_ALERTS_NETWORKS" in told
    allowed = (ip_network("0.0.0.0/0"), ip_network("::/0"))
    assert load_alerts(tmp_path / "alerts.yaml", registry, allowed).rules


def test_a_channel_without_its_secret_is_refused(tmp_path: Path, registry: Registry) -> None:
    file = write_alerts(tmp_path, URL, "  - {name: a, when: {intent: 投诉}, channels: ops}\n")
    (tmp_path / "ops.secret").write_text("short")
    with pytest.raises(AlertsFileError, match="line 2: channels.*secret_file.*holds no secret.*openssl"):
        load_alerts(file, registry, LOCAL)
    os.remove(tmp_path / "ops.secret")
    with pytest.raises(AlertsFileError, match=r"line 2: channels.*cannot be read \(No such file"):
        load_alerts(file, registry, LOCAL)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no mapping"),
        ("rules: []\nchanels: []", "did you mean channels?"),
        ("channels: []", "is no list"),
        ("channels: [{name: a, kind: wecomm}]", "did you mean wecom?"),
        ("channels: 1\nchannels: 2", "given twice"),
        ("a: [", "correct the YAML"),
        ("channels:\n\t- name: a", "line 2: has a tab where YAML allows none. Fix: write spaces"),
        ("channels: &a [*a]", "Fix:"),
    ],
)
def test_a_file_that_is_none_is_refused(text: str, said: str, tmp_path: Path, registry: Registry) -> None:
    file = tmp_path / "alerts.yaml"
    file.write_text(text)
    with pytest.raises(AlertsFileError) as raised:
        load_alerts(file, registry)
    assert said in str(raised.value)


def test_the_example_that_ships_is_read_and_despair_is_one_line_away(tmp_path: Path, registry: Registry) -> None:
    text = (PROJECT / "deploy" / "alerts.example.yaml").read_text("utf-8")
    file = tmp_path / "alerts.yaml"
    write_alerts(tmp_path, URL, "")  # for the secret
    file.write_text(text, "utf-8")
    assert [rule.name for rule in load_alerts(file, registry).rules] == ["refunds", "furious"]
    file.write_text(text.replace("\n# - {name: despair", "\n  - {name: despair"), "utf-8")
    despair = load_alerts(file, registry).rules[-1]
    assert despair.name == "despair" and despair.show_text
    subject = Subject("live", "k", "我不想活了", "r", {"care": Heard("需要帮助", 0.9)})
    assert [event.rule for event in events([despair], subject, 0.0)] == ["despair"]
    assert yaml.safe_load(text)["rules"], "off until the line is changed"
