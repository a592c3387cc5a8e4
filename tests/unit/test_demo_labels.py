"""Labels learned after a training: they become likelier, and what is said of conversations is held."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from demo.batches import Batches, Tokens
from demo.corpus.dialogues import Dialogue, Turn
from demo.corpus.frames import Frames
from demo.corpus.jobs.sample import Sample
from demo.corpus.pools import Pool
from demo.labels import Labels
from demo.model import DemoModel
from demo.prompts import Prompts
from qwen_allinone.model.tokenizer import Tokenizer


@pytest.fixture
def labels(demo_checkpoint: Path) -> Labels:
    pool = Pool(["房间很干净", "再也不来了"], torch.tensor([1.0, 0.0]), torch.zeros(2, 384))
    jobs = {
        "care": [Sample("不想活了", "需要帮助"), Sample("笑死我了", "没有")] * 5,
        "intent": [Sample("几点开门", "咨询")] * 9,
        "urgency": [Sample("家里漏水了", "紧急"), Sample("谢谢", "普通")] * 5,
    }
    talk = [Dialogue((Turn("负面", ("手机摔了",), ("摔碎了吗？",)),))]
    prompts = Prompts(Tokenizer.load(demo_checkpoint))
    batches = Batches(prompts, pool, talk, jobs, 1, Tokens(200, 200, 200, 200), {"bye": Frames((), ("再见。",))})
    return Labels(batches, ["care", "intent"], ["urgency"])


def test_every_step_learns_moods_care_one_of_the_tasks_and_one_of_the_new(
    labels: Labels, demo_checkpoint: Path
) -> None:
    model = DemoModel.load(demo_checkpoint)
    adam = torch.optim.AdamW(model.parameters(), lr=1e-4)
    losses = list[dict[str, float]]()
    for _ in range(8):
        losses.append(labels.learn(model))
        adam.step()
        adam.zero_grad()
    assert set(losses[0]) == {"moods", "care", "intent", "urgency"}
    assert sum(losses[-1].values()) < sum(losses[0].values())


def test_replies_are_as_far_from_the_first_model_s_as_they_have_moved(labels: Labels, demo_checkpoint: Path) -> None:
    first, model = DemoModel.load(demo_checkpoint), DemoModel.load(demo_checkpoint)
    assert labels.hold(model, first) == pytest.approx(0.0, abs=1e-5)
    with torch.no_grad():
        model.model.norm.weight.mul_(0.5)
    adam = torch.optim.AdamW(model.parameters(), lr=3e-4)
    moved = labels.hold(model, first)
    assert moved > 0.01
    for _ in range(8):
        adam.zero_grad()
        last = labels.hold(model, first)
        adam.step()
    assert last < moved
