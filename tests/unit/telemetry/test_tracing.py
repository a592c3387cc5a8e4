"""What a start asks of the variables that want spans; see tests/integration/test_http_tracing.py for the spans."""

from __future__ import annotations

import pytest

from qwen_allinone.errors import SettingsError, StartupError
from qwen_allinone.telemetry import tracing

URL = "http://127.0.0.1:4318"


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, None),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": URL, "OTEL_SERVICE_NAME": "x"}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": URL}, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        (
            {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": URL, "OTEL_EXPORTER_OTLP_ENDPOINT": "x"},
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        ),
    ],
)
def test_either_variable_wants_spans_and_an_empty_one_does_not(environ: dict[str, str], wanted: str | None) -> None:
    assert tracing.wanted_by(environ) == wanted


@pytest.mark.parametrize("missing", ["not_there_at_all", "not_there.sdk.trace", "json.not_there"])
def test_without_the_package_the_start_says_what_to_install(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setattr(tracing, "_NEEDED", ("json", missing))
    tracing.check({"OTEL_EXPORTER_OTLP_ENDPOINT": ""})
    with pytest.raises(StartupError, match=r"^OTEL_EXPORTER_OTLP_ENDPOINT .*pip install -r requirements-otel\.txt$"):
        tracing.check({"OTEL_EXPORTER_OTLP_ENDPOINT": URL})


@pytest.mark.parametrize("given", ["collector:4318", "127.0.0.1", "grpc://localhost:4317"])
def test_an_address_that_is_no_url_is_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setattr(tracing, "_NEEDED", ("json",))
    tracing.check({"OTEL_EXPORTER_OTLP_ENDPOINT": URL})
    with pytest.raises(SettingsError, match="OTEL_EXPORTER_OTLP_ENDPOINT.*http://") as caught:
        tracing.check({"OTEL_EXPORTER_OTLP_ENDPOINT": given})
    assert given not in str(caught.value)
