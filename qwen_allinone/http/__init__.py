"""Flask lives here and nowhere else: parse, one service call, serialise."""

from qwen_allinone.http.app import create_app
from qwen_allinone.http.backend import Batches, PromptBench
from qwen_allinone.http.batch_runner import BatchRunner
from qwen_allinone.http.browsers import Browsers
from qwen_allinone.http.guards import Guards
from qwen_allinone.http.idempotency import Once
from qwen_allinone.http.rate_limits import WINDOW_S, Quota
from qwen_allinone.http.usage import UsageMeter

__all__ = [
    "WINDOW_S",
    "BatchRunner",
    "Batches",
    "Browsers",
    "Guards",
    "Once",
    "PromptBench",
    "Quota",
    "UsageMeter",
    "create_app",
]
