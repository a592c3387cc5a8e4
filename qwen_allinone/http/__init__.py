"""Flask lives here and nowhere else: parse, one service call, serialise."""

from qwen_allinone.http.app import create_app

__all__ = ["create_app"]
