"""What the page shows, as HTML. Everything that comes from people, files or the model goes through `escape`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from ui.bench import Case, Side, Trial
from ui.client import Answer, Task
from ui.feedback import BadRow

_COLOURS = 6  # in style.css: c0 to c5
_BAD_ROWS_SHOWN = 20
_SHORT = 8  # characters of an answer that stay in one line


@dataclass
class Turn:
    """One exchange. `state` is waiting, streaming, done, stopped or failed; `error` says why it failed. `recalled`: the
    memories that the reply was told."""

    text: str
    emoji: str = ""
    label: str = ""
    probability: float | None = None
    reply: str = ""
    state: str = "waiting"
    error: str = ""
    remark: str = ""
    recalled: tuple[str, ...] = ()


@dataclass(frozen=True)
class TableRow:
    """A row of a labelled file: the line it begins in, its text, label, how sure that is, or why there is none."""

    line: int
    text: str
    label: str
    sure: str
    why: str


def conversation(turns: Sequence[Turn]) -> str:
    """All turns, oldest first; an invitation where there are none."""
    if not turns:
        return (
            '<div class="empty"><div class="empty-face emoji">😄 😢</div>'
            "<p>说说今天的事吧。先判断这句话的情感，再温暖地回应。</p></div>"
        )
    talk = f'<div class="talk" role="log" aria-live="polite" aria-label="对话">{"".join(map(_turn, turns))}</div>'
    return f'<div class="newest" tabindex="0">{talk}</div>'


def _turn(turn: Turn) -> str:
    parts = [f'<p class="remark">{escape(turn.remark)}</p>'] if turn.remark else []
    parts.append(f'<div class="bubble mine">{escape(turn.text)}</div>')
    said = []
    if turn.label:
        face = f'<span class="emoji">{escape(turn.emoji)}</span> ' if turn.emoji else ""
        sure = f'<span class="sure">{percent(turn.probability)}</span>' if turn.probability is not None else ""
        tone = {"正面": "c0", "负面": "c1"}.get(turn.label, "c3")
        line = f"{face}LLM 情感判断: {escape(turn.label)}"
        said.append(f'<div class="verdict"><span class="chip {tone}">{line}</span>{sure}</div>')
    if turn.reply:
        caret = '<span class="caret"></span>' if turn.state == "streaming" else ""
        said.append(f'<div class="reply">{escape(turn.reply)}{caret}</div>')
    elif turn.state in ("waiting", "streaming"):
        said.append('<div class="dots" aria-label="正在回答"><i></i><i></i><i></i></div>')
    if turn.recalled:
        said.append(f'<p class="remark recalled">想起了：{escape("；".join(turn.recalled))}</p>')
    if turn.state == "stopped":
        said.append('<p class="remark">已停止</p>')
    if turn.error:
        said.append(f'<p class="fault" role="alert">{escape(turn.error)}</p>')
    return f'{"".join(parts)}<div class="bubble theirs {turn.state}">{"".join(said)}</div>'


def notice(message: str, *, kind: str = "fault") -> str:
    """A line that stands out; nothing for an empty message. `kind` is fault or hint."""
    return f'<div class="notice {kind}" role="alert">{escape(message)}</div>' if message else ""


def answer(task: Task, given: Answer, *, picked: bool = False) -> str:
    """What a task answered, by its kind. `picked`: nobody chose the task but the model, so it is named."""
    named = f'<p class="remark">挑选的任务：{escape(task.description)}</p>' if picked else ""
    if given.label is not None:
        tone = colour(given.label, task.labels)
        chart = bars(given.probabilities, task.labels, given.label) if given.probabilities else ""
        return f'<div class="card">{named}<span class="chip big {tone}">{escape(given.label)}</span>{chart}</div>'
    if given.items:
        chips = "".join(f'<li class="chip c3">{escape(item)}</li>' for item in given.items)
        return f'<div class="card">{named}<ul class="items">{chips}</ul></div>'
    if given.value is not None:
        return f'<div class="card">{named}{_json(given.value)}</div>'
    if given.text:
        return f'<div class="card">{named}<div class="said">{escape(given.text)}</div></div>'
    return f'<div class="card remark">{named}模型没有给出内容</div>'


def _json(value: Any) -> str:
    """A JSON value as people read it: an object as rows, objects alike as a table, anything else as it is written."""
    if value and isinstance(value, dict) and all(map(_is_plain, value.values())):
        rows = [f"<tr><th>{escape(name)}</th><td>{_cell(cell)}</td></tr>" for name, cell in value.items()]
        return f'<table class="rows"><tbody>{"".join(rows)}</tbody></table>'
    if value and isinstance(value, list) and all(isinstance(row, dict) and row for row in value):
        names = list(dict.fromkeys(name for row in value for name in row))
        if all(_is_plain(cell) for row in value for cell in row.values()):
            head = "".join(f"<th>{escape(name)}</th>" for name in names)
            body = ["".join(f"<td>{_cell(row.get(name))}</td>" for name in names) for row in value]
            rows = [f"<tr>{cells}</tr>" for cells in body]
            return f'<table class="rows"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    return f'<pre class="said">{escape(json.dumps(value, ensure_ascii=False, indent=2))}</pre>'


def _is_plain(value: Any) -> bool:
    return not isinstance(value, (dict, list))


def _cell(value: Any) -> str:
    """A text as it is, nothing as a dash, the others as JSON writes them."""
    return "—" if value is None else escape(value if isinstance(value, str) else json.dumps(value))


def working() -> str:
    """While a task runs."""
    return '<div class="card"><div class="dots" aria-label="正在计算"><i></i><i></i><i></i></div></div>'


def bars(probabilities: Mapping[str, float], order: Sequence[str], chosen: str = "") -> str:
    """A bar for each label, as long as its probability, likeliest first."""
    ranked = sorted(probabilities.items(), key=lambda item: -item[1])
    rows = [_bar(label, value, percent(value), colour(label, order), faint=label != chosen) for label, value in ranked]
    return f'<div class="bars" role="list" aria-label="各标签的概率">{"".join(rows)}</div>'


def shares(counts: Mapping[str, int], order: Sequence[str]) -> str:
    """A bar for each label, as long as its share of all that have one; in the order of the task."""
    total = sum(counts.values())
    if not total:
        return ""
    labels = [*order, *sorted(set(counts) - set(order))]
    rows = [
        _bar(label, counts.get(label, 0) / total, _share(counts.get(label, 0), total), colour(label, order))
        for label in labels
    ]
    return f'<div class="card"><h3>各标签占比</h3><div class="bars" role="list">{"".join(rows)}</div></div>'


def progress(done: int, total: int, said: str) -> str:
    """How far a run is."""
    share = done / total if total else 1.0
    return (
        f'<div class="progress" role="progressbar" aria-label="进度" aria-valuemax="{total}" aria-valuenow="{done}">'
        f'<div class="bar-track"><div class="bar-fill" style="width:{share:.2%}"></div></div>'
        f"<p>{escape(said)}</p></div>"
    )


def table(text: str, rows: Sequence[TableRow], order: Sequence[str], total: int) -> str:
    """The first rows of `total`, the column of texts headed `text`; no column that is empty all the way down."""
    sure, why = any(row.sure for row in rows), any(row.why for row in rows)
    body = []
    for row in rows:
        cells = [
            f'<td class="number">{row.line}</td><td class="text">{escape(row.text)}</td>',
            f"<td>{_label(row.label, order)}</td>",
            f'<td class="number">{escape(row.sure)}</td>' if sure else "",
            f'<td class="why">{escape(row.why)}</td>' if why else "",
        ]
        body.append(f"<tr>{''.join(cells)}</tr>")
    head = f"<th>行</th><th>{escape(text)}</th><th>标签</th>"
    head += ("<th>概率</th>" if sure else "") + ('<th class="why">说明</th>' if why else "")
    listed = f"这里只列出前 {len(rows)} 行，全部 {total} 行在下载的文件里"
    more = f'<p class="remark">{listed}</p>' if len(rows) < total else ""
    return (
        f'<div class="scroll" tabindex="0"><table class="rows"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>{more}"
    )


def bad_rows(rows: Iterable[BadRow]) -> str:
    """The records that could not be read, with their lines; nothing where there are none."""
    listed = list(rows)
    if not listed:
        return ""
    shown = "".join(f"<li>第 {row.line} 行：{escape(row.reason)}</li>" for row in listed[:_BAD_ROWS_SHOWN])
    more = f"<li>……共 {len(listed)} 处</li>" if len(listed) > _BAD_ROWS_SHOWN else ""
    return f'<div class="notice hint"><strong>{len(listed)} 行未处理</strong><ul>{shown}{more}</ul></div>'


def colour(label: str, order: Sequence[str]) -> str:
    """The class that colours a label: by its place in its task, so that it is the same everywhere."""
    return f"c{order.index(label) % (_COLOURS - 1)}" if label in order else f"c{_COLOURS - 1}"


def _label(label: str, order: Sequence[str]) -> str:
    return f'<span class="chip {colour(label, order)}">{escape(label)}</span>' if label else "—"


def _bar(label: str, share: float, figure: str, tone: str, *, faint: bool = False) -> str:
    return (
        f'<div class="bar {tone}{" faint" if faint else ""}" role="listitem">'
        f'<span class="bar-name">{escape(label)}</span>'
        f'<span class="bar-track"><span class="bar-fill" style="width:{share:.2%}"></span></span>'
        f'<span class="bar-figure">{escape(figure)}</span></div>'
    )


def _share(count: int, total: int) -> str:
    return f"{count} 条 · {percent(count / total)}"


def percent(share: float) -> str:
    """A share from 0 to 1."""
    return f"{share:.1%}"


def duration(seconds: float) -> str:
    """As people say it."""
    return f"{seconds:.0f} 秒" if seconds < 90 else f"{seconds / 60:.0f} 分钟"


@dataclass(frozen=True)
class Alarm:
    """A row that somebody should look at: how soon, why, what it says, where it stands, what could be answered."""

    level: str
    names: Sequence[str]
    text: str
    where: str
    suggestion: str


def alarms(total: int, shown: Sequence[Alarm], dropped: int = 0) -> str:
    """The gravest of `total` alarms with their suggested replies. `dropped`: how many replies could not be used."""
    if not total:
        return '<div class="notice hint">没有警报</div>'
    listed = "".join(map(_alarm, shown))
    more = f"，这里列出最要紧的 {len(shown)} 条" if len(shown) < total else ""
    lost = f"；另有 {dropped} 条不断重复或没有写完，没有采用" if dropped else ""
    return (
        f'<div class="card"><h3>警报 {total} 条{more}</h3><p class="remark">建议回复只是草稿，发出前请改好{lost}</p>'
        f'<ul class="alarms scroll" tabindex="0" aria-label="警报">{listed}</ul></div>'
    )


def _alarm(one: Alarm) -> str:
    tone = "c2" if one.level == "一般" else "c1"
    reply = f'<p class="suggestion">建议回复：{escape(one.suggestion)}</p>' if one.suggestion else ""
    return (
        f'<li class="alarm"><div class="verdict"><span class="chip {tone}">{escape(one.level)}</span>'
        f'<span>{escape("、".join(one.names))}</span><span class="sure">{escape(one.where)}</span></div>'
        f'<p class="said">{escape(one.text)}</p>{reply}</li>'
    )


def document(title: str, page: str) -> str:
    """A whole HTML page inside this one; nothing in it runs."""
    return f'<iframe class="document" title="{escape(title)}" sandbox srcdoc="{escape(page)}"></iframe>'


def trial(tried: Trial) -> str:
    """A changed prompt beside the old one: how many are right, and each case, those that changed first."""
    sides = [("原来", tried.before, "c5"), ("改后", tried.now, "c0")]
    rows = [_bar(name, share, percent(share), tone) for name, share, tone in sides if share is not None]
    broken = sum(_kind(case) == 0 for case in tried.cases)
    mended = sum(_kind(case) == 1 for case in tried.cases)
    other = sum(case.before is not None and case.before.answer != case.now.answer for case in tried.cases)
    told = f"{len(tried.cases)} 条用例：{mended} 条变对，{broken} 条变错，{other} 条回答不同"
    if tried.before is None:
        told = f"{len(tried.cases)} 条用例；原来的提示词输入或种类不同，不能比较"
    body = "".join(map(_case, sorted(tried.cases, key=_kind)))
    return (
        f'<div class="card"><h3>正确率</h3><div class="bars" role="list">{"".join(rows)}</div>'
        f'<p class="remark">{told}</p></div><div class="scroll tall" tabindex="0"><table class="rows cases"><thead><tr>'
        f"<th></th><th>输入</th><th>应为</th><th>原来</th><th>改后</th></tr></thead><tbody>{body}</tbody></table></div>"
    )


_KINDS = (("变错", "c1"), ("变对", "c0"), ("仍错", "c2"), ("仍对", "c5"))


def _kind(case: Case) -> int:
    """Which of `_KINDS`."""
    if case.before is None or case.before.right == case.now.right:
        return 3 if case.now.right else 2
    return 1 if case.now.right else 0


def _case(case: Case) -> str:
    name, tone = _KINDS[_kind(case)]
    if case.before is None:
        name = "对" if case.now.right else "错"
    given = case.inputs.values() if len(case.inputs) == 1 else (f"{n}：{text}" for n, text in case.inputs.items())
    return (
        f'<tr><td><span class="chip {tone}">{name}</span></td><td class="text">{escape(chr(10).join(given))}</td>'
        f"<td>{escape(case.expected)}</td><td>{_side(case.before)}</td><td>{_side(case.now)}</td></tr>"
    )


def _side(side: Side | None) -> str:
    if side is None:
        return "—"
    tone, said, sign = ("", "对", "✓") if side.right else (" fault", "错", "✗")
    mark = f'<span class="mark{tone}" aria-label="{said}" role="img">{sign}</span>'
    whole = ' class="whole"' if len(side.answer) <= _SHORT else ""
    return f"<span{whole}>{mark} {escape(side.answer)}</span>"
