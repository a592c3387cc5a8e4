"""Judged replies: read strictly, apart from what is measured, and learned from in pairs."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from random import Random

import pytest
import torch

from demo import prefer
from demo.batches import Batches
from demo.corpus.apart import Apart, measured_sentences
from demo.corpus.dialogues import Dialogue, Turn
from demo.corpus.jobs.sample import Sample
from demo.corpus.verdicts import Judged, read_verdicts
from demo.model import DemoModel
from demo.prefer import Pairs, Reader, not_again, shipped, turned
from demo.prompts import Prompts
from demo.texts import well_said
from qwen_allinone.model.tokenizer import Tokenizer
from qwen_allinone.tasks import Exchange, render_turns

CHECKPOINT = Path(prefer.__file__).parent / "checkpoint"
HEAD = "text\tmood\treply\tfits\twhy\n"


def written(folder: Path, text: str) -> Path:
    (folder / "some.tsv").write_text(text, encoding="utf-8")
    return folder


def test_replies_are_gathered_by_what_the_user_says(tmp_path: Path) -> None:
    rows = "猫丢了\t负面\t先别急。\t1\t\n狗\t平静\t嗯？\t0\toff\n猫丢了\t负面\t太好了！\t0\tmood: 恭喜\n"
    rows += "猫丢了 ⏎ 先别急。 ⏎ 找到了\t负面 ⏎ 正面\t真好！\t1\t\n"
    assert read_verdicts(folder=written(tmp_path, HEAD + rows)) == [
        Judged(("猫丢了",), ("负面",), ["先别急。"], ["太好了！"]),
        Judged(("狗",), ("平静",), [], ["嗯？"]),
        Judged(("猫丢了", "先别急。", "找到了"), ("负面", "正面"), ["真好！"], []),
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("text\treply\n", "some.tsv:1: the columns"),
        ("", "some.tsv:1: the columns"),
        (HEAD + "猫丢了\t负面\t先别急。\t1\n", "some.tsv:2: text"),
        (HEAD + "猫丢了\t难过\t先别急。\t1\t\n", "some.tsv:2: text"),
        (HEAD + "猫丢了\t负面\t先别急。\t1\t\n猫丢了\t负面\t好。\t是\t\n", "some.tsv:3: text"),
        (HEAD + "猫丢了\t负面\t\t1\t\n", "some.tsv:2: text"),
        (HEAD + "猫丢了 ⏎ 找到了\t负面 ⏎ 正面\t真好！\t1\t\n", "some.tsv:2: text"),
        (HEAD + "猫丢了\t负面 ⏎ 正面\t真好！\t1\t\n", "some.tsv:2: text"),
        (HEAD + "猫丢了 ⏎  ⏎ 找到了\t负面 ⏎ 正面\t真好！\t1\t\n", "some.tsv:2: text"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        read_verdicts(folder=written(tmp_path, text))


def test_the_files_are_read_by_name(tmp_path: Path) -> None:
    folder = written(tmp_path, HEAD + "猫丢了\t负面\t先别急。\t1\t\n")
    assert len(read_verdicts("some", folder)) == 1
    with pytest.raises(ValueError, match="no verdicts 'other' in .*; there are some"):
        read_verdicts("other", folder)


def test_every_reply_that_fits_stands_against_every_one_that_does_not_and_each_message_counts_one() -> None:
    group = [Judged(("猫丢了",), ("负面",), ["甲", "乙"], ["丙"]), Judged(("狗",), ("负面",), ["甲"], ["乙", "丙"])]
    pairs = Pairs.of(group)
    assert list(zip(pairs.fitting.tolist(), pairs.unfit.tolist(), pairs.weights.tolist(), strict=True)) == [
        (0, 2, 0.5), (1, 2, 0.5), (3, 4, 0.5), (3, 5, 0.5)
    ]  # fmt: skip


def test_in_its_message_a_rare_fitting_reply_and_a_common_unfit_one_count_more() -> None:
    group = [Judged(("猫丢了",), ("负面",), ["甲", "乙"], ["丙", "丁"]), Judged(("狗",), ("负面",), ["甲"], ["乙"])]
    pairs = Pairs.of(group).for_variety(torch.tensor([-2.0, -12.0, -3.0, -9.0, -1.0, -90.0]))
    assert pairs.weights[:4].argsort(descending=True).tolist() == [2, 3, 0, 1]
    assert pairs.weights[:4].sum() == pytest.approx(1.0) and pairs.weights[4] == 1.0


def test_first_messages_are_read_behind_other_conversations_too() -> None:
    firsts = [Judged((f"{word}丢了",), ("负面",), [f"{word}的事先别急。"], ["太好了！"]) for word in "猫狗鱼书"]
    talk = Judged(("下班了", "好。", "累"), ("平静", "负面"), ["歇歇吧。"], ["恭喜！"])
    more = [one for seed in range(20) for one in turned([*firsts, talk], Random(seed))]
    assert 20 < len(more) < 40
    for one in more:
        [first] = [first for first in firsts if first.said[0] == one.said[-1]]
        assert (one.fitting, one.unfit, one.moods[-1]) == (first.fitting, first.unfit, "负面")
        assert one.said[0] != one.said[-1] and len(one.said) == 2 * len(one.moods) - 1 == 3
    assert turned([talk], Random(1)) == []


def test_what_the_model_said_before_is_no_reply_to_what_is_said_next() -> None:
    said, moods = ("下班了", "好。", "累"), ("平静", "负面")
    assert not_again(Judged(said, moods, ["歇歇吧。"], ["恭喜！"])).unfit == ["恭喜！", "好。"]
    assert not_again(Judged(said, moods, ["好。"], ["恭喜！"])).unfit == ["恭喜！"]
    assert not_again(Judged(said[:1], moods[:1], ["好。"], ["恭喜！"])).unfit == ["恭喜！"]


@pytest.mark.parametrize("memories", [(), ("用户养猫", "用户叫小林")])
@pytest.mark.parametrize("moods", [("负面",), ("负面", "正面"), ("正面", "正面", "平静")])
@torch.no_grad()
def test_a_reply_s_score_is_that_of_its_tokens_as_the_service_lays_them_out(
    moods: tuple[str, ...], memories: tuple[str, ...]
) -> None:
    model, prompts = DemoModel.load(CHECKPOINT), Prompts(Tokenizer.load(CHECKPOINT))
    said = ("猫丢了", "先别急。", "找到了", "真好！", "在床底下")[: 2 * len(moods) - 1]
    replies = ["先别急。", "太好了，真为你高兴！"]
    other = Judged(("考砸了",) * len(said), moods, ["嗯"], ["好"], memories[1:])
    group = [Judged(said, moods, replies[:1], replies[1:], memories), other]
    scores, tokens = Reader(prompts, Random(1)).scores(model, shipped(prompts), group)
    known = {"memories": prompts.chat.spec.inputs["memories"].block(memories)}
    earlier = [
        Exchange({"text": text, "sentiment": mood} | known, reply)
        for text, mood, reply in zip(said[::2], moods, said[1::2], strict=False)
    ]
    chat = render_turns(prompts.chat, earlier, {"text": said[-1], "sentiment": moods[-1]} | known, restate=True)
    ids = prompts.tokenizer.encode_rendered(chat)
    for number, reply in enumerate(replies):
        answer = [*prompts.tokenizer.encode(reply), prompts.ends[1]]
        hidden = model(torch.tensor(ids[:1]), torch.tensor([ids[1:] + answer]))[0]
        losses, _ = model.token_losses(hidden[len(ids) - 2 : -1], torch.tensor(answer))
        assert float(scores[number]) == pytest.approx(-float(losses.sum()), abs=1e-3)
        assert int(tokens[number]) == len(answer)


def test_a_round_raises_what_fits_above_what_does_not_and_practises_the_further_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = [
        Judged((f"{word}丢了",), ("负面",), ["先别急。", "别急"], ["太好了！"]) for word in "猫狗鱼书笔伞包表灯碗"
    ]
    samples = {
        task: [Sample("鞋子开胶了", "抱歉让您遇到这样的事。", ("负面", "抱怨"))] * 3 for task in prefer.PRACTISED
    }
    practised = list[str]()
    monkeypatch.setattr(prefer, "read_verdicts", lambda _: judged)
    monkeypatch.setattr(prefer, "taught", lambda *_: samples)
    monkeypatch.setattr(Batches, "job", lambda self, name, job=Batches.job: practised.append(name) or job(self, name))
    how = {"rounds": 2, "replies": 12, "rate": 1e-4, "beta": 0.1, "plain": 0.1}
    options = Namespace(begin=CHECKPOINT, out=tmp_path, verdicts="*", pairs=None, seed=1, **how)
    prefer.prefer(options)
    prompts, was, now = Prompts(Tokenizer.load(tmp_path)), DemoModel.load(CHECKPOINT), DemoModel.load(tmp_path)
    assert prefer.watch(now, was, prompts, judged) > 0.9
    assert practised == [*prefer.PRACTISED, *prefer.PRACTISED][: len(practised)] and len(practised) > 4


def test_the_verdicts_that_ship_are_many_and_on_no_text_that_is_measured() -> None:
    judged, apart = read_verdicts(), Apart(measured_sentences())
    assert len(judged) > 2_000
    assert [text for one in judged for text in one.said[::2] if not apart.clear(text)] == []


def test_what_was_found_to_fit_a_first_message_is_taught_as_its_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    judged = [
        Judged(("下班了",), ("平静",), ["早点歇着。", "早点歇着。", "路上慢点。"], ["再见。"]),
        Judged(("几点了",), ("平静",), [], ["好。"]),
        Judged(("下班了", "好。", "累"), ("平静", "负面"), ["歇歇吧。"], []),
    ]
    monkeypatch.setattr("demo.texts.read_verdicts", lambda: judged)
    assert well_said() == [Dialogue((Turn("平静", ("下班了",), ("早点歇着。", "路上慢点。")),))]
