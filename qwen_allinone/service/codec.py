"""All that text takes of one checkpoint: texts become token ids, token ids become answers. Made at load, then fixed."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from qwen_allinone.engine import Compute, Loaded
from qwen_allinone.engine.slots import common_prefix
from qwen_allinone.errors import TaskFileError
from qwen_allinone.model.checkpoint import Checkpoint
from qwen_allinone.model.lora import load_adapter
from qwen_allinone.model.sampling_defaults import SamplingDefaults
from qwen_allinone.model.tokenizer import Tokenizer
from qwen_allinone.service.fitted_task import (
    FittedTask,
    cut_prompt,
    encode_pieces,
    is_cacheable,
    label_trie,
    sampling,
    temperature,
)
from qwen_allinone.service.fitting import CONTENT_FREE, UNFITTED, Fitting, fit_tasks
from qwen_allinone.service.grammar_forms import Forms
from qwen_allinone.service.prompt_history import takes_late_system
from qwen_allinone.tasks import Registry, Task, short_hash
from qwen_allinone.wording import said

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Codec:
    """The tokenizer of a checkpoint and the tasks in its tokens. The engine publishes it together with the model.

    `stop_ids` end a reply; `sampling_defaults`: how replies are drawn where a request does not say. `forms` makes
    replies follow a grammar. `context` is the longest sequence in tokens.
    `model_id` is the checkpoint's name, what is in its files and how its weights are kept. `late_system`: the chat
    template shows a system message that is not the first. It holds no model: a failed request's traceback holds this,
    and a model must be gone before the next is loaded.
    """

    tokenizer: Tokenizer
    stop_ids: frozenset[int]
    sampling_defaults: SamplingDefaults
    forms: Forms
    context: int
    folder: Path
    model_id: str
    late_system: bool
    tasks: Mapping[str, FittedTask]


def fit(
    registry: Registry, checkpoint: Checkpoint, name: str, title: str, fitting: Fitting = UNFITTED
) -> Loaded[Codec]:
    """Fit the tasks to a checkpoint: what the engine serves. `name` is what clients may know of the checkpoint.

    Raises:
        TaskFileError: labels or a prompt that do not go with the checkpoint's tokens or context.
    """
    _adapt(registry, checkpoint, name)
    tokenizer, context = checkpoint.tokenizer, checkpoint.model.context
    model_id = f"{name}@{checkpoint.identity}"

    def fitted(task: Task, form: str = "") -> FittedTask:
        return fit_task(task, tokenizer, context, checkpoint.identity, model_id, form)

    tasks = {task.name: fitted(task) for task in registry}
    plain = (
        {}
        if fitting.how == "off"
        else {name: fitted(form, " plain") for name, form in ((task.name, task.as_plain) for task in registry) if form}
    )
    prefixes = [fixed_prefix(one) for one in (*tasks.values(), *plain.values())]
    of_tasks = list(zip((*tasks.values(), *plain.values()), prefixes, strict=True))
    fixed = list[tuple[Task, int]]()
    for one, prefix in of_tasks:
        nothing = [one.encode(dict.fromkeys(one.task.spec.inputs, word)) for word in CONTENT_FREE]
        contextual = one.task.spec.output.contextual or fitting.how == "contextual"
        fixed.append((one.task, max(map(len, nothing)) if contextual else len(prefix)))
    _check_fit(fixed, context)
    late_system = takes_late_system(tokenizer)
    forms = Forms(tokenizer, checkpoint.stop_ids)
    codec = Codec(
        tokenizer,
        checkpoint.stop_ids,
        checkpoint.sampling_defaults,
        forms,
        context,
        checkpoint.folder,
        model_id,
        late_system,
        tasks,
    )

    def publish(compute: Compute) -> Codec:
        cases = {task.name: registry.cases(task.name) for task in registry}
        return replace(codec, tasks=fit_tasks(tasks, plain, cases, fitting, compute))

    shared = [prefix for one, prefix in of_tasks if prefix and not one.adapter]
    adapted = {one.adapter: prefix for one, prefix in of_tasks if prefix and one.adapter}
    return Loaded(checkpoint.model, publish, shared, adapted, title)


def _adapt(registry: Registry, checkpoint: Checkpoint, name: str) -> None:
    """Load the adapters that lie beside prompts, each under the name of its task."""
    config, fingerprint = checkpoint.model.config, checkpoint.identity.partition(":")[0]
    for task in registry:
        if task.adapter:
            adapter = load_adapter(task.adapter, config, fingerprint, (name, checkpoint.name, checkpoint.folder.name))
            checkpoint.model.adapt(task.name, adapter)
            log.info("%s: computed with an adapter of rank %d (%s)", task.name, adapter.rank, task.adapter.digest)


def fixed_prefix(fitted: FittedTask) -> list[int]:
    """The token ids all prompts of a task begin with.

    Found by comparing prompts whose inputs differ from the first character, since the tokens at the seam depend on
    the text.
    """
    one, other = (fitted.encode(dict.fromkeys(fitted.task.spec.inputs, probe)) for probe in ("中文", "Zq 7"))
    return one[: common_prefix(one, other)]


def fit_task(
    task: Task, tokenizer: Tokenizer, context: int, identity: str, model_id: str, form: str = ""
) -> FittedTask:
    """A task in the tokens of a checkpoint, which need not be loaded. `form` tells its other forms from it."""
    pieces = cut_prompt(task, tokenizer)
    return FittedTask(
        task=task,
        tokenizer=tokenizer,
        context=context,
        pieces=pieces,
        fixed=len(encode_pieces(pieces, dict.fromkeys(task.spec.inputs, ""), tokenizer)),
        sampling=sampling(task),
        trie=label_trie(task, tokenizer),
        temperature=temperature(task, identity),
        model_id=model_id,
        version=short_hash(f"{task.version}{form}") if form else task.version,
        cacheable=is_cacheable(task),
    )


def _check_fit(prompts: Sequence[tuple[Task, int]], context: int) -> None:
    """A prompt that leaves nothing for a text would be refused on every request. `prompts`: with their fixed tokens."""
    enough = 1 + max((fixed + task.spec.decoding.max_new_tokens for task, fixed in prompts), default=0)
    for task, fixed in prompts:
        most = task.spec.decoding.max_new_tokens
        if fixed + most >= context:
            problem = said("prompt_fills_context", fixed=fixed, most=most, context=context)
            fix = said("shorten_or_raise", enough=enough)
            raise TaskFileError(Path(task.name) / "prompt.md", "(body)", problem, fix)
