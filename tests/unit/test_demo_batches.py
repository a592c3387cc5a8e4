"""What the demo model is trained on, as token ids: those of the service, and the same again after an interruption."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
import torch

from demo.batches import Batches, Tokens
from demo.buckets import Bucket
from demo.corpus.dialogues import Dialogue, Turn
from demo.corpus.frames import Frames
from demo.corpus.jobs.sample import Sample
from demo.corpus.pools import Pool
from demo.losses import of_written
from demo.model import DemoModel, Shape
from demo.prompts import Prompts
from qwen_allinone.model.tokenizer import Tokenizer

PLAIN = Dialogue(
    (Turn("负面", ("妈妈生病了",), ("妈妈生病，你一定很担心。",)), Turn("正面", ("她好了",), ("太好了。",)))
)
KNOWN = Dialogue((Turn("平静", ("我去图书馆",), ("小林今天也去图书馆啦。",)),), memories=("用户叫小林",))
BROKEN = Dialogue((Turn("负面", ("手机摔了",), ("摔碎了吗？",), "bad_thing", "手机"),))
FRAMES = {"bad_thing": Frames(("{it}的事，换谁都会急。",), ("真让人心烦。",)), "bye": Frames((), ("再见。",))}
SHOP = Dialogue((Turn("平静", ("几点开门",), ("九点开门。",)),), system="你是书店的客服，九点开门。")


@pytest.fixture(scope="module")
def prompts(demo_checkpoint: Path) -> Prompts:
    return Prompts(Tokenizer.load(demo_checkpoint))


def made(prompts: Prompts, dialogues: list[Dialogue], seed: int = 1) -> Batches:
    texts = ["房间很干净", "再也不来了", "快递已签收", "价格贵了点但是省心"]
    pool = Pool(texts, torch.tensor([1.0, 0.0, 0.5, 0.9]), torch.zeros(4, 384))
    jobs = {
        "summary": [Sample("通知。周五停水。请储水。", "周五停水。")],
        "suggest": [Sample("蛋糕塌了", "给您添堵了。", ("负面", "投诉"))],
        "care": [Sample("不想活了", "需要帮助"), Sample("笑死我了", "没有")] * 5,
    }
    return Batches(prompts, pool, dialogues, jobs, seed, Tokens(400, 400, 200, 100), FRAMES)


def test_prompts_are_cut_where_the_service_puts_a_text(prompts: Prompts) -> None:
    for text in ("今天很好", "a b", "什么？！", "第一行\n第二行"):
        prompts.check(text)


def test_conversations_have_the_services_own_ids(prompts: Prompts) -> None:
    prompts.check_conversation(["妈妈生病了", "你一定很担心。", "她好了"])


def test_other_wordings_end_like_a_prompt_that_asks_for_a_label(prompts: Prompts) -> None:
    for seed in range(20):
        seams = prompts.other_wording("sentiment", [("房间干净", "正面"), ("坏了", "负面")], Random(seed))
        assert prompts.tokenizer.decode(seams.after).endswith("：")


def test_what_a_reply_says_is_learned_whole(prompts: Prompts) -> None:
    batch = made(prompts, [PLAIN]).chat()
    learned = [int(t) for t, w in zip(batch.targets, batch.weights, strict=True) if w >= 1]
    ends = [place for place, token in enumerate(learned) if token == prompts.ends[1]]
    assert len(ends) >= 2
    assert prompts.tokenizer.decode(learned[: ends[0]]).startswith("妈妈生病")
    flat = batch.rows.flatten()
    # What is to be predicted at a position stands at the next one.
    assert all(int(flat[p + 1]) == int(t) for p, t in zip(batch.positions, batch.targets, strict=True))


def test_a_message_that_has_a_kind_is_answered_by_its_frames_and_the_kind_is_learned(
    prompts: Prompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("demo.batches.FRAMED", 0.6)
    batches, kinds, replies = made(prompts, [BROKEN]), set[int](), ""
    for _ in range(20):
        batch = batches.chat()
        kinds |= set(batch.kinds.tolist())
        replies += prompts.tokenizer.decode(batch.rows.flatten().tolist())
        starts = prompts.tokenizer.encode("assistant\n")[-1]
        assert {int(batch.rows.flatten()[place]) for place in batch.answered} == {starts}
    assert kinds == {0}
    assert all(reply in replies for reply in ("手机的事，换谁都会急。", "真让人心烦。", "摔碎了吗？"))


def test_frames_alone_answer_a_message_without_a_reply_of_its_own(prompts: Prompts) -> None:
    asked = Dialogue((Turn("负面", ("手机摔了",), (), BROKEN.turns[0].kind),))
    batches = made(prompts, [asked])
    replies = "".join(prompts.tokenizer.decode(batches.chat().rows.flatten().tolist()) for _ in range(5))
    assert "真让人心烦。" in replies


def test_a_topic_may_be_exchanged_so_that_naming_it_is_copying(
    prompts: Prompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("demo.batches.EXCHANGED", 1.0)
    monkeypatch.setattr("demo.batches.STRAYED", 0.0)
    said = [Dialogue((Turn("负面", (f"{it}摔了",), (), "bad_thing", it),)) for it in ("手机", "杯子")]
    batches = made(prompts, said)
    for _ in range(10):
        text = prompts.tokenizer.decode(batches.chat().rows.flatten().tolist())
        for named, other in (("手机", "杯子"), ("杯子", "手机")):
            assert f"{other}摔了<|im_end|>\n<|im_start|>assistant\n{named}的事" not in text


def test_of_a_frame_of_another_kind_the_beginning_is_not_learned(
    prompts: Prompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("demo.batches.STRAYED", 1.0)
    monkeypatch.setattr("demo.batches.UNLEARNED", 1)
    batches = made(prompts, [Dialogue((Turn("负面", ("手机摔了",), (), "bad_thing", "手机"),))])
    starts = prompts.tokenizer.encode("assistant\n")[-1]
    for _ in range(20):
        batch = batches.chat()
        flat = batch.rows.flatten()
        begun = {int(p) for p in batch.positions if int(flat[p]) == starts}
        assert not begun
        assert len(batch.positions)


def test_of_a_first_message_the_kind_is_learned_and_how_a_reply_begins(prompts: Prompts) -> None:
    batch = made(prompts, [PLAIN, KNOWN, BROKEN]).messages()
    assert [list(FRAMES)[kind] for kind in batch.kinds.tolist()] == ["bad_thing"] * batch.rows.shape[0]
    learned = [int(t) for t, w in zip(batch.targets, batch.weights, strict=True) if w >= 1]
    assert len(learned) == batch.rows.shape[0] and prompts.ends[1] not in learned


def test_the_teachers_vector_is_learned_of_a_message_that_stands_as_it_was_written(
    prompts: Prompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = Dialogue((Turn("平静", ("快递已签收",), ("收到就好。",)),))
    batches = made(prompts, [known, KNOWN])
    batches.pool.vectors[2] = 1.0  # 快递已签收
    learned = [batch.vectors for batch in (batches.chat() for _ in range(8)) if len(batch.meant)]
    assert learned and all(bool((vectors == 1.0).all()) for vectors in learned)
    monkeypatch.setattr(Batches, "_exchanged", lambda *_: ("包裹已签收", "包裹"))
    assert not len(made(prompts, [known]).chat().meant)


def test_a_recital_is_topics_and_frames_whose_beginning_is_not_learned(prompts: Prompts) -> None:
    batch = made(prompts, [BROKEN]).recital()
    said = prompts.tokenizer.decode(batch.rows.flatten().tolist())
    assert said.startswith("手机") and "手机的事，换谁都会急。" in said and "再见。" in said
    learned = prompts.tokenizer.decode(batch.targets.tolist())
    assert "会急" in learned and "手机" not in learned
    assert not len(batch.kinds)


@pytest.mark.parametrize(("dialogue", "word"), [(KNOWN, "用户叫小林"), (SHOP, "书店的客服")])
def test_what_is_known_and_a_shops_prompt_stand_before_the_conversation(
    prompts: Prompts, dialogue: Dialogue, word: str
) -> None:
    batch = made(prompts, [dialogue]).chat()
    assert word in prompts.tokenizer.decode([*batch.prefix.tolist(), *batch.rows[0].tolist()])


def test_moods_are_learned_at_the_last_token_of_the_prompt(prompts: Prompts) -> None:
    batch = made(prompts, [PLAIN]).moods()
    assert batch.shares.shape[0] == batch.rows.shape[0] == batch.vectors.shape[0]
    assert set(batch.targets.tolist()) == {prompts.labels["正面"][0]}


def test_a_message_and_its_reply_go_with_what_is_known_of_the_message(prompts: Prompts) -> None:
    batch = made(prompts, [PLAIN]).job("suggest")
    assert "负面的投诉" in prompts.tokenizer.decode(batch.prefix.tolist())


def test_after_an_interruption_the_same_batches_come(prompts: Prompts) -> None:
    whole, broken = (made(prompts, [PLAIN, KNOWN, SHOP], seed=5) for _ in range(2))
    for batches in (whole, broken):
        batches.moods(), batches.chat(), batches.job("care")
    again = made(prompts, [PLAIN, KNOWN, SHOP], seed=99)
    again.restore(broken.state())
    for _ in range(5):
        for draw in (Batches.moods, Batches.chat, lambda b: b.job("care")):
            assert torch.equal(draw(whole).rows, draw(again).rows)


def test_batches_that_are_drawn_side_by_side_are_of_one_sort(prompts: Prompts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demo.batches.STRUNG", 0.0)
    one, other = (made(prompts, [PLAIN, KNOWN, BROKEN], seed=seed) for seed in (4000, 4001))
    head = prompts.conversation("x").before[: prompts.system_starts]
    sorts = [[batches.chat().prefix.tolist() == head for _ in range(30)] for batches in (one, other)]
    assert sorts[0] == sorts[1] and set(sorts[0]) == {True, False}


def test_a_bucket_takes_everything_once_before_anything_twice() -> None:
    bucket = Bucket([5] * 40, 50, Random(3))
    taken = [number for _ in range(4) for number in bucket.take()]
    assert sorted(taken) == list(range(40))


def test_messages_whose_replies_all_stray_teach_nothing_and_stop_nothing(
    prompts: Prompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, share in {"STRAYED": 1.0, "FRAMED": 1.0, "OWN_WORDS": 0.0}.items():
        monkeypatch.setattr(f"demo.batches.{name}", share)
    batch = made(prompts, [BROKEN]).messages()
    assert len(batch.targets) == 0 and len(batch.kinds) > 0
    model = DemoModel(Shape(prompts.ends[1] + 1, 32, 64, 1, 2, 1))
    mean, loss = of_written(model, model(batch.prefix, batch.rows).reshape(-1, 32), batch)
    loss.backward()
    assert mean == 0.0 and float(loss.detach()) == 0.0
