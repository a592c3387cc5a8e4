"""Counts the written conversations and names every mistake and every reply that stands twice."""

from __future__ import annotations

import sys
from collections import Counter

from demo.corpus.dialogues import HERE, Dialogue, DialogueError, read_file


def main() -> int:
    """Prints a line for each file; 1 where a file cannot be read."""
    everything: list[Dialogue] = []
    failed = 0
    for path in sorted(HERE.glob("*.txt")):
        try:
            found = list(read_file(path))
        except DialogueError as error:
            print(f"MISTAKE {error}")
            failed = 1
            continue
        everything += found
        print(f"{path.name}: {len(found)} conversations, {sum(len(d.turns) for d in found)} turns")
    replies = Counter(reply for d in everything for turn in d.turns for reply in turn.replies)
    texts = sum(len(turn.texts) for d in everything for turn in d.turns)
    print(f"{len(everything)} conversations, {texts} texts, {sum(replies.values())} replies")
    print(*(f"twice: {reply}" for reply, count in replies.items() if count > 1), sep="\n")
    return failed


if __name__ == "__main__":
    sys.exit(main())
