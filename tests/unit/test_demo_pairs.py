"""Pairs that nobody judged: how replies are drawn, what is learned from verdicts, and what becomes a pair."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest
import torch

from demo import pairs as module
from demo.corpus.apart import Apart, measured_sentences
from demo.corpus.dialogues import Dialogue, Turn, read_dialogues
from demo.corpus.frames import RECALLED, Frames
from demo.corpus.remembered import COLUMNS, Remembered, of_dialogues, read_remembered
from demo.corpus.verdicts import Judged, read_pairs, write_pairs
from demo.draw import LONGEST, SLOTS, Drawer
from demo.model import DemoModel
from demo.pairs import Maker
from demo.prefer import shipped, up_to_reply
from demo.prompts import ROOT, Prompts
from demo.reward import Case, Reward, Vectors, Written, of_kinds, of_verdicts

CHECKPOINT = ROOT / "demo" / "checkpoint"
TEXTS = ("今天考试没考好", "我升职了", "猫不吃饭，急死我了", "下班路上看到彩虹", "你好")


def prompts_of(drawer: Drawer, texts: tuple[str, ...] = TEXTS) -> list[list[int]]:
    prompts = Prompts(drawer.tokenizer)
    return [up_to_reply(prompts, Judged((text,), ("平静",)), shipped(prompts)) for text in texts]


@torch.no_grad()
def test_at_a_low_temperature_it_draws_what_the_model_would_say_first() -> None:
    drawer, model = Drawer(CHECKPOINT), DemoModel.load(CHECKPOINT)
    asked, said = prompts_of(drawer), dict[int, list[str]]()
    for number, replies in drawer.replies(asked, SLOTS // 2, 0.01, 0.5):  # two prompts at a time
        said[number] = replies
    assert sorted(said) == list(range(len(asked)))
    for number, prompt in enumerate(asked):
        ids = list(prompt)
        while (token := int(model.logits(model(torch.tensor(ids[:1]), torch.tensor([ids[1:]]))[0, -1]).argmax())) > 2:
            ids.append(token)
            if drawer.tokenizer.decode([token]) == "" or len(ids) - len(prompt) > LONGEST:
                break
        assert said[number] == [drawer.tokenizer.decode(ids[len(prompt) :])]


def test_the_same_seed_draws_the_same_and_another_something_else() -> None:
    def drawn(seed: int) -> dict[int, list[str]]:
        drawer = Drawer(CHECKPOINT, seed=seed)
        return dict(drawer.replies(prompts_of(drawer), 8, 0.9, 0.95))

    first = drawn(1)
    assert first == drawn(1) != drawn(2)
    assert all(1 < len(replies) <= 8 and len(set(replies)) == len(replies) for replies in first.values())
    with pytest.raises(ValueError, match="a prompt of 700 tokens"):
        list(Drawer(CHECKPOINT).replies([[5] * 700], 1, 0.7, 0.9))


def known_vectors(file: Path, texts: list[str]) -> Vectors:
    """So that no teacher is needed: what has 猫 in it lies on one side, and what has 狗 on the other."""
    torch.manual_seed(1)
    vectors = torch.randn(len(texts), 384) * 0.02
    for place, text in enumerate(texts):
        vectors[place, 0] += ("猫" in text) - ("狗" in text)
    torch.save({"texts": texts, "vectors": torch.nn.functional.normalize(vectors, dim=1)}, file)
    return Vectors(file)


def test_a_reward_has_learned_from_verdicts_which_reply_fits_what_it_has_not_read(tmp_path: Path) -> None:
    said = [f"{animal}{number}" for number in range(600) for animal in "猫狗"]
    replies = [f"{animal}真好{number}" for number in range(20) for animal in "猫狗"]
    vectors = known_vectors(tmp_path / "vectors.pt", [*said, *replies])

    def judged(text: str, number: int) -> Judged:
        right, wrong = (f"{animal}真好{number % 20}" for animal in ("猫狗" if "猫" in text else "狗猫"))
        return Judged((text,), ("平静",), [right], [wrong])

    every = [judged(text, number) for number, text in enumerate(said)]
    reward = Reward(of_verdicts(every[200:]), vectors, Written(replies), networks=2, epochs=25)
    likely = reward.of([Case(one.said, "平静", text) for one in every[:200] for text in (*one.fitting, *one.unfit)])
    assert min(likely[::2]) > 0.8 and max(likely[1::2]) < 0.2
    assert reward.of([]) == []


def test_what_nobody_wrote_is_counted_and_what_is_of_the_message_apart() -> None:
    written = Written(["猫真好，慢慢来。"])
    assert written.read(Case(("嗯",), "平静", "猫真好，慢慢来。"))[:3] == [0, 0, 0]
    strange, own, unknown, again, copied, copies, known, before = written.read(
        Case(("小狗",), "平静", "小狗真好，慢慢来。")
    )
    assert strange == pytest.approx(3 / 5) and own == pytest.approx(1 / 5) and unknown == pytest.approx(3 / 3)
    assert (again, copied, copies, known, before) == (0, 1 / 4, 1, 0, 0)
    assert written.read(Case(("甲", "慢慢来。", "乙"), "平静", "慢慢来。"))[-1] == 1


def test_a_frame_of_a_message_s_kind_fits_and_one_of_another_does_not() -> None:
    frames = {"cat": Frames((), ("猫好",)), "dog": Frames((), ("狗好",))}
    message = Dialogue((Turn("平静", ("我的猫",), (), "cat", "猫"),))
    found = set(of_kinds([message] * 20, frames, Random(1)))
    assert found == {(Case(("我的猫",), "平静", "猫好"), True), (Case(("我的猫",), "平静", "狗好"), False)}


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    return Maker(CHECKPOINT, tmp_path, seed=7)


def test_what_matters_is_recalled_before_a_reply_and_nothing_else(
    maker: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STRANGERS", 1.0)
    cat, work = "用户养了一只猫", "用户在银行上班"
    told = [Remembered((cat, work), "它把毛线团拆了一地", cat, "平静"), Remembered((work,), "楼道灯又坏了", "", "负面")]
    matters, strange, does_not, other = maker.of_remembered(told)
    forms = [form.replace("{it}", "你养了一只猫") for form in RECALLED]
    [right], [alone, wrong] = matters.fitting, matters.unfit
    assert right in [form + alone for form in forms] and "银行" in wrong and wrong.endswith(alone)
    assert matters.memories == (cat, work)
    [plain], [recalled] = does_not.fitting, does_not.unfit
    assert recalled.endswith(plain) and "银行" in recalled and "银行" not in plain
    for one in (strange, other):
        assert one.unfit[0].endswith(one.fitting[0]) and set(one.memories) <= {cat, work}
    assert (
        maker.of_remembered(told)[0].unfit[0]
        in json.loads(next(tmp_path.glob("remembered-*.json")).read_text())[
            json.dumps([[told[0].text], ["平静"]], ensure_ascii=False)
        ]
    )


def test_conversations_go_on_with_the_model_s_own_replies_and_texts_that_are_measured_are_in_none(maker: Maker) -> None:
    talks, messages = maker.of_talks(6), maker.of_messages(6)
    assert len(talks) == len(messages) == 6
    apart = Apart(measured_sentences())
    for one in (*talks, *messages):
        assert len(one.said) == 2 * len(one.moods) - 1 and one.fitting
        assert all(map(apart.clear, one.said[::2]))
    assert all(len(one.moods) >= 3 for one in talks) and all(len(one.said) == 1 for one in messages)


def test_the_best_and_the_worst_are_a_pair_where_they_are_far_apart(
    maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewards = {"好": 0.9, "中": 0.7, "坏": 0.2, "长" * 61: 1.0, "请打12356。": 0.1}

    class Told:
        def __init__(self, *_: object) -> None: ...

        def of(self, cases: list[Case]) -> list[float]:
            return [rewards[case.reply] for case in cases]

    monkeypatch.setattr(module, "Reward", Told)
    drawn = [
        Judged(("一",), ("平静",), ["中", "坏", "好", "长" * 61]),
        Judged(("二",), ("平静",), ["好", "中"]),
        Judged(("三",), ("平静",), ["坏"]),
        Judged(("四",), ("平静",), []),
        Judged(("五",), ("平静",), ["好", "请打12356。"]),
    ]
    assert maker.best_and_worst(drawn) == [Judged(("一",), ("平静",), ["好"], ["坏"])]


def test_pairs_are_read_as_they_were_written(tmp_path: Path) -> None:
    pairs = [
        Judged(("甲", "乙", "丙"), ("平静", "正面"), ["好"], ["坏"]),
        Judged(("丁",), ("负面",), ["好"], [], ("用户养猫",)),
    ]
    write_pairs(pairs, tmp_path / "pairs.jsonl")
    assert read_pairs(tmp_path / "pairs.jsonl") == pairs


@pytest.mark.parametrize(
    "row",
    [
        "用户养猫\t它睡了\t2\t平静",
        "用户养猫\t它睡了\t1\t高兴",
        "养猫\t它睡了\t1\t平静",
        "用户养猫\t\t1\t平静",
        "用户养猫\t它睡了\t1",
    ],
)
def test_a_row_that_is_no_memory_is_named(tmp_path: Path, row: str) -> None:
    head = "\t".join(COLUMNS)
    (tmp_path / "some.tsv").write_text(f"{head}\n用户养猫\t它睡了\t1\t平静\n{row}\n")
    with pytest.raises(ValueError, match="some.tsv:3: statements, text"):
        read_remembered(tmp_path)
    (tmp_path / "some.tsv").write_text("memories\n")
    with pytest.raises(ValueError, match="some.tsv:1: the columns"):
        read_remembered(tmp_path)


def test_what_ships_is_a_good_half_that_matters_and_no_text_that_is_measured() -> None:
    written, apart = read_remembered(), Apart(measured_sentences())
    assert len(written) > 1500 and len({one.text for one in written}) == len(written)
    assert 0.45 < sum(bool(one.matters) for one in written) / len(written) < 0.6
    assert [one.text for one in written if not apart.clear(one.text)] == []
    talks = of_dialogues(read_dialogues())
    assert len(talks) > 2000 and all(one.matters in ("", *one.memories) for one in talks)
    assert Random(1).choice(talks).memories
