"""The usual way: transformers' `generate` in a Flask route, one request at a time, nothing kept between requests.

PLAIN_MODEL=DIR gunicorn -w 2 --timeout 0 benchmarks.plain.app:app

Gunicorn's own timeout of 30 s would kill a worker that is still generating. PLAIN_FIXED=1 makes every answer as long
as its limit, so that runs can be compared.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from flask import Flask, Response, jsonify, request
from transformers import AutoModelForCausalLM, AutoTokenizer

LABEL_TOKENS = 8
REPLY_TOKENS = 128
FIXED = os.environ.get("PLAIN_FIXED") == "1"


def _prompt(task: str) -> str:
    """The prompt of one of the project's tasks, without its front matter."""
    file = Path(__file__).resolve().parents[2] / "prompts" / task / "prompt.md"
    return file.read_text(encoding="utf-8").split("---\n", 2)[2].strip()


SENTIMENT = _prompt("sentiment")
# Nobody is remembered here.
SYSTEM = _prompt("chat").removeprefix("system:").split("\nuser:")[0].strip().replace("$memories", "")

tokenizer = AutoTokenizer.from_pretrained(os.environ["PLAIN_MODEL"])
model: Any = AutoModelForCausalLM.from_pretrained(os.environ["PLAIN_MODEL"], dtype=torch.float32)

app = Flask(__name__)


def sentiment_of(text: str) -> str:
    """A label, read out of the first tokens the model adds to the prompt."""
    inputs = tokenizer(SENTIMENT.replace("$text", text), return_tensors="pt")
    said = _generate(inputs, LABEL_TOKENS, do_sample=False)
    return "正面" if "正面" in said else "负面"


def reply_to(text: str, sentiment: str) -> str:
    """A sampled reply to `text`."""
    messages = [
        {"role": "system", "content": SYSTEM.replace("$sentiment", sentiment)},
        {"role": "user", "content": text},
    ]
    inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    return _generate(inputs, REPLY_TOKENS, do_sample=True, temperature=0.7, top_p=0.9)


def _generate(inputs: Any, limit: int, **how: Any) -> str:
    if FIXED:
        how["min_new_tokens"] = limit
    output = model.generate(**inputs, max_new_tokens=limit, pad_token_id=tokenizer.pad_token_id, **how)
    return str(tokenizer.decode(output[0][inputs["input_ids"].shape[1] :], skip_special_tokens=True))


@app.post("/chat")
def chat() -> Response:
    """A sentiment and a reply that was told it."""
    text = request.get_json()["text"]
    label = sentiment_of(text)
    return jsonify(sentiment=label, response=reply_to(text, label))


@app.post("/sentiment")
def sentiment() -> Response:
    """Only the sentiment."""
    return jsonify(sentiment=sentiment_of(request.get_json()["text"]))


print("plain: ready", flush=True)
