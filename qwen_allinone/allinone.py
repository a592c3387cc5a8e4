"""The service: run a task, or a chat (sentiment, then a reply that knows it). No Flask, no torch."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import Empty, SimpleQueue

from qwen_allinone import calibration
from qwen_allinone.caching import CacheUse, ResultCache, is_cacheable, without_cost
from qwen_allinone.engine import Classify, Engine, Generate, LabelTrie, Permit, Result, Sampling, Status, Ticket
from qwen_allinone.engine.request import Work
from qwen_allinone.errors import (
    DeadlineExceeded,
    EmptyInput,
    InputTooLong,
    InvalidInput,
    NotReady,
    RequestError,
    TaskFileError,
)
from qwen_allinone.history import Remembered, remember, reply_text, takes_late_system
from qwen_allinone.model.checkpoint import Checkpoint
from qwen_allinone.model.pieces import TextPieces
from qwen_allinone.model.tokenizer import Tokenizer
from qwen_allinone.state import Turn
from qwen_allinone.tasks import Decoding, Registry, Task, clean, render

log = logging.getLogger(__name__)

SENTIMENT = "sentiment"
CHAT = "chat"

# No real text has this many characters a token; what has is refused before it costs tokenizer time.
_MOST_CHARS_PER_TOKEN = 16
# How long a caller waits past its deadline for the engine to say so itself.
_GRACE_S = 2.0
# Inputs with nothing to judge: what a prompt answers to them is what it prefers by itself.
_CONTENT_FREE = ("", "N/A", "无")

# How many tasks of one request are computed together: others find a slot beside them.
_AT_ONCE = 4

# Given a way to give a request up, watches whether its caller is still there for as long as the context lasts.
Watch = Callable[[Callable[[], None]], AbstractContextManager[None]]


@dataclass(frozen=True)
class Submitted:
    """What was asked has been checked and the engine has it; now it takes its time."""


@dataclass(frozen=True)
class Delta:
    """The next piece of a reply, and how many tokens were generated for it."""

    text: str
    tokens: int


# What one may hear of a chat while it is made, first that it was submitted.
Progress = Callable[["Submitted | Answer | Delta"], None]


def unwatched(_: Callable[[], None]) -> AbstractContextManager[None]:
    """The `Watch` for a caller that cannot leave."""
    return nullcontext()


@dataclass(frozen=True)
class Answer:
    """What a task said. `label` and `probabilities` (by label) for label tasks, `text` for free text."""

    task: str
    result: Result
    text: str = ""
    label: str | None = None
    emoji: str | None = None
    probabilities: Mapping[str, float] | None = None
    cache: str | None = None  # HIT or MISS, None where the cache was not asked


@dataclass(frozen=True)
class ChatAnswer:
    """A sentiment and the reply that was given knowing it; `turn` is both as a session keeps them."""

    sentiment: Answer
    reply: Answer
    turn: Turn


@dataclass(frozen=True)
class Texts:
    """What reading and writing texts takes of a checkpoint. `context` is the longest sequence in tokens."""

    tokenizer: Tokenizer
    stop_ids: frozenset[int]
    context: int


@dataclass(frozen=True)
class _Bound:
    """What running the tasks takes of a checkpoint, made once it is loaded.

    Not the model: a failed request's traceback holds this, and a model must be gone before the next is loaded.
    """

    tokenizer: Tokenizer
    stop_ids: frozenset[int]
    tries: Mapping[str, LabelTrie]
    context: int
    late_system: bool
    temperatures: Mapping[str, float]
    priors: Mapping[str, calibration.Probabilities] = field(default_factory=dict)


class AllInOne:
    """Runs the registry's tasks on one engine. Thread-safe."""

    def __init__(self, registry: Registry, *, deadline_s: float, cache: ResultCache | None = None) -> None:
        self.registry = registry
        self.model_id = ""  # of the checkpoint bound last: its name, what is in it, how its weights are kept
        self._cache = cache
        self._contextual = [task for task in registry if task.spec.output.contextual]
        self._deadline_s = deadline_s
        self._engine: Engine | None = None
        self._checkpoint: Checkpoint | None = None
        self._bound: _Bound | None = None
        _check_chat(registry)

    def attach(self, engine: Engine) -> None:
        """The engine that will run the tasks; it calls `bind` when it has loaded."""
        self._engine = engine

    def bind(self, checkpoint: Checkpoint, name: str = "model") -> list[list[int]]:
        """Fit the tasks to a checkpoint's tokens; returns the fixed beginnings of the prompts.

        `name` is what clients may know of where the checkpoint lies.
        """
        tokenizer = checkpoint.tokenizer
        tries = {task.name: _label_trie(task, tokenizer) for task in self.registry if task.labels}
        prefixes = [fixed_prefix(task, tokenizer) for task in self.registry]
        for task, prefix in zip(self.registry, prefixes, strict=True):
            _check_room(task, len(prefix), checkpoint.model.context)
        self.model_id = f"{name}@{checkpoint.identity}"
        self._checkpoint = checkpoint
        self._bound = _Bound(
            tokenizer,
            checkpoint.stop_ids,
            tries,
            context=checkpoint.model.context,
            late_system=takes_late_system(tokenizer),
            temperatures={task.name: _temperature(task, checkpoint.identity) for task in self.registry},
        )
        return [prefix for prefix in prefixes if prefix]

    def first_works(self) -> list[Work]:
        """What the engine has to compute before requests, for `learn`: the contextual tasks on nothing to judge."""
        bound, context = self._bound, self.texts.context
        assert bound is not None, "bind() comes first"
        works: list[Work] = []
        for task in self._contextual:
            for word in _CONTENT_FREE:
                ids = bound.tokenizer.encode_rendered(render(task, dict.fromkeys(task.spec.inputs, word)))
                _check_room(task, len(ids), context)
                works.append(Classify(ids, bound.tries[task.name]))
        return works

    def learn(self, results: Sequence[Result]) -> None:
        """Take the results of `first_works`."""
        bound, each = self._bound, len(_CONTENT_FREE)
        assert bound is not None, "bind() comes first"
        groups = [results[start : start + each] for start in range(0, len(results), each)]
        priors = {
            task.name: calibration.mean([result.probabilities for result in group])
            for task, group in zip(self._contextual, groups, strict=True)
        }
        self._bound = replace(bound, priors=priors)

    def unbind(self) -> None:
        """Let go of the checkpoint: before another is loaded, since memory is for one model."""
        self._checkpoint = self._bound = None

    @property
    def engine(self) -> Engine:
        assert self._engine is not None, "attach() comes first"
        return self._engine

    @property
    def checkpoint(self) -> Checkpoint:
        """The checkpoint in use; raises NotReady before it is loaded."""
        checkpoint = self._checkpoint
        if checkpoint is None or self.engine.status is not Status.READY:
            raise NotReady()
        return checkpoint

    @property
    def texts(self) -> Texts:
        """Of the checkpoint in use, for who is admitted; raises NotReady where there is none."""
        checkpoint = self._checkpoint
        if checkpoint is None:
            raise NotReady()
        return Texts(checkpoint.tokenizer, checkpoint.stop_ids, checkpoint.model.context)

    def chat(
        self,
        text: str,
        *,
        history: Sequence[Turn] = (),
        deadline_s: float | None = None,
        seed: int | None = None,
        watch: Watch = unwatched,
        progress: Progress | None = None,
        cache: CacheUse | None = None,
    ) -> ChatAnswer:
        """Label the sentiment of `text`, then answer it after `history`, as one request; `deadline_s` bounds both.

        `progress` hears of it as it is made, in the caller's thread. `cache`: how remembered sentiments may be
        used, None: not at all; the reply is made anew, for a conversation goes on from its tokens.

        Raises:
            RequestError: the text is empty or too long. ServiceError: busy, not ready, too late, failed, given up.
        """
        with self.admitted(deadline_s, watch) as permit:
            sentiment = self._run(self.registry.get(SENTIMENT), {"text": text}, permit, None, progress, cache)
            if progress:
                progress(sentiment)
            inputs = {"text": text}
            chat = self.registry.get(CHAT)
            if "sentiment" in chat.spec.inputs:
                inputs["sentiment"] = str(sentiment.label)
            if not history:
                reply, first = self._run(chat, inputs, permit, seed, progress), 0
            else:
                bound = self._loaded()
                prompt = _remembered(chat, inputs, bound, history)
                reply = _answer(chat, self._compute(chat, prompt.ids, bound, permit, seed, progress), bound)
                first = prompt.first
            return ChatAnswer(sentiment, reply, _turn(text, sentiment, reply, first))

    def run(
        self,
        name: str,
        inputs: Mapping[str, str],
        *,
        deadline_s: float | None = None,
        seed: int | None = None,
        watch: Watch = unwatched,
        cache: CacheUse | None = None,
    ) -> Answer:
        """Run the task `name` on `inputs`, one string for each declared input; `cache` as in `chat`.

        Raises:
            UnknownTask, and what `chat` raises.
        """
        task = self.registry.get(name)
        with self.admitted(deadline_s, watch) as permit:
            return self._run(task, inputs, permit, seed, cache=cache)

    @contextmanager
    def admitted(self, seconds: float | None, watch: Watch) -> Iterator[Permit]:
        """One place for the whole request: a chat is not turned away between its two halves."""
        deadline = time.monotonic() + min(seconds or self._deadline_s, self._deadline_s)
        with self.engine.admit(deadline) as permit, watch(permit.cancel):
            yield permit

    def _run(
        self,
        task: Task,
        inputs: Mapping[str, str],
        permit: Permit,
        seed: int | None = None,
        progress: Progress | None = None,
        cache: CacheUse | None = None,
    ) -> Answer:
        bound = self._loaded()

        def compute() -> Result:
            ids = bound.tokenizer.encode_rendered(render(task, prepare(task, inputs, bound.tokenizer)))
            return self._compute(task, ids, bound, permit, seed, progress)

        if self._cache is None or cache is None or not is_cacheable(task):
            return _answer(task, compute(), bound)
        result, found = self._cache.run(task, inputs, self.model_id, cache, permit, compute)
        answer = replace(_answer(task, result, bound), cache="HIT" if found else "MISS")
        return replace(answer, result=without_cost(result)) if found else answer

    def untempered(self, answer: Answer) -> calibration.Probabilities:
        """Probabilities of a label task's answer as they are before its temperature."""
        bound = self._bound
        prior = bound.priors.get(answer.task) if bound else None
        return calibration.calibrated(answer.result.probabilities, prior, 1.0)

    def _compute(
        self,
        task: Task,
        ids: list[int],
        bound: _Bound,
        permit: Permit,
        seed: int | None,
        progress: Progress | None,
    ) -> Result:
        if trie := bound.tries.get(task.name):
            return self._ask(Classify(ids, trie), permit, progress)
        reply = _Heard(bound.tokenizer, progress) if progress else None
        work = Generate(ids, _sampling(task.spec.decoding, seed), bound.stop_ids, reply.put if reply else None)
        return self._ask(work, permit, progress, reply)

    def _loaded(self) -> _Bound:
        bound = self._bound
        if bound is None:
            raise NotReady()
        return bound

    def _ask(self, work: Work, permit: Permit, progress: Progress | None = None, reply: _Heard | None = None) -> Result:
        ticket = self.engine.submit(work, permit=permit)
        if progress:
            progress(Submitted())
        if reply:
            reply.tell_until_done(ticket)
        return result_of(ticket)

    def run_all(
        self,
        asked: Sequence[tuple[str, Mapping[str, str]]],
        *,
        deadline_s: float | None = None,
        watch: Watch = unwatched,
    ) -> list[Answer]:
        """Run tasks, each a name and its inputs, side by side as one request; answers in their order.

        Raises:
            What `run` raises; the `place` of a RequestError is that of the task at fault.
        """
        tasks = [self.registry.get(name) for name, _ in asked]
        with self.admitted(deadline_s, watch) as permit, ThreadPoolExecutor(_AT_ONCE) as pool:

            def run(place: int) -> Answer:
                try:
                    return self._run(tasks[place], asked[place][1], permit)
                except RequestError as error:
                    error.place = place
                    raise

            try:
                return list(pool.map(run, range(len(asked))))
            except Exception:
                permit.cancel()  # the rest is of no use
                raise


