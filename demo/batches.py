"""Texts -> padded id rows behind a shared prefix, with the positions that are learned from.

Everything is drawn with one `Random`, whose state and the groups not yet taken are all that has to be kept to go on
after an interruption.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple

import torch
from torch import Tensor

from demo.buckets import Bucket
from demo.corpus.dialogues import CALM, NEGATIVE, POSITIVE, Dialogue, Turn
from demo.corpus.frames import Frames
from demo.corpus.jobs.sample import Sample
from demo.corpus.pools import Pool
from demo.prompts import Prompts, Seams
from demo.variations import Variations
from qwen_allinone.tasks import clean

# Nothing but repeating random tokens teaches a network of this size to copy, and what it writes is mostly copied. So it
# begins with such drills alone, at first of a few tokens (beside anything else they teach nothing), by the prompts of
# these tasks; for some time afterwards every second turn of the further tasks is one, lest it be forgotten.
DRILLED = ("summary", "keywords")
SHORT, LONG = 4, 20  # tokens of a drill at most: at first, in the end
MASTERED = 1.5  # mean loss of drills that lets longer ones follow
LONGEST, LONGEST_CONVERSATION = 260, 480  # tokens
NAMED_WEIGHT = 2.0  # a reply's words taken from the text: without this, replies name a topic, but any topic
OWN_WORDS, OWN_WORDS_WEIGHT = 0.25, 0.5  # of the user's words: how people write is worth learning too
COMMON = "的，。！？了你我是这在一不,.!?心里让真好也都就有很"  # shared by chance
SHIPPED = 0.6  # label batches with the shipped prompt, the rest with other wordings
# Conversations by the door they come through: the service's chat prompt, no system prompt, any other.
DOORS, DOOR_WEIGHTS = ("chat", "none", "other"), (50, 20, 30)
TOLD = {POSITIVE: (POSITIVE, CALM), NEGATIVE: (NEGATIVE, CALM), CALM: (CALM, CALM)}
# Moods told as 平静, and drawn at random, as a classifier will err: most of all on what is neither.
UNSURE, MISTAKEN = 0.1, {POSITIVE: 0.03, NEGATIVE: 0.03, CALM: 0.25}
STRANGE_MEMORIES = 0.12  # conversations that are told something of the user that has nothing to do with them
OWN_TIMES = 2  # how much oftener those conversations are read than there are of them
FRAMED, FRAMED_OWN = 0.99, 0.6  # replies that are frames; in conversations with a system prompt of their own
FRAME_LENGTH = 20  # tokens of a usual one
EVEN, MOST_TIMES = 250, 4  # messages of each kind that stand alone, if the rare ones stand at most so many times
# Messages whose topic is exchanged for another message's, mostly of the same kind: a reply that names it has to copy,
# since nothing can be learned by heart.
EXCHANGED, OF_ANY_KIND = 0.5, 0.15
# Replies that are a frame of another kind, of which the first tokens are not learned: whatever a reply begins with, it
# is to be finished as it began.
STRAYED, UNLEARNED = 0.05, 4
RECITED = 0.12  # of the batches of conversations: recitals instead
PROCESSES = 1000  # at most; seeds of batches that are drawn side by side differ by less
STRUNG = 0.06  # batches of conversations that follow upon another of another subject

Learned = tuple[int, int, int, float]  # row, position, token to predict, weight
Told = tuple[int, int, int]  # row, position, number of what is told of the message that ends there


class Tokens(NamedTuple):
    """About how many a batch has."""

    moods: int
    talk: int
    jobs: int
    messages: int


@dataclass
class Plan:
    """What is learned from the rows of a batch: tokens; the kinds of messages; which text of the pool a message is."""

    learned: list[Learned] = field(default_factory=list)
    kinds: list[Told] = field(default_factory=list)
    texts: list[Told] = field(default_factory=list)


@dataclass(frozen=True)
class Batch:
    """Rows [rows, length] to read behind `prefix`; what to predict at flat positions, and how much each counts.

    `filled` [rows, length] is 1 where a row has a token of the text and 0 elsewhere.
    """

    prefix: Tensor
    rows: Tensor
    filled: Tensor
    positions: Tensor
    targets: Tensor
    weights: Tensor

    @property
    def tokens(self) -> int:
        return self.rows.numel()


@dataclass(frozen=True)
class MoodBatch(Batch):
    """Texts whose mood is learned: `shares` [rows] of 正面, `vectors` [rows, 384] of the teacher."""

    shares: Tensor
    vectors: Tensor


@dataclass(frozen=True)
class ChatBatch(Batch):
    """Conversations: `kinds` of the users' messages, by number, at flat positions `answered`, where the reply begins.

    Of some messages the teacher's `vectors` [messages, 384] are known; their replies begin at flat positions `meant`.
    """

    answered: Tensor
    kinds: Tensor
    meant: Tensor
    vectors: Tensor


class Batches:
    """Draws batches for one process."""

    def __init__(
        self,
        prompts: Prompts,
        pool: Pool,
        dialogues: Sequence[Dialogue],
        jobs: dict[str, list[Sample]],
        seed: int,
        tokens: Tokens,
        frames: Mapping[str, Frames],
    ) -> None:
        self.prompts, self.pool, self.jobs, self._frames = prompts, pool, jobs, frames
        self._kind_numbers = {kind: number for number, kind in enumerate(frames)}
        self.rng = Random(seed)
        # The same in every process: batches of one sort take equally long, and nobody waits for the other.
        self._alike = Random(seed // PROCESSES)
        self._vary = Variations(prompts, self.rng)
        self._tokens = tokens
        self._moods = Bucket([_length(text) + 8 for text in pool.texts], tokens.moods, self.rng)
        self._kinds: dict[str, list[Dialogue]] = {}
        for dialogue in _evened(dialogues):
            own = dialogue.system or dialogue.memories
            self._kinds.setdefault("own" if own else dialogue.turns[0].mood, []).append(dialogue)
        self._chats = {
            kind: Bucket([_chat_length(dialogue) for dialogue in part], tokens.talk, self.rng)
            for kind, part in self._kinds.items()
        }
        self._firsts = {
            kind: [d.turns[0] for d in part if d.turns[0].kind] for kind, part in self._kinds.items() if kind != "own"
        }
        self._messages = {
            kind: Bucket([_length(turn.texts[0]) + 5 for turn in part], tokens.messages, self.rng)
            for kind, part in self._firsts.items()
        }
        self._jobs = {
            name: Bucket([_length(s.text) + _length(s.answer) + 8 for s in samples], tokens.jobs, self.rng)
            for name, samples in jobs.items()
        }
        self._common = set(prompts.tokenizer.encode(COMMON))
        self._topics = _topics_by_kind(dialogues)
        self._memories = sorted({memory for dialogue in dialogues for memory in dialogue.memories})
        self._numbers = {text: number for number, text in enumerate(pool.texts)}
        self._longest_drill = SHORT

    def state(self) -> dict[str, Any]:
        """All that changes from batch to batch."""
        kept = {name: (bucket.left, bucket.groups) for name, bucket in self._buckets().items()}
        drawn = {"rng": self.rng.getstate(), "alike": self._alike.getstate()}
        return drawn | {"buckets": kept, "longest_drill": self._longest_drill}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state`, which holds for the same texts only."""
        self.rng.setstate(state["rng"])
        self._alike.setstate(state["alike"])
        for name, bucket in self._buckets().items():
            bucket.left, bucket.groups = state["buckets"].get(name, ([], []))
        self._longest_drill = state["longest_drill"]

    def _buckets(self) -> dict[str, Bucket]:
        messages = {f"messages {kind}": bucket for kind, bucket in self._messages.items()}
        return {"moods": self._moods, **self._chats, **messages, **self._jobs}

    def moods(self) -> MoodBatch:
        """Texts whose share of 正面 is learned at the last position of each row."""
        chosen = self._moods.take()
        seams = self._seams("sentiment")
        texts = [self._vary.blur(self._vary.encode(self.pool.texts[number]))[:LONGEST] for number in chosen]
        rows = [text + seams.after for text in texts]
        first = self.prompts.labels[POSITIVE][0]
        plan = [(number, len(row) - 1, first, 1.0) for number, row in enumerate(rows)]
        batch = self._batch(seams.before, rows, plan, [len(text) for text in texts])
        return MoodBatch(**vars(batch), shares=self.pool.shares[chosen], vectors=self.pool.vectors[chosen].float())

    def job(self, name: str) -> Batch:
        """Texts and answers of one of the further tasks: a label's token, or every token of what is to be written."""
        samples = [self.jobs[name][number] for number in self._jobs[name].take()]
        task = self.prompts.tasks[name]
        if name == "suggest":  # what stands before the text says which kind of message it is
            kind = self.rng.choice([sample.about for sample in samples])
            samples = [sample for sample in samples if sample.about == kind]
            seams = Seams(*self.prompts.cut(task, label=kind[0], intent=kind[1]))
        else:
            seams = self._seams(name) if task.labels else Seams(*self.prompts.cut(task))
        # What is written is copied or looked up token by token: only texts that are judged are blurred.
        encode = (
            (lambda text: self._vary.blur(self._vary.encode(text))) if task.labels else self.prompts.tokenizer.encode
        )
        texts = [encode(sample.text)[:LONGEST] for sample in samples]
        return self._written(seams, texts, [self.prompts.answer(task, sample.answer) for sample in samples])

    def drill(self, name: str, loss: float) -> Batch:
        """Random tokens and their copy, in the place of a text and the answer of the task `name`.

        `loss` is that of the drills before: when they are mastered, longer ones follow.
        """
        if loss < MASTERED:
            self._longest_drill = min(self._longest_drill + 1, LONG)
        pairs = [self._drill(name) for _ in range(self._tokens.jobs // (2 * self._longest_drill + 8))]
        seams = Seams(*self.prompts.cut(self.prompts.tasks[name]))
        return self._written(seams, [text for text, _ in pairs], [answer for _, answer in pairs])

    def talk(self) -> ChatBatch:
        """Conversations, or a recital."""
        return self.recital() if self._alike.random() < RECITED else self.chat()

    def chat(self) -> ChatBatch:
        """Conversations; every token of a reply and the end of its turn are learned.

        They begin in one mood and share a system prompt that may tell it; but where a system prompt is a conversation's
        own, or tells what is known of its user, it stands in the row.
        """
        rng = self.rng
        shares = [len(part) * (OWN_TIMES if kind == "own" else 1) for kind, part in self._kinds.items()]
        [kind] = self._alike.choices(list(self._kinds), shares)
        chosen = [self._kinds[kind][number] for number in self._chats[kind].take()]
        [door] = self._alike.choices(DOORS, DOOR_WEIGHTS)
        brief = door == "other" and kind != "own" and rng.random() < 0.1
        rows, plan = list[list[int]](), Plan()
        if kind == "own":
            head = self.prompts.conversation("x").before[: self.prompts.system_starts]
            for dialogue in chosen:
                mood = self._told(dialogue.turns[0].mood)
                write = self._system_writer(door, dialogue.system, list(dialogue.memories), brief)
                row = self.prompts.conversation(write(mood)).before[len(head) :]
                restated = write if door == "chat" else None
                framed = FRAMED_OWN if dialogue.system else FRAMED
                self._conversation(row, dialogue.turns, mood, restated, brief, framed, len(rows), plan)
                rows.append(row)
            return self._chat_batch(head, rows, plan)
        mood = self._told(kind)
        known = rng.sample(self._memories, rng.choice((1, 2, 3))) if self._strange() else []
        write = self._system_writer(door, "", known, brief)
        strung = rng.random() < STRUNG
        for dialogue in chosen[: len(chosen) // 2 + 1] if strung else chosen:
            turns, row = [*dialogue.turns], list[int]()
            if strung:
                turns += rng.choice(self._kinds[rng.choice([k for k in self._kinds if k != "own"])]).turns
            restated = write if door == "chat" else None
            self._conversation(row, turns, mood, restated, brief, FRAMED, len(rows), plan)
            rows.append(row)
        return self._chat_batch(self.prompts.conversation(write(mood)).before, rows, plan)

    def messages(self) -> ChatBatch:
        """First messages, of which the kind and the teacher's vector are learned, and of a reply its first token.

        What takes a network of this size longest is to understand messages that it has not read. Rows without replies
        are a third as long, so it meets far more of them.
        """
        kinds = [kind for kind, part in self._firsts.items() if part]
        [kind] = self._alike.choices(kinds, [len(self._firsts[kind]) for kind in kinds])
        [door] = self._alike.choices(DOORS, DOOR_WEIGHTS)
        write = self._system_writer(door, "", [], brief=False)
        rows, plan, mood = list[list[int]](), Plan(), self._told(kind)
        for number in self._messages[kind].take():
            row = list[int]()
            self._conversation(row, [self._firsts[kind][number]], mood, None, False, FRAMED, len(rows), plan, most=1)
            rows.append(row)
        return self._chat_batch(self.prompts.conversation(write(mood)).before, rows, plan)

    def recital(self) -> ChatBatch:
        """Frames of any kind after a message that is a topic alone: rows are short, so that each frame comes more often.

        How they begin is not learned.
        """
        rng, encode, end = self.rng, self.prompts.tokenizer.encode, self.prompts.ends[1]
        rows, plan, kinds = list[list[int]](), Plan(), list(self._frames)
        while sum(map(len, rows)) < self._tokens.talk:
            topic = rng.choice(self._topics[""] or ["雨"])
            row = self._vary.encode(topic) + self.prompts.to_reply
            reply = [*encode(self._frames[rng.choice(kinds)].draw(topic, rng)), end]
            plan.learned += [
                (len(rows), len(row) - 1 + i, token, 1.0) for i, token in enumerate(reply) if i >= UNLEARNED
            ]
            rows.append(row + reply)
        write = self._system_writer(rng.choice(DOORS), "", [], brief=False)
        mood = rng.choice((POSITIVE, NEGATIVE, CALM))
        return self._chat_batch(self.prompts.conversation(write(mood)).before, rows, plan)

    def _chat_batch(self, prefix: list[int], rows: list[list[int]], plan: Plan) -> ChatBatch:
        rows = [row[:LONGEST_CONVERSATION] for row in rows]
        batch = self._batch(prefix, rows, [item for item in plan.learned if item[1] < LONGEST_CONVERSATION])
        answered, kinds = _flat(plan.kinds, batch.rows.shape[1])
        meant, numbers = _flat(plan.texts, batch.rows.shape[1])
        vectors = self.pool.vectors[numbers].float()
        return ChatBatch(**vars(batch), answered=answered, kinds=kinds, meant=meant, vectors=vectors)

    def _strange(self) -> bool:
        return len(self._memories) > 3 and self.rng.random() < STRANGE_MEMORIES

    def _system_writer(self, door: str, own: str, memories: list[str], brief: bool) -> Callable[[str], str]:
        """The system prompt by the mood that it tells."""
        if own:
            return lambda mood: own
        if door == "chat":
            return lambda mood: self.prompts.shipped_system(mood, memories)
        if door == "none" and not memories:
            return lambda mood: ""
        made = self.prompts.system("{mood}", memories, self.rng, brief=brief)
        return lambda mood: made.replace("{mood}", mood)

    def _conversation(
        self,
        row: list[int],
        turns: Sequence[Turn],
        shown: str,
        restated: Callable[[str], str] | None,
        brief: bool,
        framed: float,
        number: int,
        plan: Plan,
        most: int | None = None,
    ) -> None:
        """Adds a conversation to `row`, behind a system prompt that tells the mood `shown`, and to `plan` what is
        learned. `restated`: the system prompt is repeated when the mood changes; `framed`: share of frames;
        `most`: tokens of a reply."""
        rng, encode, end = self.rng, self.prompts.tokenizer.encode, self.prompts.ends[1]
        for place, turn in enumerate(turns):
            if place:
                told = self._told(turn.mood) if restated else shown
                row += self.prompts.late_system(restated(told)) if restated and told != shown else self.prompts.to_user
                shown = told
            written = rng.choice(turn.texts)
            chosen, topic = self._exchanged(turn, written)
            text = self._vary.encode(self._vary.typed(chosen))
            if rng.random() < OWN_WORDS:
                plan.learned += [(number, len(row) + i, token, OWN_WORDS_WEIGHT) for i, token in enumerate(text[1:])]
            row += text + self.prompts.to_reply
            if turn.kind:
                plan.kinds.append((number, len(row) - 1, self._kind_numbers[turn.kind]))
            if chosen == written and (known := self._numbers.get(clean(written))) is not None:
                plan.texts.append((number, len(row) - 1, known))
            said, strayed = self._reply_to(turn, topic, framed)
            reply = [*encode(_first_sentence(said) if brief else said), end][:most]
            named = set(text) - self._common
            plan.learned += [
                (number, len(row) - 1 + i, token, NAMED_WEIGHT if token in named else 1.0)
                for i, token in enumerate(reply)
                if not (strayed and i < UNLEARNED)
            ]
            row += reply

    def _exchanged(self, turn: Turn, text: str) -> tuple[str, str]:
        """`text` and its topic, "" if it has none; or both with another topic."""
        topic, rng = turn.topic if turn.topic in text else "", self.rng
        if not topic or turn.replies or rng.random() > EXCHANGED:
            return text, topic
        other = rng.choice(self._topics["" if rng.random() < OF_ANY_KIND else turn.kind])
        if other.isascii() != topic.isascii():
            return text, topic
        return text.replace(topic, other), other

    def _reply_to(self, turn: Turn, topic: str, framed: float) -> tuple[str, bool]:
        """A written reply, or a frame of the turn's kind; whether it is one of another kind instead."""
        rng = self.rng
        if turn.kind and (not turn.replies or rng.random() < framed):
            strayed = rng.random() < STRAYED and not turn.recall
            kind = rng.choice(list(self._frames)) if strayed else turn.kind
            return self._frames[kind].draw(topic, rng, turn.recall), strayed
        return rng.choice(turn.replies), False

    def _told(self, mood: str) -> str:
        draw, mistaken = self.rng.random(), MISTAKEN[mood]
        if draw < mistaken:
            return self.rng.choice((POSITIVE, NEGATIVE, CALM))
        return TOLD[mood][draw < mistaken + UNSURE]

    def _seams(self, name: str) -> Seams:
        """The shipped prompt of a label task, or another wording of it with examples."""
        if self.rng.random() < SHIPPED:
            return Seams(*self.prompts.cut(self.prompts.tasks[name]))
        return self.prompts.other_wording(name, self._examples(name), self.rng)

    def _examples(self, name: str) -> list[tuple[str, str]]:
        if name != "sentiment":
            return [(sample.text, sample.answer) for sample in self.rng.sample(self.jobs[name], 8)]
        numbers = [self.rng.randrange(len(self.pool)) for _ in range(24)]
        sure = [(number, float(self.pool.shares[number])) for number in numbers]
        return [
            (self.pool.texts[n], POSITIVE if share > 0.5 else NEGATIVE) for n, share in sure if abs(share - 0.5) > 0.4
        ]

    def _written(self, seams: Seams, texts: list[list[int]], answers: list[list[int]]) -> Batch:
        rows, plan = list[list[int]](), list[Learned]()
        for text, answer in zip(texts, answers, strict=True):
            start = text + seams.after
            plan += [(len(rows), len(start) - 1 + i, token, 1.0) for i, token in enumerate(answer)]
            rows.append(start + answer[:-1])
        return self._batch(seams.before, rows, plan, [len(text) for text in texts])

    def _drill(self, name: str) -> tuple[list[int], list[int]]:
        """A sentence to be repeated whole, or, for keywords, words between commas to be listed."""
        encode, end, top = self.prompts.tokenizer.encode, self.prompts.ends[1], self.prompts.ends[0]
        ids = [self.rng.randrange(256, top) for _ in range(self.rng.randint(1, self._longest_drill))]
        if name == "summary":
            ids += encode("。")
            return ids, [*ids, end]
        text, answer = list[int](), list[int]()
        for place, token in enumerate(ids):
            if place and self.rng.random() < 0.4:
                text += encode("，")
                answer += encode("、")
            text.append(token)
            answer.append(token)
        return text, [*answer, end]

    def _batch(
        self, prefix: list[int], rows: list[list[int]], plan: list[Learned], texts: list[int] | None = None
    ) -> Batch:
        length = max(map(len, rows))
        padded = [row + [self.prompts.ends[0]] * (length - len(row)) for row in rows]
        return Batch(
            torch.tensor(prefix),
            torch.tensor(padded),
            torch.tensor([[1.0] * count + [0.0] * (length - count) for count in texts or [len(row) for row in rows]]),
            torch.tensor([row * length + place for row, place, _, _ in plan], dtype=torch.long),
            torch.tensor([target for _, _, target, _ in plan], dtype=torch.long),
            torch.tensor([weight for _, _, _, weight in plan], dtype=torch.float),
        )


def _flat(told: list[Told], length: int) -> tuple[Tensor, Tensor]:
    """Positions in rows of this length laid end to end, and numbers; of messages that were not cut off."""
    kept = [(row * length + place, number) for row, place, number in told if place < length]
    positions, numbers = zip(*kept, strict=True) if kept else ((), ())
    return torch.tensor(positions, dtype=torch.long), torch.tensor(numbers, dtype=torch.long)


def _length(text: str) -> int:
    """About how many tokens a text has."""
    return int(len(text) * 0.75) + 1


def _evened(dialogues: Sequence[Dialogue]) -> list[Dialogue]:
    """Conversations of one turn several times where few are of its kind: what is written least is often said first."""
    counts = Counter(dialogue.turns[0].kind for dialogue in dialogues if len(dialogue.turns) == 1)
    times = {kind: max(1, min(MOST_TIMES, round(EVEN / count))) for kind, count in counts.items()}
    return [d for d in dialogues for _ in range(times[d.turns[0].kind] if len(d.turns) == 1 else 1)]


def _topics_by_kind(dialogues: Sequence[Dialogue]) -> dict[str, list[str]]:
    """The topics of all messages by kind; those of all kinds under ""."""
    topics: dict[str, list[str]] = {"": []}
    for turn in (turn for dialogue in dialogues for turn in dialogue.turns):
        if turn.topic:
            topics[""].append(turn.topic)
            topics.setdefault(turn.kind, []).append(turn.topic)
    return topics


def _chat_length(dialogue: Dialogue) -> int:
    replies = (_length(turn.replies[0]) if turn.replies else FRAME_LENGTH for turn in dialogue.turns)
    return sum(_length(turn.texts[0]) + 14 for turn in dialogue.turns) + sum(replies)


def _first_sentence(text: str) -> str:
    end = min((i for mark in "。！？!?" if (i := text.find(mark)) > 0), default=len(text) - 1)
    return text[: end + 1]
