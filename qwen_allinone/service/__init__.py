"""The service, between HTTP and the engine: tasks are run, chats answered, answers remembered. No Flask, no torch."""

from qwen_allinone.model.sampling_defaults import SamplingDefaults
from qwen_allinone.service.answer_types import Answer, CacheUse, ChatAnswer, Terms, unwatched
from qwen_allinone.service.codec import Codec, fit, fit_task
from qwen_allinone.service.fitted_task import FittedTask, is_cacheable
from qwen_allinone.service.fitting import Fitting, How
from qwen_allinone.service.gold_fit import GoldFit, fit_to_gold
from qwen_allinone.service.judging import Outcome, judge
from qwen_allinone.service.memories import Memories, UserMemories, whose
from qwen_allinone.service.memory_keeper import Keeper
from qwen_allinone.service.result_cache import ResultCache
from qwen_allinone.service.service import Service
from qwen_allinone.service.trial import Trial, Tried, try_task

__all__ = [
    "Service",
    "Answer",
    "CacheUse",
    "ChatAnswer",
    "Codec",
    "FittedTask",
    "Fitting",
    "GoldFit",
    "How",
    "Keeper",
    "Memories",
    "Outcome",
    "ResultCache",
    "SamplingDefaults",
    "Terms",
    "Trial",
    "Tried",
    "UserMemories",
    "fit",
    "fit_task",
    "fit_to_gold",
    "is_cacheable",
    "judge",
    "try_task",
    "unwatched",
    "whose",
]
