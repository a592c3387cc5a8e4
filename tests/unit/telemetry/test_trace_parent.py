"""The header `traceparent`: what W3C Trace Context takes, and what it has ignored."""

from __future__ import annotations

import pytest

from qwen_allinone.telemetry.trace_parent import TraceParent, trace_parent

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("header", "sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),  # other flags are not ours to know
        (f"00-{TRACE}-{SPAN}-fe", False),
        (f" \t00-{TRACE}-{SPAN}-01 ", True),
        (f"cc-{TRACE}-{SPAN}-01", True),  # a later version is read as this one
        (f"cc-{TRACE}-{SPAN}-01-what-comes-then", True),
        (f"01-{TRACE}-{SPAN}-01-", True),
    ],
)
def test_a_good_header_names_the_trace_and_the_callers_span(header: str, sampled: bool) -> None:
    assert trace_parent(header) == TraceParent(TRACE, SPAN, sampled)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00",
        f"ff-{TRACE}-{SPAN}-01",
        f"0-{TRACE}-{SPAN}-01",
        f"000-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-001",
        f"00-{TRACE}-{SPAN}-01-",  # version 00 ends here
        f"00-{TRACE}-{SPAN}-01-more",
        f"cc-{TRACE}-{SPAN}-01.more",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN.upper()}-01",
        f"00-{TRACE}-{SPAN}-0A",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"00-{TRACE}0-{SPAN}-01",
        f"00-{TRACE[:-1]}g-{SPAN}-01",
        f"00-{TRACE}-{SPAN}g-01",
        f"00_{TRACE}_{SPAN}_01",
        f"00-{TRACE}-{SPAN}-01,00-{TRACE}-{SPAN}-01",  # two headers, as servers join them
        f"00-{TRACE}-{SPAN}-01\n",
        f"00-{TRACE.replace('4', '４')}-{SPAN}-01",
    ],
)
def test_a_bad_one_is_as_good_as_none(header: str) -> None:
    assert trace_parent(header) is None
