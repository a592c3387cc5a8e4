"""The feedback desk: files of feedback of any size in; labels, alarms, suggested replies and a report out."""

from qwen_allinone.desk.asking import SURE, TASKS, Clerk, ModelInfo, check, in_process, over_http
from qwen_allinone.desk.figures import Figures
from qwen_allinone.desk.journal import Answers, Journal
from qwen_allinone.desk.labelling import Tell, label
from qwen_allinone.desk.outputs import ALERTS, LABELLED, REPORT, write
from qwen_allinone.desk.places import File, StoredFile, place
from qwen_allinone.desk.report import About
from qwen_allinone.desk.table import Columns, Feedback, Survey, Table, open_table, survey

__all__ = [
    "ALERTS", "LABELLED", "REPORT", "SURE", "TASKS",
    "About", "Answers", "Clerk", "Columns", "Feedback", "Figures", "File", "Journal", "ModelInfo", "StoredFile",
    "Survey", "Table", "Tell",
    "check", "in_process", "label", "open_table", "over_http", "place", "survey", "write",
]  # fmt: skip
