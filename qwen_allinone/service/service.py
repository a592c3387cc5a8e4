"""The service: run a task, or a chat (sentiment, then a reply that knows it). No Flask, no torch."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

from qwen_allinone.engine import Engine, FinishReason, LabelTrie, Result
from qwen_allinone.errors import FormFailed, NotReady, RequestError
from qwen_allinone.service.answer_types import Answer, ChatAnswer, Remind, RouteAnswer, Terms
from qwen_allinone.service.codec import Codec
from qwen_allinone.service.detokenizer import TextPieces
from qwen_allinone.service.fitted_task import FittedTask
from qwen_allinone.service.gold_fit import GoldFit
from qwen_allinone.service.input_checks import check_length, prepare
from qwen_allinone.service.label_answer import Probabilities
from qwen_allinone.service.prompt_history import remember
from qwen_allinone.service.reply import Replies, Restoring
from qwen_allinone.service.request import MOST_AT_ONCE, Request
from qwen_allinone.service.result_cache import ResultCache, without_cost
from qwen_allinone.state import Statement, Turn
from qwen_allinone.tasks import CARE, CHAT, MEMORIES, ROUTE, Input, Masking, Registry, Task, chat_tasks, routes_of

log = logging.getLogger(__name__)

_NOTHING: Mapping[str, str] = {}


class Service:
    """Runs the registry's tasks on one engine. Thread-safe.

    What asks for an answer raises RequestError: a text is empty or too long, a task is unknown; ServiceError: busy, not
    ready, too late, failed, given up.
    """

    def __init__(
        self, registry: Registry, engine: Engine[Codec], *, deadline_s: float, cache: ResultCache | None = None
    ) -> None:
        """Raises TaskFileError: tasks that cannot play their part in /chat or /v1/route."""
        self.registry = registry
        self.engine = engine
        self._cache = cache
        self._deadline_s = deadline_s
        self._sentiment, self._chat = chat_tasks(registry)
        self._care = registry.get(CARE) if CARE in registry else None
        self._routes = routes_of(registry) if ROUTE in registry else {}

    @property
    def codec(self) -> Codec:
        """Of the checkpoint in use; raises NotReady where there is none."""
        return self.engine.published

    @contextmanager
    def request(self, terms: Terms) -> Iterator[Request]:
        """Be admitted, and ask the engine for as much as one answer takes. The only way to it."""
        deadline = time.monotonic() + min(terms.deadline_s or self._deadline_s, self._deadline_s)
        permit = self.engine.admit(deadline, terms.caller, behind=terms.behind, priority=terms.priority)
        with permit, terms.watch(permit.cancel):
            yield Request(self.engine, permit, terms)

    def run(
        self, name: str, inputs: Mapping[str, str], terms: Terms | None = None, *, seed: int | None = None
    ) -> Answer:
        """Run the task `name` on `inputs`, one string for each declared input."""
        task = self.registry.get(name)
        with self.request(terms or Terms()) as request:
            answer = self._run(request, task, inputs, seed=seed)
            request.terms.answers.append(answer)
            return answer

    def chat(
        self,
        text: str,
        terms: Terms | None = None,
        *,
        history: Sequence[Turn] = (),
        remind: Remind | None = None,
        seed: int | None = None,
    ) -> ChatAnswer:
        """Label the sentiment of `text`, then answer it after `history`, as one request.

        `remind` says which memories the reply is told; the labels are never told any.

        The labels may come from the cache. The reply is made anew: a conversation goes on from its tokens. Where the
        task `care` fires it is the vetted text, and nothing more is computed.
        """
        with self.request(terms or Terms()) as request:
            sentiment, care = self.label(request, text)
            told = self._mood(sentiment)
            if request.terms.listener:
                request.terms.listener.labelled(sentiment, care)
            recalled: tuple[Statement, ...] = ()
            if care and care.fired:
                reply, first = self._vetted(request, text), history[-1].first if history else 0
            else:
                known, recalled = self._known(request, text, told, remind(request, text) if remind else ())
                reply, first = self._reply(request, text, known, history, seed)
                request.terms.answers.append(reply)
            turn = Turn(text, str(sentiment.label), told, reply.text, reply.result.ids, first, at=time.time())
            heard = reply.task == CHAT and "sentiment" in self._chat.spec.inputs
            return ChatAnswer(sentiment, reply, turn, told if heard else None, care, recalled)

    def label(self, request: Request, text: str) -> tuple[Answer, Answer | None]:
        """The sentiment of what a user said, and what the task `care` says if there is one."""
        tasks = [self._sentiment, *([self._care] if self._care else [])]
        sentiment, *others = self._label_together(request, tasks, {"text": text})
        fired = [replace(care, fired=care.label == tasks[1].labels[0]) for care in others]
        request.terms.answers.extend([sentiment, *fired])
        return sentiment, fired[0] if fired else None

    @property
    def memories_input(self) -> Input | None:
        """How a prompt is told memories, as the task `chat` declares it; None if it does not."""
        return self._chat.spec.inputs.get(MEMORIES)

    def route(self, text: str, terms: Terms | None = None, *, seed: int | None = None) -> RouteAnswer:
        """Let the task `route` pick the task for `text`, and run that, as one request."""
        task = self.registry.get(ROUTE)
        with self.request(terms or Terms()) as request:
            choice = self._run(request, task, {"text": text})
            request.terms.answers.append(choice)
            picked = self.registry.get(self._routes[str(choice.label)])
            answer = self._run(request, picked, {"text": text}, seed=seed)
            request.terms.answers.append(answer)
            return RouteAnswer(choice, answer)

    def run_all(self, asked: Sequence[tuple[str, Mapping[str, str]]], terms: Terms | None = None) -> list[Answer]:
        """Run tasks, each a name and its inputs, side by side as one request; answers in order.

        The `index` of a RequestError is that of the task at fault.
        """
        tasks = [self.registry.get(name) for name, _ in asked]
        with self.request(terms or Terms()) as request:

            def run(index: int) -> Answer:
                try:
                    return self._run(request, tasks[index], asked[index][1])
                except RequestError as error:
                    error.index = index
                    raise

            answers: list[Future[Answer]] = []
            try:
                with ThreadPoolExecutor(MOST_AT_ONCE) as pool:
                    answers += [pool.submit(run, index) for index in range(len(asked))]
                    for answer in answers:
                        if answer.exception():
                            request.permit.cancel()  # the rest is of no use
                            break
            finally:
                for answer in answers:
                    if not answer.exception():
                        request.terms.answers.append(answer.result())
            return [answer.result() for answer in answers]

    def raw_probabilities(self, answer: Answer) -> Probabilities:
        """Probabilities of a label task's answer as they are before its temperature."""
        return self.codec.tasks[answer.task].raw_probabilities(answer)

    def gold_fits(self) -> dict[str, GoldFit]:
        """How the label tasks do on their gold cases; empty while there is no model."""
        try:
            tasks = self.codec.tasks
        except NotReady:
            return {}
        return {name: fitted.fit for name, fitted in tasks.items() if fitted.fit}

    def _run(self, request: Request, task: Task, inputs: Mapping[str, str], *, seed: int | None = None) -> Answer:
        """An answer of `task`, from the cache where the request allows that."""
        fitted, masking = request.codec.tasks[task.name], Masking() if task.spec.masks else None
        hidden = task.hidden(inputs, masking) if masking else inputs

        def compute() -> Result:
            return self._compute(request, task, fitted.prompt(hidden, _NOTHING), seed, masking)

        return self._cached(request, fitted, hidden, compute, masking)

    def _cached(
        self,
        request: Request,
        fitted: FittedTask,
        inputs: Mapping[str, str],
        compute: Callable[[], Result],
        masking: Masking | None = None,
    ) -> Answer:
        """`inputs` are as the model sees them: what is remembered or kept of an answer holds no hidden number."""
        use = request.terms.cache
        if self._cache is None or use is None or not fitted.cacheable:
            return replace(fitted.answer(compute(), masking), inputs=inputs)
        result, found = self._cache.run(fitted, inputs, request, compute)
        answer = replace(fitted.answer(result, masking), inputs=inputs)
        if found:
            return replace(answer, cache="HIT", result=without_cost(result))
        return replace(answer, cache="MISS")

    def _label_together(self, request: Request, tasks: Sequence[Task], inputs: Mapping[str, str]) -> list[Answer]:
        """Answers of label tasks on the same inputs: what is not remembered is computed in the same steps."""
        asked: dict[str, tuple[list[int], LabelTrie, str | None]] = {}
        results: dict[str, Result] = {}

        def look(left: Sequence[Task]) -> list[Answer]:
            # One is looked up within the other: after the last, all that is to be computed is known.
            if not left:
                results.update(request.classify_all(asked))
                return []
            fitted, later = request.codec.tasks[left[0].name], list[Answer]()
            hidden = left[0].hidden(inputs, Masking()) if left[0].spec.masks else inputs

            def compute() -> Result:
                assert fitted.trie is not None, "label tasks have labels"
                asked[fitted.task.name] = fitted.prompt(hidden, _NOTHING), fitted.trie, fitted.adapter
                later.extend(look(left[1:]))
                return results[fitted.task.name]

            answer = self._cached(request, fitted, hidden, compute)
            if fitted.task.name not in asked:
                later.extend(look(left[1:]))
            return [answer, *later]

        return look(tasks)

    def _mood(self, sentiment: Answer) -> str:
        """What a reply is told of a sentiment: its label, or the chat prompt's word for one that is unsure."""
        label, heard = str(sentiment.label), self._chat.spec.inputs.get("sentiment")
        if heard and heard.unsure and (sentiment.probabilities or {}).get(label, 0.0) < heard.unsure.below:
            return heard.unsure.name
        return label

    def _known(
        self, request: Request, text: str, mood: str, recalled: Sequence[Statement]
    ) -> tuple[Mapping[str, str], tuple[Statement, ...]]:
        """What the prompt of a reply is told beside the text, and those of the memories that it has room for."""
        spec, codec = self._chat.spec, request.codec
        known = {"sentiment": mood} if "sentiment" in spec.inputs else {}
        heard = self.memories_input
        if not recalled or heard is None:
            return known, ()
        alone = len(codec.tasks[CHAT].prompt({"text": text}, known))
        room = min(heard.max_tokens, codec.context - spec.decoding.max_new_tokens - alone)
        for count in range(len(recalled), 0, -1):
            block = heard.block([memory.text for memory in recalled[:count]])
            if len(codec.tokenizer.encode(block)) <= room:
                return known | {MEMORIES: block}, tuple(recalled[:count])
        return known, ()

    def _vetted(self, request: Request, text: str) -> Answer:
        """The reply where the task `care` fires. Nothing is computed for it."""
        assert self._care and self._care.vetted, "the loader sees to it"
        reply = self._care.vetted.reply_to(text)
        if request.terms.listener:
            request.terms.listener.delta(reply)
        nothing = Result(FinishReason.STOP, ids=(), prompt_tokens=0, reused_tokens=0)
        codec = request.codec
        return Answer(CARE, nothing, text=reply, model_id=codec.model_id, version=codec.tasks[CARE].version)

    def _reply(
        self, request: Request, text: str, known: Mapping[str, str], history: Sequence[Turn], seed: int | None
    ) -> tuple[Answer, int]:
        """The second half of a chat, and the number of the oldest turn in its prompt."""
        task, codec, first = self._chat, request.codec, 0
        fitted, masking = codec.tasks[CHAT], Masking() if task.spec.masks else None
        if masking:
            kinds = task.spec.masks["text"]
            history = [
                replace(turn, text=masking.hide(turn.text, kinds), response=masking.hide(turn.response, kinds))
                for turn in history
            ]
            text = task.hidden({"text": text}, masking)["text"]
        if not history:
            ids = fitted.prompt({"text": text}, known)
        else:
            prepared = prepare(task, "text", text)
            check_length(task, "text", prepared, codec.tokenizer)
            most = codec.context - task.spec.decoding.max_new_tokens
            prompt = remember(
                task, history, {"text": prepared, **known}, codec.tokenizer, most=most, restate=codec.late_system
            )
            ids, first = prompt.ids, prompt.first
        return fitted.answer(self._compute(request, task, ids, seed, masking), masking), first

    def _compute(
        self, request: Request, task: Task, prompt: list[int], seed: int | None, masking: Masking | None
    ) -> Result:
        fitted, listener = request.codec.tasks[task.name], request.terms.listener
        if fitted.trie is not None:
            return request.classify(task.name, prompt, fitted.trie, fitted.adapter)
        sampling = fitted.sampling if seed is None else replace(fitted.sampling, seed=seed)
        restoring = Restoring(listener, masking) if listener and masking and masking.words else None
        heard = restoring or listener
        reply = Replies([TextPieces(request.codec.tokenizer.decode)], heard) if heard else None
        form = request.codec.forms.begin(task.grammar) if task.grammar else None
        result = request.generate(task.name, prompt, sampling, reply, form, fitted.adapter)
        if restoring:
            restoring.end()
        if form and form.problem:
            log.error("%s: its schema takes too much to follow (%s)", task.name, form.problem)
            raise FormFailed()
        return result
