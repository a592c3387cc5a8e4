"""How well vectors of a model find what means the same: the mean of a text's states against the state after a prompt.

    python -m benchmarks.embeddings --model DIR

Sixty pairs written for this, thirty in each language, that say one thing with few words in common. For each first half
all second halves of its language are ranked by cosine. `first`: the share that finds its own first, `mrr`: the mean of
one over its rank; by chance 0.03 and 0.13. `centred`: what all vectors have in common is taken out before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from qwen_allinone.model import checkpoint
from qwen_allinone.model.attention import Chunk
from qwen_allinone.model.checkpoint import Checkpoint
from qwen_allinone.model.kv import KVCache
from qwen_allinone.service.embeddings import AFTER, BEFORE

Pairs = Sequence[tuple[str, str]]

CHINESE: Pairs = (
    ("快递三天了还没到", "包裹怎么这么久都不送来"),
    ("房间隔音很差", "晚上能听见隔壁说话"),
    ("我今天升职了", "领导让我当经理了"),
    ("这件衣服太小了穿不上", "尺码不对，想换大一号"),
    ("手机充不进电", "插上电源没有反应"),
    ("我不吃辣", "请不要放辣椒"),
    ("孩子发烧了", "宝宝体温三十九度"),
    ("明天要下雨", "出门记得带伞"),
    ("他们分手了", "那对情侣不在一起了"),
    ("我想退款", "把钱还给我吧"),
    ("电影很无聊", "看到一半就睡着了"),
    ("我养了一只猫", "家里有个会喵喵叫的宠物"),
    ("公司倒闭了", "单位开不下去关门了"),
    ("早餐很丰富", "早上吃的东西种类多"),
    ("我考试没及格", "这门课挂科了"),
    ("菜太咸", "盐放多了"),
    ("我失眠", "夜里怎么也睡不着"),
    ("地铁站就在楼下", "出门走两步就能坐轨道交通"),
    ("客服态度恶劣", "接线员说话很不客气"),
    ("价格便宜", "花不了多少钱"),
    ("我要搬家", "下个月换个地方住"),
    ("奶奶去世了", "家里的老人走了"),
    ("发票开错了", "抬头写得不对要重开"),
    ("忘记密码", "登录不进自己的账号"),
    ("堵车迟到了", "路上车太多没赶上时间"),
    ("我在学弹琴", "每天练习钢琴"),
    ("外卖洒了", "汤全流在袋子里"),
    ("屏幕碎了", "显示器裂开一道缝"),
    ("我们结婚十年了", "和爱人成家已有十载"),
    ("飞机晚点", "航班推迟起飞"),
)
ENGLISH: Pairs = (
    ("The parcel never arrived", "My delivery is lost"),
    ("The walls are thin", "I could hear the neighbours all night"),
    ("I got promoted today", "My boss made me a manager"),
    ("This shirt is too tight", "I need a larger size"),
    ("My phone will not charge", "Nothing happens when I plug it in"),
    ("I do not eat meat", "I am a vegetarian"),
    ("My son has a fever", "The boy's temperature is high"),
    ("It will rain tomorrow", "Take an umbrella when you go out"),
    ("They broke up", "The couple is no longer together"),
    ("I want a refund", "Please give me my money back"),
    ("The film was boring", "I fell asleep halfway through the movie"),
    ("I have a cat", "There is a purring pet at my home"),
    ("The company went bankrupt", "The firm had to close its doors"),
    ("Breakfast was plentiful", "There was a lot to eat in the morning"),
    ("I failed the exam", "I did not pass my test"),
    ("The soup is too salty", "They used a lot of salt in it"),
    ("I cannot sleep", "I lie awake every night"),
    ("The station is next door", "You can walk to the train in a minute"),
    ("The agent was rude", "Support spoke to me without respect"),
    ("It is cheap", "It costs very little"),
    ("I am moving house", "Next month I will live somewhere else"),
    ("My grandmother died", "We lost the oldest of our family"),
    ("The invoice is wrong", "You billed me for something else"),
    ("I forgot my password", "I am locked out of my account"),
    ("I was late because of traffic", "The roads were jammed and I missed the start"),
    ("I am learning the piano", "I practise the keys every day"),
    ("The food was cold", "Dinner had no warmth left when it came"),
    ("The screen is cracked", "There is broken glass on my display"),
    ("We have been married ten years", "My wife and I wed a decade ago"),
    ("The flight is delayed", "The plane will leave later than planned"),
)


@cache
def _cache_of(loaded: Checkpoint) -> KVCache:
    return loaded.model.new_cache(1)


def states(loaded: Checkpoint, text: str) -> Tensor:
    """The normalised hidden states of all tokens of `text`, [tokens, hidden]."""
    tokens = loaded.tokenizer.encode(text)
    chunk = Chunk(0, 0, tokens)
    chunk.wanted = range(len(tokens))
    return loaded.model.forward([chunk], _cache_of(loaded))


WAYS: dict[str, Callable[[Checkpoint, str], Tensor]] = {
    "mean of the text": lambda loaded, text: states(loaded, text).mean(0),
    "last state of the text": lambda loaded, text: states(loaded, text)[-1],
    "last state after the prompt": lambda loaded, text: states(loaded, f"{BEFORE}{text}{AFTER}")[-1],
}


def found(firsts: Tensor, seconds: Tensor) -> tuple[float, float]:
    """The share of `firsts` [n, hidden] whose own second is the likest, and the mean of one over its rank."""
    likeness = F.normalize(firsts, dim=1) @ F.normalize(seconds, dim=1).T
    ranks = (likeness >= likeness.diagonal().unsqueeze(1)).sum(1)
    return float((ranks == 1).float().mean()), float((1 / ranks).mean())


def main(model: Annotated[str, typer.Option()] = "demo", context: int = 256) -> None:
    loaded = checkpoint.load(model, "main", "fp32", context)
    table = Table("pairs", "vector", "first", "mrr", "centred first", "centred mrr", title=loaded.name)
    for language, pairs in (("Chinese", CHINESE), ("English", ENGLISH)):
        for name, vector in WAYS.items():
            halves = [torch.stack([vector(loaded, pair[half]) for pair in pairs]) for half in (0, 1)]
            middle = torch.cat(halves).mean(0)
            figures = [*found(*halves), *found(*[half - middle for half in halves])]
            table.add_row(language, name, *[f"{figure:.2f}" for figure in figures])
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
