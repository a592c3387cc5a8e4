"""What outlives a request: conversations, responses, answers to keys of clients', usage and what users told of
themselves, in a SQLite file, in Redis or in PostgreSQL; corrections; batches and their files; alerts on their way;
remembered answers (cache.py)."""

from qwen_allinone.state.batches import Batch, Draft, HeldLine, InputLine, LineProblem, Quota, StoredFile, outcome
from qwen_allinone.state.conversations import Conversation, Session, Sessions, Store, Turn, now
from qwen_allinone.state.corrections import Correction, Corrections, LabelAnswer
from qwen_allinone.state.memories import Held, Memory, MemoryStore, Note, Statement, Whose
from qwen_allinone.state.once import OnceStore
from qwen_allinone.state.outbox import AlertEvent, Message, Outcome
from qwen_allinone.state.postgres_conversations import PostgresStore
from qwen_allinone.state.postgres_memories import PostgresMemories
from qwen_allinone.state.postgres_once import PostgresOnce
from qwen_allinone.state.postgres_usage import PostgresUsage
from qwen_allinone.state.redis_conversations import RedisStore
from qwen_allinone.state.redis_memories import RedisMemories
from qwen_allinone.state.redis_once import RedisOnce
from qwen_allinone.state.redis_usage import RedisUsage
from qwen_allinone.state.responses import KeptResponse, Responses
from qwen_allinone.state.sqlite_batches import SqliteBatches
from qwen_allinone.state.sqlite_conversations import SqliteStore
from qwen_allinone.state.sqlite_memories import SqliteMemories
from qwen_allinone.state.sqlite_once import SqliteOnce
from qwen_allinone.state.sqlite_outbox import SqliteOutbox
from qwen_allinone.state.sqlite_usage import SqliteUsage
from qwen_allinone.state.usage import Counted, Counts, UsageAccounts, UsageLine, UsageStore

__all__ = [
    "AlertEvent",
    "Message",
    "Outcome",
    "SqliteOutbox",
    "Batch",
    "Conversation",
    "Held",
    "Memory",
    "MemoryStore",
    "Note",
    "Statement",
    "Correction",
    "Counted",
    "Counts",
    "Corrections",
    "LabelAnswer",
    "Draft",
    "HeldLine",
    "InputLine",
    "LineProblem",
    "KeptResponse",
    "OnceStore",
    "PostgresMemories",
    "PostgresOnce",
    "PostgresStore",
    "PostgresUsage",
    "Quota",
    "RedisMemories",
    "RedisOnce",
    "RedisStore",
    "RedisUsage",
    "Responses",
    "Session",
    "Sessions",
    "SqliteBatches",
    "SqliteMemories",
    "SqliteOnce",
    "SqliteStore",
    "SqliteUsage",
    "Store",
    "StoredFile",
    "Turn",
    "UsageAccounts",
    "UsageLine",
    "UsageStore",
    "Whose",
    "now",
    "outcome",
]
