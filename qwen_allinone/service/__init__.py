"""The service, between HTTP and the engine: tasks are run, chats answered, answers remembered. No Flask, no torch."""

from qwen_allinone.service.allinone import CHAT, SENTIMENT, AllInOne, Texts
from qwen_allinone.service.answers import (
    Answer,
    ChatAnswer,
    Delta,
    Progress,
    RouteAnswer,
    Submitted,
    Watch,
    unwatched,
)
from qwen_allinone.service.caching import CacheUse, ResultCache, is_cacheable

__all__ = [
    "CHAT",
    "SENTIMENT",
    "AllInOne",
    "Answer",
    "CacheUse",
    "ChatAnswer",
    "Delta",
    "Progress",
    "ResultCache",
    "RouteAnswer",
    "Submitted",
    "Texts",
    "Watch",
    "is_cacheable",
    "unwatched",
]
