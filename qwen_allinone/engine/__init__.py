"""Token ids in, token ids out: continuous batching over slots. Knows nothing of text or HTTP."""

from qwen_allinone.engine.admission import Admission, Permit
from qwen_allinone.engine.contract import Capacity, Compute, Loaded
from qwen_allinone.engine.engine import Engine
from qwen_allinone.engine.forms import Form
from qwen_allinone.engine.label_trie import LabelTrie
from qwen_allinone.engine.lifecycle import Status
from qwen_allinone.engine.option_scoring import Question, ScoreOptions
from qwen_allinone.engine.pace import Pace
from qwen_allinone.engine.sampling import Logprobs, Sampling
from qwen_allinone.engine.ticket import Ticket
from qwen_allinone.engine.work import Classify, Embed, FinishReason, Generate, Result, Work

__all__ = [
    "Admission",
    "Capacity",
    "Classify",
    "Compute",
    "Embed",
    "Engine",
    "FinishReason",
    "Form",
    "Generate",
    "LabelTrie",
    "Loaded",
    "Logprobs",
    "Pace",
    "Permit",
    "Question",
    "Result",
    "Sampling",
    "ScoreOptions",
    "Status",
    "Ticket",
    "Work",
]
