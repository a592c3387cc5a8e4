"""Labelled data against a label task: how many answers are right, how honest their probabilities, how fast."""

from qwen_allinone.measuring.calibrating import Fitted, fit
from qwen_allinone.measuring.figures import Figures, Judged, figures_of, percentile
from qwen_allinone.measuring.labelled import Column, Row, Table, read_table
from qwen_allinone.measuring.results import is_writable, write_calibration, write_wrong
from qwen_allinone.measuring.run import Ask, Asked, ask_all, in_process, over_http

__all__ = [
    "Ask",
    "Asked",
    "Column",
    "Figures",
    "Fitted",
    "Judged",
    "Row",
    "Table",
    "ask_all",
    "figures_of",
    "fit",
    "in_process",
    "is_writable",
    "over_http",
    "percentile",
    "read_table",
    "write_calibration",
    "write_wrong",
]
