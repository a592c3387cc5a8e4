"""The service, between HTTP and the engine: tasks are run, chats answered, answers remembered. No Flask, no torch."""

from qwen_allinone.service.allinone import CHAT, SENTIMENT, AllInOne
from qwen_allinone.service.answers import Answer, CacheUse, ChatAnswer, Terms, unwatched
from qwen_allinone.service.codec import Codec, fit
from qwen_allinone.service.fitted_task import is_cacheable
from qwen_allinone.service.result_cache import ResultCache

__all__ = [
    "CHAT",
    "SENTIMENT",
    "AllInOne",
    "Answer",
    "CacheUse",
    "ChatAnswer",
    "Codec",
    "ResultCache",
    "Terms",
    "fit",
    "is_cacheable",
    "unwatched",
]