def _remembered(task: Task, inputs: Mapping[str, str], bound: _Bound, history: Sequence[Turn]) -> Remembered:
    """The prompt for inputs that are checked here, after as much of `history` as leaves room for the answer."""
    room = bound.context - task.spec.decoding.max_new_tokens
    prepared = prepare(task, inputs, bound.tokenizer)
    return remember(task, history, prepared, bound.tokenizer, room=room, restate=bound.late_system)


def _turn(text: str, sentiment: Answer, reply: Answer, first: int) -> Turn:
    return Turn(text, str(sentiment.label), reply.text, reply.result.ids, first, at=time.time())


class _Heard:
    """A reply on its way from the engine's thread, token by token, to who wants to hear of it as text."""

    def __init__(self, tokenizer: Tokenizer, progress: Progress) -> None:
        self._pieces = TextPieces(tokenizer.decode)
        self._progress = progress
        self._tokens: SimpleQueue[int | None] = SimpleQueue()
        self.put = self._tokens.put

    def tell_until_done(self, ticket: Ticket) -> None:
        """Returns when no more tokens come: the request has ended, well or not, or the engine is stuck."""
        ticket.future.add_done_callback(lambda _: self.put(None))
        untold = 0
        with suppress(Empty):
            while (token := self._tokens.get(timeout=patience_s(ticket))) is not None:
                untold += 1
                if piece := self._pieces.push(token):
                    self._progress(Delta(piece, untold))
                    untold = 0
        if (piece := self._pieces.end()) or untold:
            self._progress(Delta(piece, untold))


