"""What outlives a request: conversations, in a SQLite file or in Redis; remembered answers (cache.py)."""

from qwen_allinone.state.conversations import Conversation, Session, Sessions, Store, Turn
from qwen_allinone.state.redis_store import RedisStore
from qwen_allinone.state.responses import KeptResponse, Responses
from qwen_allinone.state.sqlite_store import SqliteStore

__all__ = [
    "Conversation",
    "KeptResponse",
    "RedisStore",
    "Responses",
    "Session",
    "Sessions",
    "SqliteStore",
    "Store",
    "Turn",
]
