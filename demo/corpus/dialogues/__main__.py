"""Counts the written conversations, messages and frames, and names every mistake and every reply that stands twice."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from demo.corpus.dialogues import HERE, Dialogue, DialogueError, read_file
from demo.corpus.frames import FrameError, read_frames
from demo.corpus.messages import HERE as MESSAGES
from demo.corpus.messages import read_message_file


def main() -> int:
    """Prints a line for each file; 1 where a file cannot be read."""
    conversations, failed = _read(HERE, read_file)
    messages, failed_too = _read(MESSAGES, read_message_file)
    everything = conversations + messages
    replies = Counter(reply for d in everything for turn in d.turns for reply in turn.replies)
    texts = sum(len(turn.texts) for d in everything for turn in d.turns)
    print(f"{len(everything)} conversations, {texts} texts, {sum(replies.values())} replies")
    print(*(f"twice: {reply}" for reply, count in replies.items() if count > 1), sep="\n")
    kinds = Counter(turn.kind for d in everything for turn in d.turns if turn.kind)
    try:
        frames = read_frames()
    except FrameError as error:
        print(f"MISTAKE {error}")
        return 1
    print("messages of each kind:", *(f"{kind} {kinds[kind]}" for kind in sorted(frames, key=lambda kind: kinds[kind])))
    return int(failed or failed_too)


def _read(folder: Path, read: Callable[[Path], Iterator[Dialogue]]) -> tuple[list[Dialogue], bool]:
    found, failed = list[Dialogue](), False
    for path in sorted(folder.glob("*.txt")):
        try:
            part = list(read(path))
        except DialogueError as error:
            print(f"MISTAKE {error}")
            failed = True
            continue
        found += part
        print(f"{path.name}: {len(part)} conversations, {sum(len(d.turns) for d in part)} turns")
    return found, failed


if __name__ == "__main__":
    sys.exit(main())
