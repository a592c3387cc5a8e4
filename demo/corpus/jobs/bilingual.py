"""Short sentences of a small world in Chinese and English."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from demo.corpus.jobs.sample import Sample, read

BE = {"I": "am", "we": "are", "they": "are", "you": "are"}
WAS = {"I": "was", "we": "were", "they": "were", "you": "were"}


class Bilingual:
    """Draws sentence pairs, in both directions by turns."""

    def __init__(self, rng: Random) -> None:
        self.rng, self.data = rng, read("bilingual")
        self._turn = 0
        self.patterns: list[Callable[[], tuple[str, str]]] = [
            self._does, self._does, self._did, self._will, self._wants, self._likes, self._is, self._is, self._was_feeling,
            self._where, self._how_is, self._has, self._can, self._there, self._asks_like, self._let_us, self._not_doing,
            self._my_thing, self._should, self._question, self._compared, self._because, self._of_whom,
        ]  # fmt: skip

    def draw(self) -> Sample:
        """The next sentence and its translation."""
        self._turn += 1
        chinese, english = self.pair()
        source, answer = (chinese, english) if self._turn % 2 else (english, chinese)
        return Sample(source.rstrip("。.") if self.rng.random() < 0.15 else source, answer)

    def pair(self) -> tuple[str, str]:
        """A Chinese sentence and the English one, both punctuated."""
        if self.rng.random() < 0.25:
            chinese, english = self._pick("fixed")
            return str(chinese), str(english)
        chinese, english = self.rng.choice(self.patterns)()
        english = " ".join(english.split())
        mark = "？" if english.endswith("?") else "。"
        return chinese + mark, english[0].upper() + english[1:] + ("" if english.endswith("?") else ".")

    def _pick(self, name: str) -> list[Any]:
        entry: list[Any] = self.rng.choice(self.data[name])
        return entry

    def _who(self) -> tuple[str, str, bool]:
        """Chinese, English, and whether the verb takes -s."""
        if self.rng.random() < 0.5:
            chinese, english, _ = self._pick("person")
            return chinese, english, False
        chinese, english = self._pick("third")
        return chinese, english, True

    def _time(self, *, past: bool = False, future: bool = False) -> tuple[str, str]:
        if past:
            return self.rng.choice(
                (("昨天", "yesterday"), ("昨天晚上", "last night"), ("今天早上", "this morning"), ("上周", "last week"))
            )
        if future:
            return self.rng.choice(
                (("明天", "tomorrow"), ("下周", "next week"), ("今天晚上", "tonight"), ("周末", "this weekend"))
            )
        times = [
            pair for pair in self.data["time"] if pair[0] not in ("昨天", "明天", "下周", "今天晚上", "今天", "现在")
        ]
        chinese, english = self.rng.choice(times)
        return chinese, english

    def _does(self) -> tuple[str, str]:
        (zh, en, third), (zt, et) = self._who(), self._time()
        verb = self._pick("verb")
        return f"{zh}{zt}{verb[0]}", f"{en} {verb[2 if third else 1]} {et}"

    def _not_doing(self) -> tuple[str, str]:
        (zh, en, third), verb = self._who(), self._pick("verb")
        if self.rng.random() < 0.5:
            (zt, et) = self._time(past=True)
            return f"{zh}{zt}没有{verb[0]}", f"{en} didn't {verb[1]} {et}"
        (zt, et) = self._time()
        return f"{zh}{zt}不{verb[0]}", f"{en} {'doesn' if third else 'don'}'t {verb[1]} {et}"

    def _did(self) -> tuple[str, str]:
        (zh, en, _), (zt, et), verb = self._who(), self._time(past=True), self._pick("verb")
        return f"{zh}{zt}{verb[0]}了", f"{en} {verb[3]} {et}"

    def _will(self) -> tuple[str, str]:
        (zh, en, _), (zt, et), verb = self._who(), self._time(future=True), self._pick("verb")
        return f"{zh}{zt}要{verb[0]}", f"{en} will {verb[1]} {et}"

    def _wants(self) -> tuple[str, str]:
        (zh, en, third), verb = self._who(), self._pick("verb")
        if self.rng.random() < 0.5:
            return f"{zh}想{verb[0]}", f"{en} {'wants' if third else 'want'} to {verb[1]}"
        return f"{zh}喜欢{verb[0]}", f"{en} {'likes' if third else 'like'} to {verb[1]}"

    def _likes(self) -> tuple[str, str]:
        (zh, en, third), (zn, noun) = self._who(), self._pick("noun")
        if self.rng.random() < 0.35:
            return f"{zh}不喜欢{zn}", f"{en} {'doesn' if third else 'don'}'t like {noun}"
        very, much = self.rng.choice((("", ""), ("很", " very much")))
        return f"{zh}{very}喜欢{zn}", f"{en} {'likes' if third else 'like'} {noun}{much}"

    def _asks_like(self) -> tuple[str, str]:
        zn, noun = self._pick("noun")
        zh, en, does = self.rng.choice(
            (("你", "you", "do"), ("他", "he", "does"), ("她", "she", "does"), ("你妈妈", "your mother", "does"))
        )
        return f"{zh}喜欢{zn}吗", f"{does} {en} like {noun}?"

    def _is(self) -> tuple[str, str]:
        (zn, noun), (za, adjective) = self._pick("thing"), self._pick("adj")
        this, that = self.rng.choice(
            (("这个", "this"), ("那个", "that"), ("我的", "my"), ("你的", "your"), ("他们的", "their"))
        )
        very, degree = self.rng.choice(
            (("很", ""), ("很", "very"), ("非常", "very"), ("太", "too"), ("不", "not"), ("有点", "a little"))
        )
        return f"{this}{zn}{very}{za}" + ("了" if very == "太" else ""), f"{that} {noun} is {degree} {adjective}"

    def _was_feeling(self) -> tuple[str, str]:
        (zh, en, third), (zf, feeling) = self._who(), self._pick("feeling")
        very, degree = self.rng.choice(
            (("很", "very"), ("很", ""), ("非常", "very"), ("有点", "a little"), ("不", "not"))
        )
        if self.rng.random() < 0.35:
            return f"{zh}昨天{very}{zf}", f"{en} {'was' if third else WAS[en]} {degree} {feeling} yesterday"
        zt, et = self.rng.choice((("", ""), ("今天", " today"), ("现在", " now")))
        return f"{zh}{zt}{very}{zf}", f"{en} {'is' if third else BE[en]} {degree} {feeling}{et}"

    def _where(self) -> tuple[str, str]:
        zp, _, place = self._pick("place")
        if place in ("Beijing", "Shanghai"):
            return f"你去过{zp}吗", f"have you been to {place}?"
        if self.rng.random() < 0.5:
            polite, please = self.rng.choice((("", ""), ("请问", "excuse me, ")))
            return f"{polite}{zp}在哪里", f"{please}where is {place}?"
        draw = self.rng.random()
        if draw < 0.4:
            return f"{zp}离这里远吗", f"is {place} far from here?"
        if draw < 0.7:
            return f"{zp}几点开门", f"what time does {place} open?"
        return f"去{zp}怎么走", f"how do I get to {place}?"

    def _how_is(self) -> tuple[str, str]:
        zn, noun = self._pick("thing")
        if self.rng.random() < 0.5:
            return f"这个{zn}怎么样", f"how is this {noun}?"
        return f"这个{zn}多少钱", f"how much is this {noun}?"

    def _has(self) -> tuple[str, str]:
        (zh, en, third), (zc, count, plural), (zn, noun) = self._who(), self._pick("count"), self._pick("counted")
        return f"{zh}有{zc}{zn}", f"{en} {'has' if third else 'have'} {count} {noun}{plural}"

    def _can(self) -> tuple[str, str]:
        verb = self._pick("verb")
        if self.rng.random() < 0.4:
            return f"你会{verb[0]}吗", f"can you {verb[1]}?"
        if self.rng.random() < 0.5:
            return f"我可以{verb[0]}吗", f"can I {verb[1]}?"
        zh, en, _ = self._who()
        return f"{zh}不能{verb[0]}", f"{en} can't {verb[1]}"

    def _there(self) -> tuple[str, str]:
        (zp, _, place), (zc, count, plural), (zn, noun) = (
            self._pick("place"),
            self._pick("count"),
            self._pick("counted"),
        )
        if self.rng.random() < 0.4:
            zh, en, third = self._who()
            return f"{zh}在{zp}", f"{en} {'is' if third else BE[en]} {self._at(place)}"
        verb = "is" if not plural else "are"
        return f"{zp}有{zc}{zn}", f"there {verb} {count} {noun}{plural} {self._at(place)}"

    @staticmethod
    def _at(place: str) -> str:
        return f"in {place}" if place in ("Beijing", "Shanghai", "the park", "the kitchen") else f"at {place}"

    def _let_us(self) -> tuple[str, str]:
        verb = self._pick("verb")
        zt, et = self.rng.choice((("", ""), ("明天", " tomorrow"), ("周末", " this weekend")))
        return f"我们{zt}{verb[0]}吧", f"let's {verb[1]}{et}"

    def _my_thing(self) -> tuple[str, str]:
        zn, noun = self._pick("thing")
        who, whose = self.rng.choice((("我", "my"), ("你", "your"), ("他", "his"), ("她", "her"), ("我们", "our")))
        draw = self.rng.random()
        if draw < 0.35:
            return f"这是{who}的{zn}", f"this is {whose} {noun}"
        if draw < 0.7:
            return f"{who}的{zn}在哪里", f"where is {whose} {noun}?"
        return f"我找不到{who}的{zn}", f"I can't find {whose} {noun}"

    def _should(self) -> tuple[str, str]:
        (zh, en, third), verb = self._who(), self._pick("verb")
        chinese, english = self.rng.choice(
            (
                ("应该", "should"),
                ("必须", "must"),
                ("可能会", "may"),
                ("不应该", "should not"),
                ("需要", "needs to" if third else "need to"),
            )
        )
        zt, et = self.rng.choice((("", ""), ("明天", " tomorrow"), ("今天", " today")))
        return f"{zh}{zt}{chinese}{verb[0]}", f"{en} {english} {verb[1]}{et}"

    def _question(self) -> tuple[str, str]:
        (zh, en, third), verb = self._who(), self._pick("verb")
        do, draw = "does" if third else "do", self.rng.random()
        if draw < 0.3:
            return f"{zh}什么时候{verb[0]}", f"when {do} {en} {verb[1]}?"
        if draw < 0.5:
            return f"{zh}为什么{verb[0]}", f"why {do} {en} {verb[1]}?"
        if draw < 0.8:
            return f"{zh}想{verb[0]}吗", f"{do} {en} want to {verb[1]}?"
        return f"你昨天{verb[0]}了吗", f"did you {verb[1]} yesterday?"

    def _compared(self) -> tuple[str, str]:
        (zn, noun), (za, adjective) = self._pick("thing"), self._pick("adj")
        mine, my = self.rng.choice((("我的", "my"), ("这个", "this"), ("他的", "his"), ("我们的", "our")))
        if self.rng.random() < 0.5:
            return f"{mine}{zn}又{za}又好", f"{my} {noun} is {adjective} and good"
        return f"{mine}{zn}没有那么{za}", f"{my} {noun} is not so {adjective}"

    def _because(self) -> tuple[str, str]:
        (zh, en, third), (zf, feeling), verb = self._who(), self._pick("feeling"), self._pick("verb")
        state = "is" if third else BE[en]
        pronoun = self.rng.choice(("he", "she")) if third else en
        again = {"he": "他", "she": "她"}.get(pronoun, zh)
        if self.rng.random() < 0.5:
            return (
                f"{zh}很{zf}，因为{again}不能{verb[0]}",
                f"{en} {state} very {feeling} because {pronoun} can't {verb[1]}",
            )
        return f"{zh}很{zf}，但是{again}想{verb[0]}", f"{en} {state} very {feeling}, but {pronoun} want{'s' if third else ''} to {verb[1]}"  # fmt: skip

    def _of_whom(self) -> tuple[str, str]:
        """People and what they are."""
        zh, en = self._pick("third")
        zj, job = self.rng.choice(
            (
                ("老师", "a teacher"),
                ("医生", "a doctor"),
                ("学生", "a student"),
                ("司机", "a driver"),
                ("厨师", "a cook"),
                ("护士", "a nurse"),
                ("工程师", "an engineer"),
                ("作家", "a writer"),
            )
        )
        if self.rng.random() < 0.3:
            return f"{zh}不是{zj}", f"{en} is not {job}"
        return f"{zh}是{zj}", f"{en} is {job}"
