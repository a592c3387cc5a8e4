"""Token ids in, token ids out: continuous batching over slots. Knows nothing of text or HTTP."""

from qwen_allinone.engine.admission import Admission, Permit
from qwen_allinone.engine.contract import Limits, Loaded, Status
from qwen_allinone.engine.deciding import Decide, Question
from qwen_allinone.engine.engine import Engine
from qwen_allinone.engine.labels import LabelTrie
from qwen_allinone.engine.request import Classify, FinishReason, Generate, Result, Ticket
from qwen_allinone.engine.sampling import Sampling

__all__ = [
    "Admission",
    "Classify",
    "Decide",
    "Engine",
    "FinishReason",
    "Generate",
    "LabelTrie",
    "Limits",
    "Loaded",
    "Permit",
    "Question",
    "Result",
    "Sampling",
    "Status",
    "Ticket",
]
