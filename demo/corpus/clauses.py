"""Clauses of known polarity: the pieces every text is composed of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from demo.corpus.lexicon import NEGATIVE, POSITIVE, Domain, Lexicon, Phrases, opposite

NEGATED = {  # polarity of the whole -> words that turn an adjective of the OTHER polarity around
    NEGATIVE: (
        "不", "一点都不", "一点也不", "并不", "不怎么", "不太", "根本不", "谈不上", "算不上", "压根不", "没那么", "完全不",
        "远远不够", "说不上有多", "哪里", "毫不", "从来都不", "不够", "称不上", "没有觉得", "越来越不", "再也不觉得",
        "也不", "也不", "都不", "还不", "又不", "很不", "也很不", "老是不", "总不", "也没多",
    ),
    POSITIVE: ("一点都不", "一点也不", "并不", "完全不", "丝毫不", "毫不", "没有一点", "不会", "再也不", "从来不", "没觉得", "居然不", "也不", "都不", "还不"),
}  # fmt: skip
# The words people use most. The lists hold hundreds each; drawn evenly, the commonest would hardly occur.
CORE = {
    POSITIVE: tuple("好 不错 棒 开心 高兴 快乐 满意 舒服 喜欢 顺利 方便 干净 好吃 好看 好用 好听 漂亮 热情 贴心 耐心 实惠 划算 便宜 "
                    "幸福 温暖 放心 安心 轻松 幸运 值得 感动 激动 期待 精彩 流畅 安静 美好 靠谱 给力 周到".split()),
    NEGATIVE: tuple("差 坏 烂 糟糕 难过 难受 伤心 痛苦 失望 生气 烦 累 慢 贵 脏 吵 臭 差劲 难吃 难看 难用 难听 麻烦 郁闷 焦虑 压抑 委屈 "
                    "无聊 孤独 害怕 绝望 崩溃 无语 恶心 敷衍 冷漠 卡 坑 破 旧 小 远 不好 不行 不开心 不满意 不舒服 不值 不方便".split()),
}  # fmt: skip
CORE_NOUNS = tuple("心情 工作 生活 今天 最近 身体 天气 睡眠 家里 服务 态度 质量 味道 环境 房间 价格 速度 客服 物流 手机 电脑 老板 "
                   "同事 学习 考试 成绩 孩子 爸妈 朋友 心里 电影 软件 酒店 早餐 位置 效果 感觉".split())  # fmt: skip
CORE_DEGREES = tuple("很 特别 真 太 非常 好 挺 真的很 有点 比较 超级 十分 这么 更".split())  # fmt: skip
COMPARED = {
    POSITIVE: (
        "比{x}强多了", "比{x}好太多", "比我想的好", "秒杀{x}", "不输{x}", "比{x}贴心得多", "甩{x}几条街", "一点不比{x}差",
    ),
    NEGATIVE: ("比{x}差远了", "还不如{x}", "比{x}差太多", "跟{x}没法比", "连{x}都不如", "比{x}还坑", "被{x}甩开一大截"),
}  # fmt: skip
RIVALS = (
    "上次", "别家", "隔壁那家", "以前", "去年", "之前用的", "同价位的", "老款", "便宜货", "预想的", "朋友家的", "网上说的",
)  # fmt: skip


@dataclass(frozen=True)
class Clause:
    """A piece of text, and the noun it is about if it names one."""

    text: str
    aspect: str | None = None


class Clauses:
    """Draws clauses from a lexicon with the random numbers it is given."""

    def __init__(self, lexicon: Lexicon, rng: Random) -> None:
        self.lexicon, self.rng = lexicon, rng
        self.plain = lexicon.general.plain

    def clause(self, domain: Domain, label: str) -> Clause:
        """One clause of `label`, of any form."""
        draw, pick = self.rng.random(), self.rng.choice
        if draw < 0.32:
            return self._predicate(domain, label)
        if draw < 0.50:
            return Clause(pick(domain.clauses[label]))
        if draw < 0.58:
            return Clause(pick(domain.tricky[label]))
        if draw < 0.70:
            return self.about(domain, label)
        if draw < 0.79:
            return self._negated(domain, label)
        if draw < 0.81:
            return self._comparison(domain, label)
        return Clause(self.remark(label))

    def remark(self, label: str) -> str:
        """A general clause that fits any subject."""
        stems = ("verdict", "feeling", "idiom", "slang", "rhetorical", "tricky", "event")
        stem = self.rng.choices(stems, (20, 28, 10, 8, 8, 14, 40))[0]
        return self.rng.choice(self.both(stem, label))

    def both(self, stem: str, label: str) -> Phrases:
        """The entries of a general list for `label`."""
        return self.lexicon.general.both[stem][label]

    def _noun(self, domain: Domain) -> str:
        """A noun of the domain, now and then any everyday noun: predicates must not depend on their subject."""
        draw = self.rng.random()
        if draw < 0.25:
            return self.rng.choice(CORE_NOUNS)
        if draw < 0.45:
            return self.rng.choice(self.plain["noun"])
        return self.rng.choice(self.rng.choice(domain.aspects).names)

    def _predicate(self, domain: Domain, label: str) -> Clause:
        aspect = self.rng.choice(domain.aspects)
        name = self.rng.choice(aspect.names)
        adverb = self.rng.choice(("也", "都", "还", "", "", "", "", "", "真的", "确实", "实在是", "又", "的确", "居然"))
        return Clause(name + adverb + self.rng.choice(aspect.predicates[label]), name)

    def about(self, domain: Domain, label: str) -> Clause:
        """Noun + degree + adjective: any noun with any adjective."""
        noun = self._noun(domain)
        return Clause(noun + self.degree() + self.adjective(label), noun)

    def everyday(self, label: str) -> Clause:
        """The plainest clauses there are: 心情很差, 工作也不顺利, 一点也不贵."""
        pick, noun = self.rng.choice, self.rng.choice(CORE_NOUNS)
        if self.rng.random() < 0.65:
            link = pick(("", "", "", "也", "又", "还", "都"))
            return Clause(noun + link + pick((*CORE_DEGREES, "")) + pick(CORE[label]) + pick(("", "", "", "了")), noun)
        denial = pick(("不", "也不", "一点也不", "一点都不", "不太", "不够", "并不", "都不", "又不"))
        return Clause(noun + denial + pick([word for word in CORE[opposite(label)] if word[0] != "不"]), noun)

    def adjective(self, label: str) -> str:
        """Half the time one of the commonest."""
        return self.rng.choice(CORE[label] if self.rng.random() < 0.5 else self.both("adj", label))

    def degree(self) -> str:
        """An adverb of degree, or nothing."""
        return self.rng.choice(self.plain["degree"]) if self.rng.random() < 0.75 else ""

    def _negated(self, domain: Domain, label: str) -> Clause:
        word = self.rng.choice(NEGATED[label]) + self._plain_adjective(opposite(label))
        if self.rng.random() < 0.4:
            return Clause(word)
        noun = self._noun(domain)
        return Clause(noun + word, noun)

    def _plain_adjective(self, label: str) -> str:
        """One without a negation of its own: double negations come from the tricky lists."""
        while True:
            word = self.adjective(label)
            if word[0] not in "不没无未难有":
                return word

    def _comparison(self, domain: Domain, label: str) -> Clause:
        noun = self._noun(domain)
        return Clause(noun + self.rng.choice(COMPARED[label]).format(x=self.rng.choice(RIVALS)), noun)

    def opener(self, domain: Domain) -> str:
        """A clause without polarity that sets the scene."""
        pools: Sequence[Phrases] = (
            domain.openers,
            domain.neutral,
            self.plain["lead_in"],
            self.plain["when"],
            self.plain["time_fact"],
        )
        return self.rng.choice(self.rng.choices(pools, (10, 4, 4, 2, 2))[0])
