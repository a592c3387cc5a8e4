"""Pairs of a model's own replies that nobody has judged, for demo/prefer.py to learn from.

    python -m demo.pairs --model demo/checkpoint --out pairs.jsonl
    python -m demo.prefer --begin demo/checkpoint --out better --pairs pairs.jsonl

To messages of the corpus and last in conversations the model draws several replies, and demo/reward.py, which has
learned from all verdicts, says which is the best and which the worst; the two are a pair where they are far apart. Where
something is remembered of a user (demo/corpus/remembered.py), the pair is a reply that recalls what matters, and the
same without that, or with what does not matter. Everything is kept in the folder of `--work`: a run that was cut goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from random import Random

from rich.progress import track

from demo.corpus.apart import Apart, measured_sentences
from demo.corpus.dialogues import HELP, Dialogue, read_dialogues
from demo.corpus.frames import read_frames, recalled
from demo.corpus.messages import read_messages
from demo.corpus.remembered import Remembered, of_dialogues, read_remembered
from demo.corpus.verdicts import Judged, read_verdicts, write_pairs
from demo.draw import Drawer
from demo.prefer import shipped, up_to_reply
from demo.prompts import Prompts
from demo.reward import Case, Reward, Vectors, Written, of_kinds, of_verdicts

PARTS = ("judged", "remembered")
OF_A_KIND = 44  # messages at most
REPLIES, LAST_REPLIES, OWN_REPLIES = 6, 5, 3  # to a message, last in a conversation, where something is remembered
WIDER, AS_SERVED = (0.8, 0.92), (0.7, 0.9)  # temperature and top_p: of what is judged, of what leads there
LONGEST = 60  # characters of a reply
GOOD, APART = 0.6, 0.3  # of a pair: the reward of the better, and how far the other is below it
STRANGERS = 0.25  # of those who are remembered: once more, with what is remembered of others


class Maker:
    """Makes pairs of one model's replies, from one seed."""

    def __init__(self, model: Path, work: Path, seed: int) -> None:
        self._drawer, self._work, self._rng = Drawer(model, seed=seed), work, Random(seed)
        self._model = hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()[:8]
        self._prompts = Prompts(self._drawer.tokenizer)
        self._apart = Apart(measured_sentences())
        self._judged = read_verdicts()

    def of_messages(self, most: int) -> list[Judged]:
        """Of first messages that nobody has judged replies to, as many of each kind where there are enough."""
        known, kinds = {one.said[0] for one in self._judged}, defaultdict[str, list[Judged]](list)
        for message in read_messages():
            [turn] = message.turns
            if turn.texts[0] not in known and self._apart.clear(turn.texts[0]):
                kinds[turn.kind].append(Judged(turn.texts[:1], (turn.mood,)))
        chosen = [one for kind in sorted(kinds) for one in self._some(kinds[kind], OF_A_KIND)]
        return self._drawn("messages", self._some(chosen, most), REPLIES, WIDER)

    def of_talks(self, most: int) -> list[Judged]:
        """Of the last turn of conversations; the replies before it are the model's."""
        known = {one.said[0] for one in self._judged if len(one.said) > 1}

        def told(dialogue: Dialogue) -> tuple[tuple[str, ...], tuple[str, ...]]:
            turns = dialogue.turns
            return tuple(self._rng.choice(turn.texts) for turn in turns), tuple(turn.mood for turn in turns)

        plain = [talk for talk in read_dialogues() if len(talk.turns) > 2 and not talk.system and not talk.memories]
        every = sorted(map(told, self._some(plain, len(plain))), key=lambda talk: talk[0][0] in known)
        talks = list(islice((talk for talk in every if all(map(self._apart.clear, talk[0]))), most))
        going, ready, turn = [(*talk, Judged(talk[0][:1], talk[1][:1])) for talk in talks], list[Judged](), 1
        while going:
            said = self._drawn(f"talks, turn {turn}", [one for *_, one in going], 1, AS_SERVED)
            going = [
                (texts, moods, Judged((*one.said, one.fitting[0], texts[turn]), moods[: turn + 1]))
                for (texts, moods, _), one in zip(going, said, strict=True)
                if one.fitting
            ]
            turn += 1
            ready += [one for texts, _, one in going if len(texts) == turn]
            going = [talk for talk in going if len(talk[0]) > turn]
        return self._drawn("talks, last", ready, LAST_REPLIES, WIDER)

    def best_and_worst(self, drawn: Sequence[Judged]) -> list[Judged]:
        """Of those that have a pair, as the reward finds."""
        frames, messages = read_frames(), [one for one in read_messages() if self._apart.clear(one.turns[0].texts[0])]
        replies = [reply for one in read_dialogues() for turn in one.turns for reply in turn.replies]
        written = Written([*replies, *(frame for kind in frames.values() for frame in (*kind.gapped, *kind.whole))])
        known = [*of_verdicts(self._judged), *of_kinds(messages, frames, self._rng)]
        reward = Reward(known, Vectors(self._work / "vectors.pt"), written)
        cases = [
            (one, Case(one.said, one.moods[-1], text)) for one in drawn for text in one.fitting if len(text) <= LONGEST
        ]
        ranked = defaultdict[tuple[str, ...], list[tuple[float, str]]](list)
        for (one, case), likely in zip(cases, reward.of([case for _, case in cases]), strict=True):
            ranked[one.said].append((likely, case.reply))
        pairs = list[Judged]()
        for one in drawn:
            (best, good), (worst, bad) = (
                max(ranked[one.said], default=(0.0, "")),
                min(ranked[one.said], default=(0.0, "")),
            )
            # The reward has read few words of despair: nobody unlearns from it to name help.
            if best >= GOOD and best - worst >= APART and not HELP.search(bad):
                pairs.append(Judged(one.said, one.moods, [good], [bad]))
        return pairs

    def of_remembered(self, remembered: Sequence[Remembered]) -> list[Judged]:
        """What matters is recalled before a reply, and nothing else is."""
        remembered = [one for one in remembered if self._apart.clear(one.text)]
        alone = [Judged((one.text,), (one.mood,)) for one in remembered]
        every = [memory for one in remembered for memory in one.memories]
        pairs, rng = list[Judged](), self._rng
        for one, drawn in zip(remembered, self._drawn("remembered", alone, OWN_REPLIES, WIDER), strict=True):
            if not drawn.fitting:
                continue
            reply, others = rng.choice(drawn.fitting), [memory for memory in one.memories if memory != one.matters]
            wrong = [recalled(rng.choice(others), rng) + reply] if others else []
            fitting, unfit = (
                ([recalled(one.matters, rng) + reply], [reply, *wrong]) if one.matters else ([reply], wrong)
            )
            pairs.append(Judged((one.text,), (one.mood,), fitting, unfit, one.memories))
            if rng.random() < STRANGERS:
                strange = tuple(rng.sample(every, rng.randint(1, 3)))
                wrong = [recalled(rng.choice(strange), rng) + reply]
                pairs.append(Judged((one.text,), (one.mood,), [reply], wrong, strange))
        return pairs

    def _some(self, items: Sequence[Judged], most: int) -> list[Judged]:
        return self._rng.sample(items, min(most, len(items)))

    def _drawn(self, name: str, asked: Sequence[Judged], count: int, how: tuple[float, float]) -> list[Judged]:
        """The same with replies, as fitting ones; read from the folder if this model's were drawn before."""
        file = self._work / f"{name.replace(', ', '-').replace(' ', '-')}-{self._model}.json"
        kept: dict[str, list[str]] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        if set(kept) != {_key(one) for one in asked}:
            prompts = (up_to_reply(self._prompts, one, shipped(self._prompts)) for one in asked)
            kept = {
                _key(asked[number]): replies
                for number, replies in track(self._drawer.replies(prompts, count, *how), name, len(asked))
            }
            file.write_text(json.dumps(kept, ensure_ascii=False), encoding="utf-8")
        return [Judged(one.said, one.moods, kept[_key(one)]) for one in asked]


def _key(one: Judged) -> str:
    return json.dumps([one.said, one.moods], ensure_ascii=False)


def make(options: argparse.Namespace) -> None:
    """Draw, judge, write."""
    options.work.mkdir(parents=True, exist_ok=True)
    maker = Maker(options.model, options.work, options.seed)
    pairs = list[Judged]()
    if "judged" in options.parts:
        drawn = [*maker.of_messages(options.messages), *maker.of_talks(options.talks)]
        pairs += maker.best_and_worst(drawn)
        print(f"{len(pairs):,} judged of {len(drawn):,} drawn")
    if "remembered" in options.parts:
        remembered = maker.of_remembered([*read_remembered(), *of_dialogues(read_dialogues())])
        pairs += remembered
        print(f"{len(remembered):,} remembered")
    write_pairs(pairs, options.out)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("demo/checkpoint"))
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    parser.add_argument("--messages", type=int, default=13_000)
    parser.add_argument("--talks", type=int, default=1250)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what is made")
    parser.add_argument("--work", type=Path, default=Path(".training/pairs"))
    parser.add_argument("--seed", type=int, default=7)
    make(parser.parse_args())


if __name__ == "__main__":
    main()
