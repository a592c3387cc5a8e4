"""Qwen All-in-One: one small language model, many jobs, each of them a prompt folder."""

__version__ = "0.1.0"
