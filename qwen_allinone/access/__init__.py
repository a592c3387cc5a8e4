"""Who may call, and how much: keys, tokens, addresses, counts. No Flask."""

from qwen_allinone.access.addresses import client_address, counted_as, is_address, is_from
from qwen_allinone.access.credentials import Credentials
from qwen_allinone.access.window_counters import RateCounters, Window

__all__ = ["Credentials", "Window", "RateCounters", "client_address", "counted_as", "is_address", "is_from"]
