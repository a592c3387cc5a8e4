"""Who may call, and how much: keys, tokens, addresses, counts. No Flask."""

from qwen_allinone.access.addresses import client_address, counted_as
from qwen_allinone.access.credentials import Credentials
from qwen_allinone.access.windows import Window, Windows

__all__ = ["Credentials", "Window", "Windows", "client_address", "counted_as"]