def result_of(ticket: Ticket) -> Result:
    """Wait for the answer; raises what the request ended with instead."""
    try:
        return ticket.future.result(timeout=patience_s(ticket))
    except TimeoutError:
        # The engine ends expired requests itself; it did not, so it is stuck in a step.
        raise DeadlineExceeded() from None


def patience_s(ticket: Ticket) -> float:
    """How long to wait for something of a request before the engine must be stuck, in seconds."""
    assert ticket.deadline is not None
    return max(ticket.deadline - time.monotonic(), 0.0) + _GRACE_S


def prepare(task: Task, inputs: Mapping[str, str], tokenizer: Tokenizer) -> dict[str, str]:
    """Check the inputs of a task and clean them if it asks for that."""
    return {name: _prepare_one(task, name, inputs[name], tokenizer) for name in task.spec.inputs}


def fixed_prefix(task: Task, tokenizer: Tokenizer) -> list[int]:
    """The token ids all prompts of `task` begin with.

    Found by comparing prompts whose inputs differ from the first character, since the tokens at the
    seam depend on the text.
    """
    one, other = (
        tokenizer.encode_rendered(render(task, dict.fromkeys(task.spec.inputs, probe))) for probe in ("中文", "Zq 7")
    )
    length = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return one[:length]


def _prepare_one(task: Task, name: str, text: str, tokenizer: Tokenizer) -> str:
    most = task.spec.inputs[name].max_tokens
    _check_characters(name, text, most)
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidInput(f"{name} 含有不成对的 UTF-16 代理字符，请发送有效的 UTF-8 文本", param=name)
    cleaned = clean(text)
    if not cleaned:  # nothing that can be seen
        raise EmptyInput(param=name)
    if task.spec.clean:
        text = cleaned
        _check_characters(name, text, most)  # one character may have become eighteen
    count = len(tokenizer.encode(text))
    if count > most:
        raise InputTooLong(f"{name} 太长（{count} 个 token），最多 {most} 个 token，请缩短后再试", param=name)
    return text


