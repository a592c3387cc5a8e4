"""Messages in, the model's own reply out, without a task between: what OpenAI's clients ask for. No Flask, no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from qwen_allinone.engine import Generate, Sampling
from qwen_allinone.errors import CheckpointError, ContextExceeded, EmptyInput, InvalidInput
from qwen_allinone.model.pieces import TextPieces
from qwen_allinone.service.allinone import AllInOne, Texts
from qwen_allinone.service.answers import Answer, Delta, Submitted, Watch, unwatched
from qwen_allinone.service.waiting import Reply, result_of
from qwen_allinone.tasks import Chat, is_blank

# What telemetry calls these answers, which come of no task.
COMPLETION = "completion"
# Tokens of a reply whose length nobody has set: clients of hosted models seldom set one, and here each takes its time.
DEFAULT_MAX_TOKENS = 512
# Below it a draw is the likeliest token anyway, and dividing by it would overflow.
_COLDEST = 0.01
# No real text has this many characters a token; what has is refused before it costs tokenizer time.
_MOST_CHARS_PER_TOKEN = 16

Message = tuple[str, str]  # role and content
Progress = Callable[[Submitted | Delta], None]


@dataclass(frozen=True)
class Wanted:
    """How a reply is to be made. `stop` texts end it and are not part of it; `max_tokens` None: as many as is usual."""

    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop: Sequence[str] = ()


class Completions:
    """Continues conversations on the service's engine. Thread-safe."""

    def __init__(self, service: AllInOne) -> None:
        self._service = service

    def create(
        self,
        messages: Sequence[Message],
        wanted: Wanted,
        *,
        deadline_s: float | None = None,
        watch: Watch = unwatched,
        progress: Progress | None = None,
    ) -> Answer:
        """The reply to `messages`. `progress` hears of it as it is made, in the caller's thread.

        Raises:
            ContextExceeded, InvalidInput: more than fits, or an order of roles that the model's template refuses.
            ServiceError: busy, not ready, too late, failed, given up.
        """
        with self._service.admitted(deadline_s, watch) as permit:
            texts = self._service.texts
            ids = chat_ids(messages, texts)
            reply = Reply(TextPieces(texts.tokenizer.decode, stops=wanted.stop, strip=False))
            work = Generate(ids, _sampling(wanted, _room(len(ids), wanted, texts)), texts.stop_ids, reply.hear)
            ticket = self._service.engine.submit(work, permit=permit)
            if progress:
                progress(Submitted())
            text = reply.until_done(ticket, progress)
            return Answer(COMPLETION, result_of(ticket), text=text)


def chat_ids(messages: Sequence[Message], texts: Texts, param: str = "messages") -> list[int]:
    """Token ids of a conversation, up to where the model's turn begins. Errors name `param`.

    Raises:
        EmptyInput: nothing is said in the last message. ContextExceeded: too long for any reply.
        InvalidInput: the model's template does not take these roles in this order.
    """
    if not messages or is_blank(messages[-1][1]):
        raise EmptyInput(param=param)
    characters = sum(len(content) for _, content in messages)
    if characters > texts.context * _MOST_CHARS_PER_TOKEN:
        raise ContextExceeded(
            f"{param} 太长（{characters} 个字符），上下文最多 {texts.context} 个 token，请缩短", param=param
        )
    try:
        ids = texts.tokenizer.encode_rendered(Chat(tuple(messages)))
    except CheckpointError:
        raise InvalidInput(f"模型的对话模板不接受这样的角色或顺序，请调整 {param}", param=param) from None
    if len(ids) >= texts.context:
        raise ContextExceeded(
            f"{param} 太长（{len(ids)} 个 token），上下文最多 {texts.context} 个 token，请缩短", param=param
        )
    return ids


def _room(prompt: int, wanted: Wanted, texts: Texts) -> int:
    """Tokens the reply may have."""
    left = texts.context - prompt
    if wanted.max_tokens is None:
        return min(left, DEFAULT_MAX_TOKENS)
    if wanted.max_tokens > left:
        raise ContextExceeded(
            f"messages 有 {prompt} 个 token，上下文最多 {texts.context} 个，"
            f"max_tokens 最多 {left}，请缩短 messages 或减小 max_tokens",
            param="max_tokens",
        )
    return wanted.max_tokens


def _sampling(wanted: Wanted, max_new_tokens: int) -> Sampling:
    greedy = wanted.temperature < _COLDEST or wanted.top_p == 0  # a nucleus of nothing is the likeliest token alone
    temperature = 0.0 if greedy else wanted.temperature
    return Sampling(max_new_tokens, temperature=temperature, top_p=wanted.top_p, seed=wanted.seed)
