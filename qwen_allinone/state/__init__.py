"""What outlives a request: conversations, in a SQLite file or in Redis; remembered answers (cache.py); corrections."""

from qwen_allinone.state.conversations import Conversation, Session, Sessions, Store, Turn, now
from qwen_allinone.state.corrections import Correction, Corrections, LabelAnswer
from qwen_allinone.state.redis_store import RedisStore
from qwen_allinone.state.sqlite_store import SqliteStore

__all__ = [
    "Conversation",
    "Correction",
    "Corrections",
    "LabelAnswer",
    "RedisStore",
    "Session",
    "Sessions",
    "SqliteStore",
    "Store",
    "Turn",
    "now",
]
