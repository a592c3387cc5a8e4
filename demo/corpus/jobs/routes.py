"""Texts of all kinds with the task that fits each: what a text asks for, or else what kind of text it is."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from demo.corpus.generate import Generator
from demo.corpus.jobs.bilingual import Bilingual
from demo.corpus.jobs.english import English
from demo.corpus.jobs.intents import ASK, COMPLAIN, SUGGEST, Intents
from demo.corpus.jobs.notices import Notices
from demo.corpus.jobs.sample import Sample

MOOD, REVIEW, INTENT, KEYWORDS, SUMMARY, TRANSLATE = ROUTES = ("情感", "英评", "意图", "关键词", "摘要", "翻译")
REQUESTS = {
    MOOD: ("判断情感", "这句话是正面还是负面", "这条评论是好评还是差评", "看看这句话的情绪", "分析一下情感", "这是夸还是骂", "情感分析", "这段话是褒还是贬", "他是高兴还是生气", "判断一下心情"),
    REVIEW: ("Is this positive or negative", "Positive or negative", "Sentiment", "What is the sentiment of this", "判断这句英文的情感", "这句英文是好评还是差评", "这条英文评论是正面还是负面", "Is this a good review"),
    INTENT: ("判断意图", "这句话的意图是什么", "这是咨询还是投诉", "这条留言属于哪一类", "留言分类", "他是在投诉还是建议", "看看这位顾客想干什么", "意图识别", "客户留言", "分析一下用户的意图"),
    KEYWORDS: ("提取关键词", "关键词", "帮我找出关键词", "列出关键词", "请提取下面的关键词", "抽取关键字", "这段话的关键词是什么", "给这句话标几个关键词", "说说关键词有哪些", "用几个词概括", "挑出重点词", "关键词提取", "打几个标签", "帮我给下面的话写关键词"),
    SUMMARY: ("总结一下", "帮我总结", "概括一下", "一句话总结", "摘要", "写个摘要", "用一句话概括", "请概括下面这段话", "太长了，帮我缩短", "这段话说了什么", "概括大意", "总结下面的内容", "简单说说这段话讲了什么", "请写一句摘要"),
    TRANSLATE: ("翻译", "翻译一下", "帮我翻译", "译成英文", "译成中文", "翻译成英语", "把这句话翻译成英文", "用英语怎么说", "用英文怎么说", "请翻译", "Translate", "Translate this", "Translate into Chinese", "帮我译一下", "这句话的英文是什么", "请译成中文", "把下面的话译成英文"),
}  # fmt: skip
MARKS = ("：", "：", ":", "，", " ", "\n", "。")


def requested(route: str, text: str, rng: Random) -> str:
    """`text` with a request before it, as people type one."""
    lead = rng.choice(("", "", "", "请", "麻烦", "你好，")) if rng.random() < 0.4 else ""
    return lead + rng.choice(REQUESTS[route]) + rng.choice(MARKS) + text


class Routes:
    """Draws texts for each task in turn."""

    def __init__(self, intents: Intents, english: English, notices: Notices, bilingual: Bilingual, texts: Generator):
        self.rng = texts.rng
        self.intents, self.english, self.notices, self.bilingual, self.texts = (
            intents,
            english,
            notices,
            bilingual,
            texts,
        )
        self._turn = 0
        self._of: dict[str, Callable[[], str]] = {
            MOOD: self._mood, REVIEW: lambda: english.draw().text, INTENT: self._message,
            KEYWORDS: self._any_chinese, SUMMARY: self._long, TRANSLATE: self._sentence,
        }  # fmt: skip

    def draw(self) -> Sample:
        """The next text with its route."""
        self._turn += 1
        route = ROUTES[self._turn % len(ROUTES)]
        text = self._of[route]()
        # What has no kind of text to itself must be asked for; everything else may be.
        asked = route == KEYWORDS or (route == TRANSLATE and not text.isascii()) or self.rng.random() < 0.3
        if asked and route == SUMMARY and self.rng.random() < 0.4:
            text = self._any_chinese()
        return Sample(requested(route, text, self.rng) if asked else text, route)

    def _mood(self) -> str:
        return self.texts.labelled()[0][:120]

    def _message(self) -> str:
        return self.intents.message(self.rng.choice((ASK, ASK, COMPLAIN, SUGGEST)))

    def _long(self) -> str:
        return self.notices.summary().text

    def _any_chinese(self) -> str:
        draw = self.rng.random()
        if draw < 0.6:
            return self.notices.keywords().text
        return self._long() if draw < 0.8 else self._mood()

    def _sentence(self) -> str:
        return self.rng.choice(self.bilingual.pair())
