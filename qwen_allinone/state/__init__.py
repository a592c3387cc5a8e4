"""What outlives a request: conversations, responses and answers to keys of clients', in a SQLite file or in Redis;
remembered answers (cache.py)."""

from qwen_allinone.state.conversations import Conversation, Session, Sessions, Store, Turn
from qwen_allinone.state.once import Held, OnceStore
from qwen_allinone.state.redis_once import RedisOnce
from qwen_allinone.state.redis_store import RedisStore
from qwen_allinone.state.responses import KeptResponse, Responses
from qwen_allinone.state.sqlite_once import SqliteOnce
from qwen_allinone.state.sqlite_store import SqliteStore

__all__ = [
    "Conversation",
    "Held",
    "KeptResponse",
    "OnceStore",
    "RedisOnce",
    "RedisStore",
    "Responses",
    "Session",
    "Sessions",
    "SqliteOnce",
    "SqliteStore",
    "Store",
    "Turn",
]
