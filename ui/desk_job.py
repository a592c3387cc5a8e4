"""A file of feedback that the service labels in its own time: begun, found again by its id, and what came of it.

All that it takes to go on lies at the service: the file, its batches, and which belong together. The id is that of the
batch that labels; the page and the browser may end meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from time import monotonic

from qwen_allinone import csv_files
from ui import batches, feedback, show
from ui.batches import Batch, Line
from ui.client import About, Api, ApiError, Task
from ui.desk_results import LABELS, SENTIMENT, SUGGEST, DeskResults, Said, fits, is_cut
from ui.desk_results import About as AboutFile
from ui.feedback import Sheet
from ui.labelled import Labelled
from ui.labelling import Outcome

_MADE_BY = "qwen-allinone page"
_PART = "part "  # in the metadata, before the name of a task
_LONGEST_NAME = 100
_SUGGEST_INPUTS = {"text", "label", "intent"}


def offers_desk(about: About | None, task: Task | None) -> bool:
    """Whether alarms, replies and a report can be had with the labels of `task`."""
    if about is None or task is None or not about.batches or not fits(task):
        return False
    return all(about.task(name) is not None for name in LABELS)


@dataclass
class DeskJob:
    """One file at work. `parts` are its batches by task; `main` is the one that all is found by."""

    api: Api
    about: About
    labelled: Labelled
    name: str
    sheet_file: str
    main: str
    parts: dict[str, Batch]
    suggests: bool  # not yet asked for
    problem: str = ""

    def __post_init__(self) -> None:
        self.labelled = replace(self.labelled, found=self.outcome)
        self._texts = list(dict.fromkeys(self.labelled.texts))
        self._numbers = {text: number for number, text in enumerate(self._texts)}
        self._answers = dict[str, dict[int, Line]]()
        self._began, self._done_before = monotonic(), self._done

    @classmethod
    async def begin(
        cls,
        api: Api,
        about: About,
        data: bytes,
        header: bool,
        column: int,
        task: Task,
        name: str,
        *,
        most: int,
        desk: bool,
    ) -> DeskJob:
        """Hand a file over. `desk`: with alarms, replies and a report. Raises ApiError, nothing is left of it then;
        Unreadable."""
        data = csv_files.MARK + csv_files.decode(data)[0].encode("utf-8")
        labelled = _labelled(data, header, column, task, most)
        texts = {number: {"text": text} for number, text in enumerate(dict.fromkeys(labelled.texts))}
        if not texts:
            raise ApiError("这一列里没有文字，请选另一列")
        sheet_file = await batches.upload(api, "sheet.csv", data)
        kept = {"made_by": _MADE_BY, "sheet": sheet_file, "name": name[:_LONGEST_NAME], "task": task.name}
        kept |= {"header": str(int(header)), "column": str(column), "most": str(most), "desk": str(int(desk))}
        parts = dict[str, Batch]()
        try:
            # The one that knows all others is begun last.
            for part in (*(LABELS if desk else ()), task.name):
                asked = about.task(part)
                assert asked is not None, "offers_desk has looked"
                bodies = {n: {asked.inputs[0]: body["text"], "detail": True} for n, body in texts.items()}
                others = {f"{_PART}{other}": batch.id for other, batch in parts.items()}
                more = {**kept, **others} if part == task.name else {"made_by": _MADE_BY, "sheet": sheet_file}
                parts[part] = await batches.begin(api, asked.path, bodies, more)
        except ApiError:
            await _undo(api, parts, sheet_file)
            raise
        return cls(api, about, labelled, name, sheet_file, parts[task.name].id, parts, desk and _suggests(about))

    @classmethod
    async def resume(cls, api: Api, about: About, id: str) -> DeskJob:
        """One that was begun before. Raises ApiError where the service has it no more, or it is none."""
        main = await batches.look(api, id)
        kept = main.metadata
        task = about.task(kept.get("task"))
        if kept.get("made_by") != _MADE_BY or "sheet" not in kept or task is None:
            raise ApiError("这个编号不是本页的文件", status=404)
        data = await batches.content(api, kept["sheet"])
        try:
            labelled = _labelled(data, kept["header"] == "1", int(kept["column"]), task, int(kept["most"]))
        except (feedback.Unreadable, KeyError, ValueError):
            raise ApiError("这个编号不是本页的文件", status=404) from None
        others = {name.removeprefix(_PART): batch for name, batch in kept.items() if name.startswith(_PART)}
        parts = {name: await batches.look(api, batch) for name, batch in others.items()} | {task.name: main}
        desk = kept.get("desk") == "1"
        if desk and (replies := await batches.find(api, replies_to=id)):
            parts[SUGGEST] = replies
        suggests = desk and SUGGEST not in parts and _suggests(about)
        return cls(api, about, labelled, kept["name"], kept["sheet"], id, parts, suggests)

    @property
    def over(self) -> bool:
        return all(batch.over for batch in self.parts.values()) and not self.suggests

    async def look(self) -> None:
        """See how far it is; once all is labelled, ask for replies to complaints. Raises ApiError."""
        for name, batch in self.parts.items():
            if not batch.over:
                self.parts[name] = await batches.look(self.api, batch.id)
        if self.suggests and all(batch.over for batch in self.parts.values()):
            if not self.stopped:
                await self._suggest()
            self.suggests = False  # not before: what fails is tried again

    async def stop(self) -> None:
        """Let no further line begin. Raises ApiError."""
        self.suggests = False
        for batch in self.parts.values():
            if not batch.over:
                await batches.cancel(self.api, batch.id)

    @property
    def stopped(self) -> bool:
        return any(batch.status in ("cancelling", "cancelled") for batch in self.parts.values())

    async def discard(self) -> None:
        """Have the service forget the file and all that came of it, as far as it can be asked."""
        files = [file for batch in self.parts.values() for file in batch.files]
        await batches.delete(self.api, [self.sheet_file, *files])

    def progress(self) -> str:
        total = sum(batch.total or len(self._texts) for batch in self.parts.values())
        said = f"{self._done} / {total} 次判断"
        if self.over:
            states = {batch.status for batch in self.parts.values()}
            said += "，已停止" if self.stopped else "，提前结束" if states != {"completed"} else "，完成"
        else:
            fresh = self._done - self._done_before
            if fresh:
                left = (monotonic() - self._began) / fresh * (total - self._done)
                said += f"，大约还要 {show.duration(left)}"
            said += "。服务在空闲时处理；可以关掉这一页，回来时接着显示"
        return show.progress(self._done, total, said)

    async def fetch(self) -> None:
        """Get the answers of all parts that are over. Raises ApiError."""
        for name, batch in self.parts.items():
            if batch.over and name not in self._answers:
                self.problem = self.problem or batch.problem
                self._answers[name] = await batches.answers(self.api, batch)

    def outcome(self, text: str) -> Outcome | None:
        """Of the label task; after `fetch`."""
        line = self._line(self.labelled.task.name, text)
        if line is None:
            return None
        if line.error:
            return Outcome(error=line.error)
        said = _said(line)
        return Outcome(said.label, said.probability) if said.label else Outcome(error="服务没有给出标签")

    async def desk(self) -> DeskResults | None:
        """Alarms, replies and the report; None where only labels were asked for. Raises ApiError."""
        if not fits(self.labelled.task) or LABELS[0] not in self.parts:
            return None
        about = await self._about_file()
        return await asyncio.to_thread(DeskResults, self.labelled, about, self._look)

    async def _suggest(self) -> None:
        await self.fetch()
        results = await self.desk()
        wanted = results.complaints() if results else {}
        task = self.about.task(SUGGEST)
        if not wanted or task is None:
            return
        bodies = {self._numbers[text]: {**inputs, "detail": True} for text, inputs in wanted.items()}
        kept = {"made_by": _MADE_BY, "replies_to": self.main}
        if begun := await batches.find(self.api, replies_to=self.main):  # by a try whose answer was lost
            self.parts[SUGGEST] = begun
            return
        self.parts[SUGGEST] = await batches.begin(self.api, task.path, bodies, kept)

    async def _about_file(self) -> AboutFile:
        listed = (await self.api.ask("GET", "/v1/tasks"))["tasks"]
        mine = [entry for entry in listed if entry["name"] in (SENTIMENT, *LABELS, SUGGEST)]
        return AboutFile(
            self.about.model,
            f"{self.name}.csv",
            {entry["name"]: tuple(entry["labels"]) for entry in mine},
            {e["name"]: (int(e["gold"]["cases"]), float(e["gold"]["accuracy"])) for e in mine if e.get("gold")},
        )

    def _look(self, task: str, text: str) -> Said | str | None:
        line = self._line(task, text)
        return None if line is None else line.error or _said(line)

    def _line(self, task: str, text: str) -> Line | None:
        return self._answers.get(task, {}).get(self._numbers.get(text, -1))

    @property
    def _done(self) -> int:
        return sum(batch.done for batch in self.parts.values())


def _labelled(data: bytes, header: bool, column: int, task: Task, most: int) -> Labelled:
    sheet: Sheet = feedback.read(data, header=header, most=most)
    return Labelled(sheet, min(column, len(sheet.columns) - 1), task, lambda text: None)


def _suggests(about: About) -> bool:
    task = about.task(SUGGEST)
    return task is not None and set(task.inputs) == _SUGGEST_INPUTS


def _said(line: Line) -> Said:
    body = line.body
    try:
        label = str(body.get("label") or "")
        likely = float(body["detail"]["probabilities"].get(label, 0.0)) if label else 0.0
        items, text = tuple(map(str, body.get("items") or ())), str(body.get("text") or "")
        return Said(label, round(likely, 4), items, text, is_cut(body))
    except (AttributeError, KeyError, TypeError, ValueError):
        return Said()


async def _undo(api: Api, parts: Mapping[str, Batch], sheet_file: str) -> None:
    for batch in parts.values():
        try:
            await batches.cancel(api, batch.id)
        except ApiError:
            continue
    await batches.delete(api, [sheet_file, *(file for batch in parts.values() for file in batch.files)])
