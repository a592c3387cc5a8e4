"""OpenAI's official Python client, before an app in this process or a server on loopback."""

from __future__ import annotations

from typing import Any

import httpx2
import openai
from flask import Flask


def client_of(app: Flask, **options: Any) -> openai.OpenAI:
    """A client that calls the app without a network; it does not retry unless told to."""
    http = httpx2.Client(transport=httpx2.WSGITransport(app))
    return openai.OpenAI(
        **{"base_url": "http://localhost/v1", "api_key": "none", "max_retries": 0, "http_client": http} | options
    )


def client_at(port: int, **options: Any) -> openai.OpenAI:
    """A client of a server on loopback."""
    http = httpx2.Client(trust_env=False, timeout=60.0)
    base_url = f"http://127.0.0.1:{port}/v1"
    return openai.OpenAI(**{"base_url": base_url, "api_key": "none", "max_retries": 0, "http_client": http} | options)
