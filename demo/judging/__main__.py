"""Asks a running service for replies to the held-out texts, for people to judge, and sums up what they found.

    python -m demo.judging ask --url http://127.0.0.1:5000 --sheet sheet.tsv --key key.tsv
    python -m demo.judging sum --sheet sheet.tsv --key key.tsv [--keep demo/judging/replies.tsv]

`ask` writes two tables. The sheet has a number, what was said and the reply, in random order: that is all a judge sees.
He adds two columns, `fits` (1 or 0) and `why`, by the rubric in demo/judging/RUBRIC.md. The key says which set and door
each number came from. `sum` joins them; `--keep` writes the joined table.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

HELD_OUT = Path(__file__).parents[1] / "heldout"
# Three system prompts that are not the service's own: warm, of a shop, and brief.
SYSTEMS = {
    "system: friend": "你是我的好朋友，陪我聊天，说话真诚一点。",
    "system: shop": "你是一家网店的客服小美，礼貌、耐心地回答顾客，不知道的事情不要编造。",
    "system: brief": "你是一个助手，回答要简短，用中文口语。",
}
_TURN = " ⏎ "  # between the turns of a conversation, in a cell


@dataclass(frozen=True)
class Reply:
    """One reply: the held-out set, the door it came through, what kind of text, what was said, the reply."""

    set: str
    door: str
    kind: str
    said: str
    reply: str


class Service:
    """A running service, asked as its users ask it."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self._model = self._get("/v1/models")["data"][0]["id"]

    def chat(self, text: str, session: str | None = None) -> dict[str, str]:
        """The answer of /chat; `session` "" opens a conversation."""
        body: dict[str, object] = {"text": text}
        if session is not None:
            body |= {"session_id": session} if session else {"session": True}
        return self._post("/chat", body)

    def complete(self, text: str, system: str) -> str:
        """The reply of /v1/chat/completions, drawn by the model's own defaults."""
        messages = ([{"role": "system", "content": system}] if system else []) + [{"role": "user", "content": text}]
        body = {"model": self._model, "messages": messages, "max_tokens": 128}
        answer: str = self._post("/v1/chat/completions", body)["choices"][0]["message"]["content"]  # type: ignore[index,call-overload]
        return answer

    def _get(self, path: str):  # type: ignore[no-untyped-def]
        with self._opener.open(self._url + path, timeout=60) as answer:
            return json.load(answer)

    def _post(self, path: str, body: dict[str, object]):  # type: ignore[no-untyped-def]
        data = json.dumps(body, ensure_ascii=False).encode()
        request = urllib.request.Request(self._url + path, data, {"Content-Type": "application/json"})
        with self._opener.open(request, timeout=120) as answer:
            return json.load(answer)


def replies(service: Service) -> Iterator[Reply]:
    """Everything that is to be judged."""
    for kind, text in _table("openers"):
        yield Reply("openers", "chat", kind, text, service.chat(text)["response"])
        yield Reply("openers", "no system prompt", kind, text, service.complete(text, ""))
        for name, system in SYSTEMS.items():
            yield Reply("openers", name, kind, text, service.complete(text, system))
    for kind, text in _table("moods"):
        yield Reply("moods", "chat", kind, text, service.chat(text)["response"])
    for turns in _conversations():
        yield Reply("conversations", "chat", "third turn", *_third(service, turns))


def _third(service: Service, turns: list[str]) -> tuple[str, str]:
    said, session = list[str](), ""
    reply = ""
    for text in turns:
        answer = service.chat(text, session)
        session, reply = answer["session_id"], answer["response"]
        said += [f"用户：{text}", f"答：{reply}"]
    return _TURN.join(said[:-1]), reply


def _table(name: str) -> Iterator[tuple[str, str]]:
    with (HELD_OUT / f"{name}.tsv").open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        next(rows)
        yield from ((row[0], row[1]) for row in rows if row)


def _conversations() -> list[list[str]]:
    text = (HELD_OUT / "conversations.txt").read_text(encoding="utf-8")
    return [block.splitlines() for block in text.strip().split("\n\n")]


def ask(url: str, sheet: Path, key: Path) -> None:
    """Write the sheet and its key."""
    found = []
    for number, reply in enumerate(replies(Service(url)), 1):
        found.append(reply)
        if number % 100 == 0:
            print(f"{number} replies", file=sys.stderr, flush=True)
    Random(1).shuffle(found)
    _write(sheet, ["number", "said", "reply"], ([str(i), r.said, r.reply] for i, r in enumerate(found, 1)))
    _write(key, ["number", "set", "door", "kind"], ([str(i), r.set, r.door, r.kind] for i, r in enumerate(found, 1)))


def total(sheet: Path, key: Path, keep: Path | None) -> None:
    """Print the share that fits by set, door and kind."""
    judged = {row["number"]: row for row in _read(sheet)}
    rows = [entry | judged[entry["number"]] for entry in _read(key) if entry["number"] in judged]
    sums: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for row in rows:
        for kind in ("", row["kind"]):
            sums[row["set"], row["door"], kind].append(int(row["fits"]))
    for (group, door, kind), fits in sorted(sums.items()):
        print(f"{group:14} {door:18} {kind or 'all':12} {sum(fits) / len(fits):6.1%} of {len(fits)}")
    if keep:
        head = ["number", "set", "door", "kind", "said", "reply", "fits", "why"]
        _write(keep, head, ([row.get(name, "") for name in head] for row in rows))


def _read(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))


def _write(file: Path, head: list[str], rows) -> None:  # type: ignore[no-untyped-def]
    lines = ["\t".join(cell.replace("\t", " ").replace("\n", _TURN) for cell in row) for row in (head, *rows)]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("ask", "sum"))
    parser.add_argument("--url", default="http://127.0.0.1:5000")
    parser.add_argument("--sheet", type=Path, required=True)
    parser.add_argument("--key", type=Path, required=True)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    if options.what == "ask":
        ask(options.url, options.sheet, options.key)
    else:
        total(options.sheet, options.key, options.keep)


if __name__ == "__main__":
    main()
