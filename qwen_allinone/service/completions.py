"""Messages in, the model's own reply out, without a task between: what OpenAI's clients ask for. No Flask, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from qwen_allinone.engine import Sampling
from qwen_allinone.errors import CheckpointError, ContextExceeded, EmptyInput, InvalidInput
from qwen_allinone.model.tokenizer import Layout
from qwen_allinone.service.answer_types import Answer, Terms
from qwen_allinone.service.codec import Codec
from qwen_allinone.service.detokenizer import TextPieces
from qwen_allinone.service.grammar_forms import GrammarForm
from qwen_allinone.service.reply import Replies
from qwen_allinone.service.request import Request
from qwen_allinone.service.service import Service
from qwen_allinone.tasks import MOST_CHARS_PER_TOKEN, is_blank
from qwen_allinone.wording import said

# What telemetry calls these answers, which come of no task.
COMPLETION = "completion"
# Tokens of a reply whose length nobody has set: clients of hosted models seldom set one, and here each takes its time.
DEFAULT_MAX_TOKENS = 512
# Below it a draw is the likeliest token anyway, and dividing by it would overflow.
_COLDEST = 0.01

Utterance = tuple[str, str]  # role and content


@dataclass(frozen=True)
class Wanted:
    """What replies are to be like. Each of `stops` ends one and is not part of it. With a `grammar` (of
    json_schema.grammar_of) they follow it, unless they are cut; `form_field` is what asked for it. `choices`: how many
    of them."""

    sampling: Sampling
    stops: Sequence[str] = ()
    grammar: str | None = None
    choices: int = 1
    form_field: str = "response_format"


def complete(
    service: Service, messages: Sequence[Utterance], wanted: Wanted, terms: Terms, param: str = "messages"
) -> list[Answer]:
    """The replies to `messages`; the context cuts `max_new_tokens`. Errors name `param`.

    Raises:
        ContextExceeded, InvalidInput: more than fits, an order of roles that the model's template refuses, a biased
            token that there is none, or a grammar that takes too much to follow.
        ServiceError: busy, not ready, too late, failed, given up.
    """
    with service.request(terms) as request:
        return replies_to(request, [checked_ids(messages, wanted, request.codec, param)], wanted)


def checked_ids(messages: Sequence[Utterance], wanted: Wanted, codec: Codec, param: str = "messages") -> list[int]:
    """Token ids of the messages, once all is checked that can be before anything is computed; raises as `complete`."""
    if messages and messages[-1][0] == "assistant":
        raise InvalidInput(said("last_is_model", param=param), param=param)
    _check_biases(wanted, codec)
    return chat_ids(messages, codec, param)


def continue_texts(
    service: Service, prompts: Sequence[str | Sequence[int]], wanted: Wanted, terms: Terms
) -> list[Answer]:
    """What the bare model would write after each prompt, a text or token ids; `wanted.choices` of each, in order.

    Raises:
        EmptyInput, ContextExceeded, InvalidInput: nothing to go on from, more than fits, or ids that are no tokens; and
            as `complete`.
    """
    with service.request(terms) as request:
        _check_biases(wanted, request.codec)
        return replies_to(request, [prompt_ids(prompt, request.codec) for prompt in prompts], wanted)


def text_ids(text: str, codec: Codec, param: str = "prompt") -> list[int]:
    """Token ids of a bare text. Raises ContextExceeded for more characters than are worth tokenizer time."""
    if len(text) > codec.context * MOST_CHARS_PER_TOKEN:
        raise _too_long(param, said("characters", count=len(text)), codec)
    return codec.tokenizer.encode(text)


def prompt_ids(prompt: str | Sequence[int], codec: Codec, param: str = "prompt", beside: int = 0) -> Sequence[int]:
    """Token ids of a text or of themselves, with room for one token more and `beside`. Errors name `param`.

    Raises:
        EmptyInput, ContextExceeded, InvalidInput: nothing, more than fits, or ids that are no tokens.
    """
    if isinstance(prompt, str):
        prompt = text_ids(prompt, codec, param)
    elif not codec.tokenizer.ids.issuperset(prompt):
        raise InvalidInput(said("ids_unknown", param=param), param=param)
    if not prompt:
        raise EmptyInput(param=param)
    if len(prompt) + beside >= codec.context:
        raise _too_long(param, said("tokens", count=len(prompt)), codec)
    return prompt


def _check_biases(wanted: Wanted, codec: Codec) -> None:
    if not codec.tokenizer.ids.issuperset([token for token, _ in wanted.sampling.logit_bias]):
        raise InvalidInput(said("bias_unknown"), param="logit_bias")


def replies_to(request: Request, prompts: Sequence[Sequence[int]], wanted: Wanted) -> list[Answer]:
    """The replies to each prompt, one after the other; what they cost is noted. Prompts and biases are checked."""
    codec, terms = request.codec, request.terms
    asked = list[tuple[Sequence[int], Sampling, GrammarForm | None]]()
    for ids in prompts:
        sampling = _within(wanted.sampling, codec.context - len(ids))
        for number in range(wanted.choices):
            own = sampling if sampling.seed is None else replace(sampling, seed=sampling.seed + number)
            asked.append((ids, own, codec.forms.begin(wanted.grammar) if wanted.grammar else None))
    pieces = [TextPieces(codec.tokenizer.decode, stops=wanted.stops, strip=False) for _ in asked]
    replies = Replies(pieces, terms.listener)
    results = request.generate_all(COMPLETION, asked, replies)
    answers = [
        Answer(COMPLETION, result, text=text, model_id=codec.model_id)
        for result, text in zip(results, replies.texts, strict=True)
    ]
    terms.answers.extend(answers)
    for problem in [form.problem for _, _, form in asked if form and form.problem]:
        raise InvalidInput(said("schema_complex", problem=problem), param=wanted.form_field)
    return answers


def chat_ids(messages: Sequence[Utterance], codec: Codec, param: str = "messages") -> list[int]:
    """Token ids of a conversation, up to where the model's turn begins. Errors name `param`.

    Raises:
        EmptyInput: nothing is said in the last message. ContextExceeded: too long for any reply.
        InvalidInput: the model's template does not take these roles in this order.
    """
    if not messages or is_blank(messages[-1][1]):
        raise EmptyInput(param=param)
    ids = conversation_ids(messages, codec, param)
    if len(ids) >= codec.context:
        raise _too_long(param, said("tokens", count=len(ids)), codec)
    return ids


def conversation_ids(messages: Sequence[Utterance], codec: Codec, param: str = "messages") -> list[int]:
    """Token ids of a conversation of any length; raises as `chat_layout`."""
    return codec.tokenizer.encode_layout(chat_layout(messages, codec, param), [content for _, content in messages])


def chat_layout(messages: Sequence[Utterance], codec: Codec, param: str) -> Layout:
    """The model's template around the messages. Errors name `param`.

    Raises:
        ContextExceeded: more characters than the context's tokens can be; they are not worth tokenizer time.
        InvalidInput: the template does not take these roles in this order.
    """
    characters = sum([len(content) for _, content in messages])
    if characters > codec.context * MOST_CHARS_PER_TOKEN:
        raise _too_long(param, said("characters", count=characters), codec)
    try:
        return codec.tokenizer.layout(tuple([role for role, _ in messages]))
    except CheckpointError:
        raise InvalidInput(said("template_refuses", param=param), param=param) from None


def _too_long(param: str, size: str, codec: Codec) -> ContextExceeded:
    return ContextExceeded(said("context_exceeded", param=param, size=size, context=codec.context), param=param)


def _within(sampling: Sampling, most_tokens: int) -> Sampling:
    """`sampling` for a reply of `most_tokens` at most. A nucleus of nothing is the likeliest token alone."""
    greedy = sampling.temperature < _COLDEST or sampling.top_p == 0
    return replace(
        sampling,
        max_new_tokens=min(most_tokens, sampling.max_new_tokens),
        temperature=0.0 if greedy else sampling.temperature,
    )
