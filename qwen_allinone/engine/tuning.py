"""Teaches a checkpoint an adapter (LoRA, Hu et al. 2021) from examples in token ids, with transformers and peft.

The service itself needs neither: they are imported here, when somebody tunes (requirements-tune.txt).
"""

from __future__ import annotations

import json
import math
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from qwen_allinone.engine.label_trie import LabelScores, LabelTrie
from qwen_allinone.engine.slots import common_prefix
from qwen_allinone.errors import TuningError
from qwen_allinone.files import replace_file
from qwen_allinone.tasks.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, BASE
from qwen_allinone.wording import said

_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")
_WARM_UP = 0.1  # share of all rounds
_LARGEST_SLOPE = 1.0


@dataclass(frozen=True)
class Example:
    """A prompt and what is to follow it: a label's tokens, or a text's with the token that ends it."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """How an adapter is taught. `epochs` at most: after `patience` of them without a gain it ends."""

    rank: int = 8
    epochs: int = 5
    batch: int = 8
    learning_rate: float = 5e-4
    patience: int = 2
    seed: int = 0
    threads: int = 1


@dataclass(frozen=True)
class Quality:
    """How held-out examples are answered: the mean loss of their answers in nats, and of labels the share right."""

    loss: float
    accuracy: float | None = None

    def beats(self, other: Quality) -> bool:
        """More are right; where as many are, or nothing is to be right, what was wanted is likelier."""
        mine, others = self.accuracy or 0.0, other.accuracy or 0.0
        if not math.isfinite(self.loss):  # the weights have run away
            return False
        return mine > others or (mine == others and self.loss < other.loss)


# Hears of each round: how many are done, of how many at most.
OnRound = Callable[[int, int], None]


class Tuner:
    """A checkpoint and the adapter that it is taught."""

    def __init__(self, checkpoint: Path, base: str, fingerprint: str, trie: LabelTrie | None, plan: Plan) -> None:
        """`trie`: the labels, None where examples are texts. `base` and `fingerprint` are noted in the adapter.

        Raises:
            TuningError: peft or transformers is not installed.
        """
        try:
            import peft
            from transformers import AutoModelForCausalLM, DynamicCache
            from transformers.utils import logging as noise
        except ImportError as error:
            needs = "tune needs peft and transformers: pip install -r requirements-tune.txt"
            raise TuningError(said("needs_more", needs=needs, error=error)) from None
        torch.manual_seed(plan.seed)
        noise.disable_progress_bar()  # type: ignore[no-untyped-call]
        noise.set_verbosity_error()  # type: ignore[no-untyped-call]
        config = peft.LoraConfig(
            r=plan.rank, lora_alpha=2 * plan.rank, target_modules=list(_TARGETS), task_type="CAUSAL_LM"
        )
        with warnings.catch_warnings():  # each of the two uses what the other has renamed
            warnings.simplefilter("ignore")
            model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, use_safetensors=True)
            self._peft: Any = peft.get_peft_model(model, config)
        self._state: Callable[[Any], dict[str, Tensor]] = peft.get_peft_model_state_dict
        self._new_cache: Callable[[], Any] = DynamicCache
        self._config, self._base, self._fingerprint = config, base, fingerprint
        self._trie, self._plan = trie, plan

    def epochs(self, examples: Sequence[Example], held_out: Sequence[Example], hear: OnRound) -> Iterator[Quality]:
        """Teach from `examples`; yields how `held_out` are answered, before the first epoch and after each.

        Nothing is written: `save` does, between two epochs.
        """
        torch.set_num_threads(self._plan.threads)
        plan, chooser = self._plan, random.Random(self._plan.seed)
        best, since = self.quality(held_out), 0
        yield best
        rounds = plan.epochs * math.ceil(len(examples) / plan.batch)
        weights = [weight for weight in self._peft.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=plan.learning_rate, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: _pace(done, rounds))
        done = 0
        for _ in range(plan.epochs):
            order = list(examples)
            chooser.shuffle(order)
            for first in range(0, len(order), plan.batch):
                loss = self._loss(order[first : first + plan.batch])
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(weights, _LARGEST_SLOPE)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
                done += 1
                hear(done, rounds)
            found = self.quality(held_out)
            best, since = (found, 0) if found.beats(best) else (best, since + 1)
            yield found
            if since >= plan.patience:
                return

    @torch.no_grad()
    def quality(self, examples: Sequence[Example]) -> Quality:
        """How `examples` are answered as the adapter is now."""
        losses, right = list[float](), list[bool]()
        for first in range(0, len(examples), self._plan.batch):
            part = examples[first : first + self._plan.batch]
            if self._trie is None:
                losses += [float(self._loss([example])) for example in part]
                continue
            for example, scores in zip(part, self._scores(part, self._trie), strict=True):
                label = self._trie.labels.index(example.answer)
                losses.append(-math.log(max(scores.probabilities()[label], 1e-300)))
                right.append(scores.greedy() == label)
        return Quality(sum(losses) / len(losses), sum(right) / len(right) if right else None)

    def save(self, folder: Path) -> None:
        """Write the adapter as PEFT does, each file whole; raises TuningError where that cannot be."""
        tensors = {name: tensor.detach().contiguous() for name, tensor in self._state(self._peft).items()}
        config = self._config.to_dict() | {"base_model_name_or_path": self._base, "inference_mode": True}
        text = json.dumps(config, indent=2, sort_keys=True, default=lambda value: sorted(value))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            metadata = {"format": "pt", BASE: self._fingerprint}
            replace_file(folder / ADAPTER_WEIGHTS, safetensors.torch.save(tensors, metadata))
            replace_file(folder / ADAPTER_CONFIG, text.encode())
        except OSError as error:
            raise TuningError(said("out_folder_unwritable", folder=folder, strerror=error.strerror)) from None

    def _loss(self, examples: Sequence[Example]) -> Tensor:
        """The mean, in nats, of what was to be answered: of a label's tokens among those that some label allows."""
        hidden = self._hidden(examples, [example.answer[:-1] for example in examples])
        losses = list[Tensor]()
        for example, rows in zip(examples, hidden, strict=True):
            answers = rows[-len(example.answer) :]
            if self._trie is None:
                losses.append(F.cross_entropy(self._head(answers), torch.tensor(example.answer)))
                continue
            steps = list[Tensor]()
            for depth, token in enumerate(example.answer):
                choices = self._trie.branches.get(example.answer[:depth])
                if choices:  # a forced token costs nothing
                    logits = self._head(answers[depth])[list(choices)]
                    steps.append(F.cross_entropy(logits, torch.tensor(choices.index(token))))
            losses.append(torch.stack(steps).sum())
        return torch.stack(losses).mean()

    def _scores(self, examples: Sequence[Example], trie: LabelTrie) -> list[LabelScores]:
        """What each example's prompt makes of the labels, as the service asks for it."""
        scores = [LabelScores(trie) for _ in examples]
        for branch, choices in trie.branches.items():
            hidden = self._hidden(examples, [branch] * len(examples))
            for of_one, rows in zip(scores, hidden, strict=True):
                of_one.add(branch, self._head(rows[-1])[list(choices)])
        return scores

    def _head(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self._peft.get_base_model().lm_head(hidden)
        return logits

    def _hidden(self, examples: Sequence[Example], answers: Sequence[tuple[int, ...]]) -> list[Tensor]:
        """The last hidden states, the last token of the prompt's at least, of each example with (part of) an answer.

        What all prompts begin with is computed once for all.

        Gradients flow through that too: it is the same function, only not computed again for each.
        """
        prompts = [example.prompt for example in examples]
        begins = min(common_prefix(min(prompts), max(prompts)), min(map(len, prompts)) - 1)
        sequences = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
        model, count = self._peft.get_base_model().model, len(sequences)
        cache = self._new_cache()
        if begins:
            model(input_ids=torch.tensor([sequences[0][:begins]]), past_key_values=cache, use_cache=True)
            cache.batch_repeat_interleave(count)
        rests = [sequence[begins:] for sequence in sequences]
        longest = max(map(len, rests))
        ids = torch.tensor([[*rest, *[0] * (longest - len(rest))] for rest in rests])
        seen = torch.tensor([[1] * (begins + len(rest)) + [0] * (longest - len(rest)) for rest in rests])
        out = model(input_ids=ids, attention_mask=seen, past_key_values=cache, use_cache=True)
        return [rows[: len(rest)] for rows, rest in zip(out.last_hidden_state, rests, strict=True)]


def _pace(done: int, rounds: int) -> float:
    """The share of the learning rate: up at first, then down in a straight line."""
    warm = max(1, round(_WARM_UP * rounds))
    return min((done + 1) / warm, (rounds - done) / max(1, rounds - warm))