def _check_characters(name: str, text: str, most: int) -> None:
    if len(text) > most * _MOST_CHARS_PER_TOKEN:
        raise InputTooLong(f"{name} 太长（{len(text)} 个字符），最多 {most} 个 token，请缩短后再试", param=name)


def _answer(task: Task, result: Result, bound: _Bound) -> Answer:
    if task.labels:
        return _label_answer(task, result, bound.priors.get(task.name), bound.temperatures[task.name])
    return Answer(task.name, result, text=reply_text(bound.tokenizer, result.ids))


def _label_answer(
    task: Task, result: Result, prior: calibration.Probabilities | None = None, temperature: float = 1.0
) -> Answer:
    assert result.label is not None
    shares = calibration.calibrated(result.probabilities, prior, temperature)
    # Without a prior the order is the engine's, which goes by tokens where labels share some.
    best = task.spec.output.labels[result.label if prior is None else shares.index(max(shares))]
    probabilities = dict(zip(task.labels, shares, strict=True))
    unknown = task.spec.output.unknown
    if unknown and max(shares) < unknown.below:
        return Answer(task.name, result, label=unknown.name, probabilities=probabilities)
    return Answer(task.name, result, label=best.name, emoji=best.emoji, probabilities=probabilities)


def _temperature(task: Task, model: str) -> float:
    """What was fitted for this task, this prompt and this model; else 1."""
    fitted = task.calibration
    if fitted is None:
        return 1.0
    for what, was, now in (("prompt", fitted.prompt, task.prompt_hash), ("model", fitted.model, model)):
        if was != now:
            log.warning(
                "%s: calibration.yaml is not used: it was fitted on another %s (%s, not %s); calibrate again",
                task.name, what, was, now,
            )  # fmt: skip
            return 1.0
    return fitted.temperature


