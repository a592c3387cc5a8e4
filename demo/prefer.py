"""Teaches a trained model which of its own replies fit: readers have judged some thousands (demo/corpus/verdicts).

    python -m demo.prefer --begin demo/checkpoint --out better

Direct preference optimization (Rafailov et al. 2023): of two replies to one message the one that fits is to become
likelier, the one that does not less likely, both against the model that it begins with. A share of the plain loss of
the fitting replies keeps those from becoming less likely as well (Pang et al. 2024). With a `--beta` of 0.1 a pair is
content only when its replies are 20 nats apart, more than a whole reply has: all that the model could say well became
unlikely, and 40 of 100 replies were no sentences. With 1.0 it takes three nats. What was said is read through the
service's chat prompt, without any prompt, and through others, as in demo/batches.py.

Some first messages are read once more at the end of a conversation about something else, where the same replies fit;
and what the model said just before does not fit again. Of fitting replies the rare ones count more, of others the
common ones (Lanchantin et al. 2025); the one round so far that learned so kept no more variety than those before. What
the further tasks write is practised meanwhile: two rounds without that cost `suggest` three gold cases in ten.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from random import Random

import torch
from rich.progress import track
from torch import Tensor
from torch.nn import functional

from demo.batches import DOOR_WEIGHTS, DOORS, Batches, Tokens
from demo.corpus.jobs.taught import taught
from demo.corpus.lexicon import Lexicon
from demo.corpus.pools import Pool
from demo.corpus.verdicts import Judged, read_pairs, read_verdicts
from demo.losses import arithmetic, of_written
from demo.model import DemoModel
from demo.prompts import Prompts
from demo.train import begin_at
from qwen_allinone.engine.slots import common_prefix
from qwen_allinone.model.tokenizer import Tokenizer

WATCHED = 0.1  # of the messages are not learned: how many of their pairs come in the right order is printed
WARM_UP = 0.05
# What is practised, a task a step: nothing is nearer to a reply than what `suggest` writes.
PRACTISED = (
    "suggest", "summary", "suggest", "care", "suggest", "translate", "suggest", "ticket", "suggest", "care",
    "suggest", "remember", "suggest", "aspects", "suggest", "care", "suggest", "keywords",
)  # fmt: skip
SAMPLES, PRACTICE_TOKENS = 3000, 900  # of a task that has no end; of a batch
TURNED = 0.5  # of the first messages are read once more behind another conversation
VARIETY = 0.15  # how much more a pair counts, in nats for each by which its unfit reply is likelier
_MOST_NATS = 12.0  # either way: farther apart, one pair would be all or nothing

System = Callable[[Judged, str], str]  # the system prompt that tells a mood, and what is known of the user
_KNOWN = "{known}"  # of the user


@dataclass(frozen=True)
class Pairs:
    """Of the replies to a group of messages, numbered: `fitting` and `unfit` [pairs] of each pair of one message, and
    what a pair counts, so that each message counts 1. `messages` [pairs]: of which."""

    fitting: Tensor
    unfit: Tensor
    weights: Tensor
    messages: Tensor

    @classmethod
    def of(cls, group: Sequence[Judged]) -> Pairs:
        found, start = list[tuple[int, int, float, int]](), 0
        for number, one in enumerate(group):
            fits, count = range(start, start + len(one.fitting)), len(one.fitting) + len(one.unfit)
            every = [(good, bad) for good in fits for bad in range(fits.stop, start + count)]
            found += [(good, bad, 1 / len(every), number) for good, bad in every]
            start += count
        return cls(*map(torch.tensor, zip(*found, strict=True)))

    def for_variety(self, scores: Tensor) -> Pairs:
        """The same, where the rarer a fitting reply is and the more common an unfit one, by the log-probabilities
        `scores` [replies], the more they count in their message: what is said to everything is learned anyway."""
        raw = (VARIETY * (scores[self.unfit] - scores[self.fitting])).clamp(-_MOST_NATS, _MOST_NATS).exp()
        sums = torch.zeros(int(self.messages[-1]) + 1).index_add(0, self.messages, raw)
        return dataclasses.replace(self, weights=raw / sums[self.messages])


class Reader:
    """Reads messages and their replies through prompts drawn at random."""

    def __init__(self, prompts: Prompts, rng: Random) -> None:
        self._prompts, self._rng = prompts, rng

    def groups(self, judged: Sequence[Judged], replies: int) -> Iterator[tuple[System, list[Judged]]]:
        """All messages in groups that have some `replies` together, each with its system prompts. Those of a group stand
        equally far into a conversation, which began in the same mood; of each user something is known, or of none."""
        left, groups = list(judged), list[list[Judged]]()
        self._rng.shuffle(left)
        for alike in sorted({_begins(one) for one in left}):
            groups.append([])
            for one in (one for one in left if _begins(one) == alike):
                if sum(len(other.fitting) + len(other.unfit) for other in groups[-1]) >= replies:
                    groups.append([])
                groups[-1].append(one)
        self._rng.shuffle(groups)
        return ((self._system(group[0]), group) for group in groups)

    def _system(self, first: Judged) -> System:
        """Of a group that begins with `first`."""
        [door] = self._rng.choices(DOORS, DOOR_WEIGHTS)
        if door == "chat":
            return shipped(self._prompts)
        if door == "none" and not first.memories:
            return lambda one, mood: ""
        made = self._prompts.system(first.moods[0], [_KNOWN] * bool(first.memories), self._rng)
        return lambda one, mood: made.replace(_KNOWN, "\n- ".join(one.memories))

    def scores(self, model: DemoModel, system: System, group: Sequence[Judged]) -> tuple[Tensor, Tensor]:
        """Log-probabilities [replies] of all replies to a group, and their tokens [replies]: of each message first those
        that fit, then the others."""
        encode = self._prompts.tokenizer.encode
        rows, starts = list[list[int]](), list[int]()
        for one in group:
            said = up_to_reply(self._prompts, one, system)
            for reply in (*one.fitting, *one.unfit):
                starts.append(len(said))
                rows.append([*said, *encode(reply), self._prompts.ends[1]])
        shared = min([common_prefix(rows[0], row) for row in rows[1:]] + [min(starts) - 1])
        before, rows, starts = rows[0][:shared], [row[shared:] for row in rows], [start - shared for start in starts]
        longest = max(map(len, rows))
        padded = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        places, ends = torch.arange(longest), torch.tensor([len(row) for row in rows])
        is_reply = (places >= torch.tensor(starts)[:, None]) & (places < ends[:, None])
        predicted = is_reply[:, 1:].flatten().nonzero().squeeze(1)
        with arithmetic():
            hidden = model(torch.tensor(before), padded)[:, :-1].reshape(-1, model.shape.hidden)
            losses, _ = model.token_losses(hidden[predicted], padded[:, 1:].flatten()[predicted])
        sums = torch.zeros(is_reply[:, 1:].numel()).index_put((predicted,), -losses).view(len(rows), -1).sum(1)
        return sums, is_reply.sum(1)


class Practice:
    """What the further tasks write, one task after the other."""

    def __init__(self, prompts: Prompts, seed: int) -> None:
        jobs, nothing = taught(Lexicon.load(), seed * 3000, SAMPLES), Pool([], torch.empty(0), torch.empty(0))
        size = Tokens(0, 0, PRACTICE_TOKENS, 0)
        self._batches, self._tasks = Batches(prompts, nothing, [], jobs, seed, size, {}), cycle(PRACTISED)

    def learn(self, model: DemoModel) -> None:
        """Add the gradients of a batch."""
        batch = self._batches.job(next(self._tasks))
        with arithmetic():
            hidden = model(batch.prefix, batch.rows).reshape(-1, model.shape.hidden)
            _, loss = of_written(model, hidden, batch)
        loss.backward()  # type: ignore[no-untyped-call]


def turned(judged: Sequence[Judged], rng: Random) -> list[Judged]:
    """Some of the first messages, each behind a conversation about something else."""
    firsts = [one for one in judged if len(one.said) == 1 and not one.memories]
    before = [(one.said[:-1], one.moods[:-1]) for one in judged if len(one.said) > 1 and not one.memories]
    before += [((one.said[0], rng.choice(one.fitting)), one.moods) for one in firsts]
    some = rng.sample(firsts, int(len(firsts) * TURNED))
    return [
        dataclasses.replace(one, said=(*said, *one.said), moods=(*moods, *one.moods))
        for one, (said, moods) in zip(some, rng.sample(before, len(some)), strict=True)
        if one.said[0] not in said
    ]


def not_again(one: Judged) -> Judged:
    """The same, and that the reply before is none to what was said next, unless it was found to fit."""
    again = [reply for reply in one.said[-2:-1] if reply not in (*one.fitting, *one.unfit)]
    return dataclasses.replace(one, unfit=[*one.unfit, *again])


def up_to_reply(prompts: Prompts, one: Judged, system: System) -> list[int]:
    """Ids. As the service does it, the system prompt is told again where another mood changes it."""
    encode, told = prompts.tokenizer.encode, system(one, one.moods[0])
    ids = [*prompts.conversation(told).before, *encode(one.said[0]), *prompts.to_reply]
    for mood, reply, text in zip(one.moods[1:], one.said[1::2], one.said[2::2], strict=True):
        again, told = told != system(one, mood), system(one, mood)
        ids += [*encode(reply), prompts.ends[1], *(prompts.late_system(told) if again else prompts.to_user)]
        ids += [*encode(text), *prompts.to_reply]
    return ids


def shipped(prompts: Prompts) -> System:
    """As /chat writes it."""
    return lambda one, mood: prompts.shipped_system(mood, one.memories)


def _begins(one: Judged) -> tuple[int, str, bool]:
    return len(one.moods), one.moods[0], bool(one.memories)


def prefer(options: argparse.Namespace) -> None:
    """Learn, tell how it goes, and save after each round."""
    begin_at(options)
    torch.manual_seed(options.seed)
    prompts, rng = Prompts(Tokenizer.load(options.begin)), Random(options.seed)
    judged = read_pairs(options.pairs) if options.pairs else []
    judged += read_verdicts(options.verdicts or "*") if options.verdicts or not options.pairs else []
    judged = [one for one in judged if one.fitting and one.unfit]
    rng.shuffle(judged)
    watched, learned = judged[: int(len(judged) * WATCHED)], judged[int(len(judged) * WATCHED) :]
    learned = [not_again(one) for one in (*learned, *turned(learned, rng))]
    model = DemoModel.load(options.begin)
    first = copy.deepcopy(model).requires_grad_(False)
    adam = torch.optim.AdamW(model.parameters(), lr=options.rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    reader, practice = Reader(prompts, rng), Practice(prompts, options.seed)
    rounds = [list(reader.groups(learned, options.replies)) for _ in range(options.rounds)]
    total, step, began = sum(map(len, rounds)), 0, time.monotonic()
    print(f"{len(learned):,} messages with replies of both kinds, {total} steps", flush=True)
    for number, groups in enumerate(rounds, 1):
        for system, group in track(groups, f"round {number}"):
            with torch.no_grad():
                at_first, _ = reader.scores(first, system, group)
            pairs = Pairs.of(group).for_variety(at_first)
            scores, tokens = reader.scores(model, system, group)
            gained = options.beta * (scores - at_first)
            wrong = -functional.logsigmoid(gained[pairs.fitting] - gained[pairs.unfit])
            plain = -(scores / tokens)[pairs.fitting]
            loss = ((wrong + options.plain * plain) * pairs.weights).sum() / len(group)
            loss.backward()  # type: ignore[no-untyped-call]
            practice.learn(model)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for part in adam.param_groups:
                part["lr"] = options.rate * min(1.0, (step + 1) / (WARM_UP * total), 1.5 * (total - step) / total)
            adam.step()
            adam.zero_grad(set_to_none=True)
            step += 1
        model.save(options.out, prompts.ends)
        right = watch(model, first, prompts, watched)
        print(f"round {number}: {right:.3f} of the pairs of {len(watched)} other messages in order, "
              f"{time.monotonic() - began:.0f} s", flush=True)  # fmt: skip


@torch.no_grad()
def watch(model: DemoModel, first: DemoModel, prompts: Prompts, judged: Sequence[Judged]) -> float:
    """The share of pairs whose fitting reply gained more than the other, as /chat reads them; each message counts 1."""
    right, reader = 0.0, Reader(prompts, Random(0))
    for one in judged:
        system, pairs = shipped(prompts), Pairs.of([one])
        gained = reader.scores(model, system, [one])[0] - reader.scores(first, system, [one])[0]
        right += float(((gained[pairs.fitting] > gained[pairs.unfit]) * pairs.weights).sum())
    return right / max(1, len(judged))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--begin", type=Path, default=Path("demo/checkpoint"), metavar="MODEL")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--verdicts", metavar="NAME", help="of the files to learn from, such as 5_fifth; all without --pairs"
    )
    parser.add_argument("--pairs", type=Path, metavar="FILE", help="of demo.pairs: learn from these")
    parser.add_argument("--rounds", type=int, default=1, help="through all messages")
    parser.add_argument("--replies", type=int, default=48, help="a step")
    parser.add_argument("--rate", type=float, default=3e-5, help="peak learning rate")
    parser.add_argument("--beta", type=float, default=1.0, help="how near it stays to the model it begins with")
    parser.add_argument("--plain", type=float, default=0.5, help="weight of the plain loss of fitting replies")
    parser.add_argument("--seed", type=int, default=7)
    prefer(parser.parse_args())


if __name__ == "__main__":
    main()
