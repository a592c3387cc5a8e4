"""`python -m qwen_allinone` is the same as the command `qwen-allinone`."""

from qwen_allinone.cli import app

app()