def _label_trie(task: Task, tokenizer: Tokenizer) -> LabelTrie:
    ids = tuple(tuple(tokenizer.encode(label)) for label in task.labels)
    most = task.spec.decoding.max_new_tokens
    for label, tokens in zip(task.labels, ids, strict=True):
        if len(tokens) > most:
            raise _label_error(task, f"label {label!r} has {len(tokens)} tokens, decoding.max_new_tokens is {most}")
    try:
        return LabelTrie(ids)
    except ValueError as error:
        raise _label_error(task, str(error)) from None


def _check_room(task: Task, fixed: int, context: int) -> None:
    """A prompt that leaves no room for a text would be refused on every request."""
    most = task.spec.decoding.max_new_tokens
    if fixed + most >= context:
        problem = f"has {fixed} fixed tokens and up to {most} of answer, which fill the context of {context}"
        raise TaskFileError(Path(task.name) / "prompt.md", "(body)", problem, "shorten it or raise QAIO_CONTEXT")


def _label_error(task: Task, problem: str) -> TaskFileError:
    return TaskFileError(Path(task.name) / "prompt.md", "output.labels", problem, "choose other label names")


def _sampling(decoding: Decoding, seed: int | None) -> Sampling:
    greedy = decoding.strategy == "greedy"
    return Sampling(
        max_new_tokens=decoding.max_new_tokens,
        temperature=0.0 if greedy else decoding.temperature,
        top_p=decoding.top_p,
        top_k=decoding.top_k,
        repetition_penalty=decoding.repetition_penalty,
        seed=seed,
    )


def _check_chat(registry: Registry) -> None:
    """/chat is made of two tasks; say at startup if one of them cannot play its part."""
    for name in (SENTIMENT, CHAT):
        if name not in registry:
            file = Path(name) / "prompt.md"
            raise TaskFileError(file, "(folder)", "is missing, and /chat needs it", f"add the task {name}")
    sentiment, chat = registry.get(SENTIMENT), registry.get(CHAT)
    for task, kind, allowed in ((sentiment, "label", {"text"}), (chat, "text", {"text", "sentiment"})):
        file = Path(task.name) / "prompt.md"
        if task.spec.output.kind != kind:
            raise TaskFileError(file, "output.kind", "does not suit /chat", f"write `kind: {kind}`")
        if "text" not in task.spec.inputs or set(task.spec.inputs) - allowed:
            raise TaskFileError(file, "inputs", "do not suit /chat", f"use only {', '.join(sorted(allowed))}")
