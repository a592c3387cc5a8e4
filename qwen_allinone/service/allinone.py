"""The service: run a task, or a chat (sentiment, then a reply that knows it). No Flask, no torch."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from qwen_allinone.engine import Engine, Permit, Result, Status
from qwen_allinone.engine.request import Work
from qwen_allinone.errors import NotReady, RequestError, TaskFileError
from qwen_allinone.model.checkpoint import Checkpoint
from qwen_allinone.model.pieces import TextPieces
from qwen_allinone.model.tokenizer import Tokenizer
from qwen_allinone.service import calibration
from qwen_allinone.service.answers import (
    Answer,
    ChatAnswer,
    Progress,
    RouteAnswer,
    Submitted,
    Watch,
    unwatched,
)
from qwen_allinone.service.binding import Bound, bind
from qwen_allinone.service.caching import CacheUse, ResultCache, is_cacheable, without_cost
from qwen_allinone.service.waiting import Reply, result_of
from qwen_allinone.state import Turn
from qwen_allinone.tasks import ROUTE, Registry, Task, routes_of

SENTIMENT = "sentiment"
CHAT = "chat"

# How many tasks of one request are computed together: others find a slot beside them.
_AT_ONCE = 4


@dataclass(frozen=True)
class Texts:
    """What reading and writing texts takes of a checkpoint. `context` is the longest sequence in tokens."""

    tokenizer: Tokenizer
    stop_ids: frozenset[int]
    context: int


class AllInOne:
    """Runs the registry's tasks on one engine. Thread-safe."""

    def __init__(self, registry: Registry, *, deadline_s: float, cache: ResultCache | None = None) -> None:
        self.registry = registry
        self.model_id = ""  # of the checkpoint bound last: its name, what is in it, how its weights are kept
        self._cache = cache
        self._deadline_s = deadline_s
        self._engine: Engine | None = None
        self._checkpoint: Checkpoint | None = None
        self._bound: Bound | None = None
        _check_chat(registry)
        self._routes = routes_of(registry) if ROUTE in registry else {}

    def attach(self, engine: Engine) -> None:
        """The engine that will run the tasks; it calls `bind` when it has loaded."""
        self._engine = engine

    def bind(self, checkpoint: Checkpoint, name: str = "model") -> list[list[int]]:
        """Fit the tasks to a checkpoint's tokens; returns the fixed beginnings of the prompts.

        `name` is what clients may know of where the checkpoint lies.
        """
        self._bound, prefixes = bind(self.registry, checkpoint)
        self.model_id = f"{name}@{checkpoint.identity}"
        self._checkpoint = checkpoint
        return prefixes

    def first_works(self) -> list[Work]:
        """What the engine has to compute before requests, for `learn`."""
        return self._loaded().first_works()

    def learn(self, results: Sequence[Result]) -> None:
        """Take the results of `first_works`."""
        self._bound = self._loaded().learned(results)

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
                prompt = bound.conversation(chat, inputs, history)
                reply = bound.answer(chat, self._compute(chat, prompt.ids, bound, permit, seed, progress))
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

    def route(
        self,
        text: str,
        *,
        deadline_s: float | None = None,
        seed: int | None = None,
        watch: Watch = unwatched,
        cache: CacheUse | None = None,
    ) -> RouteAnswer:
        """Let the task `route` pick the task for `text`, and run that, as one request; `cache` as in `chat`.

        Raises:
            UnknownTask if there is no task `route`, and what `chat` raises.
        """
        task = self.registry.get(ROUTE)
        with self.admitted(deadline_s, watch) as permit:
            choice = self._run(task, {"text": text}, permit, cache=cache)
            picked = self.registry.get(self._routes[str(choice.label)])
            return RouteAnswer(choice, self._run(picked, {"text": text}, permit, seed, cache=cache))

    def run_all(
        self,
        asked: Sequence[tuple[str, Mapping[str, str]]],
        *,
        deadline_s: float | None = None,
        watch: Watch = unwatched,
        cache: CacheUse | None = None,
    ) -> list[Answer]:
        """Run tasks, each a name and its inputs, side by side as one request; answers in order; `cache` as in `chat`.

        Raises:
            What `run` raises; the `place` of a RequestError is that of the task at fault.
        """
        tasks = [self.registry.get(name) for name, _ in asked]
        with self.admitted(deadline_s, watch) as permit, ThreadPoolExecutor(_AT_ONCE) as pool:

            def run(place: int) -> Answer:
                try:
                    return self._run(tasks[place], asked[place][1], permit, cache=cache)
                except RequestError as error:
                    error.place = place
                    raise

            try:
                return list(pool.map(run, range(len(asked))))
            except Exception:
                permit.cancel()  # the rest is of no use
                raise

    def untempered(self, answer: Answer) -> calibration.Probabilities:
        """Probabilities of a label task's answer as they are before its temperature."""
        return self._loaded().untempered(answer)

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
            return self._compute(task, bound.prompt(task, inputs), bound, permit, seed, progress)

        if self._cache is None or cache is None or not is_cacheable(task):
            return bound.answer(task, compute())
        result, found = self._cache.run(task, inputs, self.model_id, cache, permit, compute)
        answer = replace(bound.answer(task, result), cache="HIT" if found else "MISS")
        return replace(answer, result=without_cost(result)) if found else answer

    def _compute(
        self,
        task: Task,
        ids: list[int],
        bound: Bound,
        permit: Permit,
        seed: int | None,
        progress: Progress | None,
    ) -> Result:
        reply = Reply(TextPieces(bound.tokenizer.decode)) if progress and not task.labels else None
        work = bound.work(task, ids, seed, reply.hear if reply else None)
        ticket = self.engine.submit(work, permit=permit)
        if progress:
            progress(Submitted())
        if reply:
            reply.until_done(ticket, progress)
        return result_of(ticket)

    def _loaded(self) -> Bound:
        bound = self._bound
        if bound is None:
            raise NotReady()
        return bound


def _turn(text: str, sentiment: Answer, reply: Answer, first: int) -> Turn:
    return Turn(text, str(sentiment.label), reply.text, reply.result.ids, first, at=time.time())


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
