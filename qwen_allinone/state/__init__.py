"""What outlives a request: conversations, in a SQLite file or in Redis; remembered answers (cache.py)."""

from qwen_allinone.state.redis import RedisStore
from qwen_allinone.state.sessions import Conversation, Session, Sessions, Store, Turn
from qwen_allinone.state.sqlite import SqliteStore

__all__ = [
    "Conversation",
    "RedisStore",
    "Session",
    "Sessions",
    "SqliteStore",
    "Store",
    "Turn",
]
