"""Dashboard, alarms, scrape configuration and the operator's handbook speak of the metrics there are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from qwen_allinone.telemetry.metrics import Metrics, Vitals
from qwen_allinone.telemetry.records import AnswerRecord, RequestRecord
from qwen_allinone.telemetry.trace_parent import TraceParent

PROJECT = Path(__file__).resolve().parents[3]
DEPLOY = PROJECT / "deploy"
HANDBOOK = (PROJECT / "docs" / "operations.md").read_text(encoding="utf-8")
ALERTS = yaml.safe_load((DEPLOY / "alerts.yml").read_text())
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is absent (Debian: apt-get install prometheus)")


def busy_metrics() -> Metrics:
    """Metrics that have a sample of everything."""
    metrics = Metrics({"version": "1", "model": "demo", "weights": "fp32"}, {"sentiment": ["正面", "负面"]})
    cost = AnswerRecord("sentiment", "正面", "label", 1, 1, 1, 0.1, 0.1, 0.1, 0.1)
    metrics.count(RequestRecord("a", "POST", "/chat", 200, 1.0, code="odd", answers=(cost,)), timed=True)
    metrics.count_feedback("sentiment", right=True)
    metrics.count_alert("refunds", "fired")
    metrics.count_alert_message("ops", "sent")
    metrics.watch(lambda: Vitals(True, 1, 1, 1, 0, 0, gold_accuracy={"sentiment": 0.9}))
    metrics.stop()
    return metrics


def metrics_there_are() -> dict[str, tuple[str, set[str], str]]:
    """Type, labels and help by the name that Prometheus shows."""
    found = {}
    for family in busy_metrics().registry.collect():
        labels = {name for sample in family.samples for name in sample.labels} - {"le"}
        name = family.name + ("_total" if family.type == "counter" else "")
        found[name] = (family.type, labels, family.documentation)
    return found


def names_in(expression: str) -> set[str]:
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"\bqaio_\w+", expression)}


def panels() -> list[dict[str, Any]]:
    return list(json.loads((DEPLOY / "grafana-dashboard.json").read_text())["panels"])


def expressions() -> Iterator[str]:
    for panel in panels():
        for target in panel["targets"]:
            yield target["expr"]
    for group in ALERTS["groups"]:
        for rule in group["rules"]:
            yield rule["expr"]


def test_every_metric_that_a_panel_or_an_alarm_asks_for_exists() -> None:
    asked = set().union(*map(names_in, expressions()))
    assert asked - set(metrics_there_are()) == set()


def test_every_metric_is_on_the_dashboard() -> None:
    shown = set().union(*(names_in(target["expr"]) for panel in panels() for target in panel["targets"]))
    assert set(metrics_there_are()) - shown == set()


def test_labels_that_are_asked_for_exist() -> None:
    known = {label for _, labels, _ in metrics_there_are().values() for label in labels}
    given_by_prometheus = {"instance", "job", "le", "pid"}
    for expression in expressions():
        filters = re.findall(r"(\w+)\s*(?:=~|!~|=|!=)\s*\"", expression)
        grouped = [name for names in re.findall(r"\bby \(([^)]*)\)", expression) for name in names.split(", ")]
        assert set(filters) | set(grouped) <= known | given_by_prometheus, expression


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken and place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in panels()}) == len(panels())


def test_the_handbook_s_table_of_metrics_is_the_registry_s() -> None:
    rows = re.findall(r"^\| `(qaio_\w+)` \| (\w+) \| (.*?) \| (.*?) \|$", HANDBOOK, re.MULTILINE)
    listed = {
        name: (kind, set(re.findall(r"`(\w+)`", labels)) - ({"pid"} if kind == "gauge" else set()), meaning)
        for name, kind, labels, meaning in rows
    }
    assert len(rows) == len(listed)
    assert listed == metrics_there_are()


def test_the_handbook_s_table_of_log_fields_is_the_record_s() -> None:
    section = HANDBOOK.split("### Log lines")[1].split("### ")[0]
    listed = [
        name for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    ]
    trace = TraceParent("1" * 32, "2" * 16, sampled=True)
    told = RequestRecord("a", "POST", "/chat", 200, 1.0, text={"inputs": {}, "outputs": []}, trace=trace)
    fields = list(told.fields())
    assert listed == ["timestamp", "level", "logger", "pid", "event", *fields, "exception"]


def test_every_alarm_has_a_place_in_the_handbook_and_a_summary() -> None:
    alarms = [rule for group in ALERTS["groups"] for rule in group["rules"] if "alert" in rule]
    section = HANDBOOK.split("## What each alarm means")[1]
    assert re.findall(r"^\*\*(\w+)\*\*", section, re.MULTILINE) == [rule["alert"] for rule in alarms]
    for rule in alarms:
        assert rule["annotations"]["summary"] and rule["labels"]["severity"] in ("critical", "warning")


def test_the_scrape_configuration_asks_our_port_with_a_key_from_a_file() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    assert (job["job_name"], job["metrics_path"]) == ("qwen-allinone", "/metrics")
    assert set(job["authorization"]) == {"type", "credentials_file"}
    assert [DEPLOY / name for name in config["rule_files"]] == [DEPLOY / "alerts.yml"]


def test_in_compose_prometheus_asks_the_service_by_its_name_there() -> None:
    alone, within = (yaml.safe_load((DEPLOY / f"prometheus{kind}.yml").read_text()) for kind in ("", ".compose"))
    (job,) = within["scrape_configs"]
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    assert job["static_configs"] == [{"targets": ["qwen:5000"]}]
    assert set(compose["services"]["qwen"]["networks"]) & set(compose["services"]["prometheus"]["networks"])
    assert "./prometheus.compose.yml:/etc/prometheus/prometheus.yml:ro" in compose["services"]["prometheus"]["volumes"]
    assert {key: value for key, value in within.items() if key != "scrape_configs"} == {
        key: value for key, value in alone.items() if key != "scrape_configs"
    }


def promtool(*arguments: str) -> str:
    done = subprocess.run([str(PROMTOOL), *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_promtool
def test_prometheus_takes_the_scrape_configuration_and_the_rules() -> None:
    promtool("check", "config", "--syntax-only", str(DEPLOY / "prometheus.yml"))
    promtool("check", "config", "--syntax-only", str(DEPLOY / "prometheus.compose.yml"))
    assert "14 rules found" in promtool("check", "rules", str(DEPLOY / "alerts.yml"))


@needs_promtool
def test_prometheus_takes_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    """As recording rules, with Grafana's variables filled in."""
    filled = {"$__rate_interval": "1m", "$__range": "1h", "$instance": ".*", "$task": ".*"}
    rules = []
    for number, expression in enumerate(t["expr"] for panel in panels() for t in panel["targets"]):
        for name, value in filled.items():
            expression = expression.replace(name, value)
        rules.append({"record": f"test:{number}", "expr": expression})
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", str(tmp_path / "rules.yml"))


@needs_promtool
@pytest.mark.parametrize("cases_file", ["alerts_test.yml", "alerts_of_days_test.yml"])
def test_each_alarm_sounds_when_it_should_and_only_then(tmp_path: Path, cases_file: str) -> None:
    cases = (Path(__file__).parent / cases_file).read_text().replace("ALERTS", str(DEPLOY / "alerts.yml"))
    (tmp_path / "test.yml").write_text(cases)
    promtool("test", "rules", str(tmp_path / "test.yml"))


@needs_promtool
def test_prometheus_finds_nothing_to_say_against_our_metrics() -> None:
    text = busy_metrics().exposition()
    done = subprocess.run([str(PROMTOOL), "check", "metrics"], input=text, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
