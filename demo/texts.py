"""All that a training reads, and the tokenizer that is learned from it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field

from demo.corpus.apart import Apart, measured_sentences
from demo.corpus.dialogues import Dialogue, Turn, clear_of
from demo.corpus.frames import GAP, Frames, read_frames
from demo.corpus.jobs.intents import INTENTS
from demo.corpus.jobs.routes import ROUTES
from demo.corpus.jobs.sample import Sample
from demo.corpus.jobs.taught import CARE, taught
from demo.corpus.lexicon import LABELS, Lexicon
from demo.corpus.messages import read_conversations
from demo.corpus.pools import Pool, build
from demo.corpus.verdicts import read_verdicts
from demo.prompts import ROOT, Prompts
from demo.tokenizer import build_tokenizer, save_tokenizer
from qwen_allinone.model.tokenizer import Tokenizer

JOB_SAMPLES = 20_000
# The turns of the further tasks: what has to be written takes more practice than a label. An odd number of them, so
# that each of two processes comes to all.
TURNS = (
    "translate", "keywords", "summary", "sentiment_en", "care", "suggest", "translate", "keywords", "summary", "route",
    "remember", "intent", "translate", "keywords", "summary", "sentiment_en", "care", "route", "care",
    "ticket", "aspects", "urgency", "handover", "category", "satisfaction", "urgency", "handover", "category",
    "satisfaction",
)  # fmt: skip


@dataclass
class Texts:
    """All that is read."""

    prompts: Prompts
    pool: Pool
    jobs: dict[str, list[Sample]]
    frames: Mapping[str, Frames]
    turns: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.dialogues = clear_of(Apart(measured_sentences()), read_conversations() + well_said())
        self.turns = tuple(task for task in TURNS if task in self.jobs)

    @classmethod
    def read(cls, options: argparse.Namespace, pool: Pool | None = None) -> Texts:
        """`pool`: None for the one of all moods, with a teacher."""
        if pool is None:
            pool = build(options.work / "pools", options.seed, options.scale)
        jobs = taught(Lexicon.load(), options.seed * 3000, round(JOB_SAMPLES * options.scale))
        frames = {kind: each.first(options.frames) for kind, each in read_frames().items()}
        return cls(Prompts(Tokenizer.load(options.out)), pool, jobs, frames)


def well_said() -> list[Dialogue]:
    """First messages with what was said to them and found to fit."""
    firsts = [one for one in read_verdicts() if len(one.said) == 1 and one.fitting]
    return [Dialogue((Turn(one.moods[0], one.said, tuple(dict.fromkeys(one.fitting))),)) for one in firsts]


def make_tokenizer(options: argparse.Namespace) -> None:
    """Learn the tokenizer from the corpus and write it to the checkpoint's folder."""
    pool = build(options.work / "pools", options.seed, options.scale)
    jobs = taught(Lexicon.load(), options.seed * 3000, 2500)
    turns = [turn for dialogue in read_conversations() for turn in dialogue.turns]
    talk = [text for turn in turns for text in (*turn.texts, *turn.replies)]
    talk += [text.replace(GAP, "") for kind in read_frames().values() for text in (*kind.gapped, *kind.whole)]
    drawn = [text for part in jobs.values() for sample in part for text in (sample.text, sample.answer)]
    prompts = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "prompts").glob("*/prompt.md"))]
    prompts += [(ROOT / "demo/corpus" / f"{name}.yaml").read_text(encoding="utf-8") for name in ("systems", "wordings")]
    options.out.mkdir(parents=True, exist_ok=True)
    words = [*LABELS, *INTENTS, *ROUTES, *CARE]
    lines = pool.texts[:: max(1, len(pool) // 40_000)] + drawn + talk * 3 + prompts * 50
    save_tokenizer(build_tokenizer(lines, words, options.vocabulary), options.out)
    made = Prompts(Tokenizer.load(options.out))
    for text in talk[:600] + drawn[::200]:
        made.check(text)
    made.check_conversation(talk[:3])
