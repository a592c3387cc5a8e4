"""Tables and advice for people at a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from qwen_allinone.allinone import AllInOne
from qwen_allinone.checking import Outcome
from qwen_allinone.cpu import available_cores, compute_threads
from qwen_allinone.memory import memory_limit, resident_bytes
from qwen_allinone.settings import PREFIX, Settings

_MIB = 1024 * 1024


def check_table(outcomes: Mapping[str, list[Outcome]]) -> Table:
    """Task, cases, passed, share."""
    table = Table("task", "cases", "passed", "share", title="gold cases")
    for name, done in outcomes.items():
        passed = sum(outcome.passed for outcome in done)
        share = f"{passed / len(done):.1%}" if done else "-"
        table.add_row(name, str(len(done)), str(passed), share)
    return table


def print_failures(console: Console, outcomes: Mapping[str, list[Outcome]]) -> None:
    """Each case that failed, with the answer given."""
    for name, done in outcomes.items():
        for outcome in done:
            if not outcome.passed:
                given = " | ".join(outcome.case.inputs.values())
                console.print(f"[red]{name}[/] {escape(given)} -> {escape(outcome.answer)} ({escape(outcome.problem)})")


def settings_table(settings: Settings) -> Table:
    """Every setting with its value; those that differ from the default are marked."""
    table = Table("setting", "value", "meaning", title="settings (* set by you)")
    for field, info in Settings.model_fields.items():
        value = getattr(settings, field)
        mark = "*" if field in settings.model_fields_set else ""
        table.add_row(f"{PREFIX}{field.upper()}{mark}", escape(str(value)), escape(info.description or ""))
    return table


def print_model(console: Console, settings: Settings, service: AllInOne) -> None:
    """What was loaded and how the tasks look in its tokens."""
    checkpoint = service.checkpoint
    config, model = checkpoint.model.config, checkpoint.model
    table = Table("what", "value", title="model")
    table.add_row("folder", escape(str(checkpoint.folder)))
    for file in sorted(checkpoint.folder.iterdir()):
        table.add_row(f"  {escape(file.name)}", f"{file.stat().st_size / _MIB:.1f} MiB")
    table.add_row(
        "layers x hidden, vocabulary", f"{config.num_hidden_layers} x {config.hidden_size}, {config.vocab_size}"
    )
    table.add_row("heads (queries / keys)", f"{config.num_attention_heads} / {config.num_key_value_heads}")
    table.add_row("kernel, weights", f"{model.kernel}, {settings.weights}")
    table.add_row("stop ids", str(sorted(checkpoint.stop_ids)))
    table.add_row("cores available, threads a worker", f"{available_cores():g}, {_threads(settings)}")
    table.add_row("resident memory of one worker now", f"{resident_bytes() / _MIB:.0f} MiB")
    kv = config.kv_bytes_per_token * settings.kv_tokens
    table.add_row(f"keys and values, {settings.kv_tokens} tokens at most", f"{kv / _MIB:.0f} MiB")
    for task in service.registry:
        for label in task.labels:
            table.add_row(f"{task.name}: tokens of {escape(label)}", str(checkpoint.tokenizer.encode(label)))
    console.print(table)


def print_advice(console: Console, settings: Settings, service: AllInOne) -> None:
    """What would be worth changing."""
    advice = list(_advice(settings, service)) or ["nothing to change"]
    for line in advice:
        console.print(f"- {escape(line)}")


def _advice(settings: Settings, service: AllInOne) -> Iterator[str]:
    cores = available_cores()
    if settings.workers * _threads(settings) > max(1, cores):
        yield f"{settings.workers} workers x {_threads(settings)} threads want more than the {cores:g} cores there are"
    kv = service.checkpoint.model.config.kv_bytes_per_token * settings.kv_tokens
    need = settings.workers * (resident_bytes() + kv)
    limit = memory_limit()
    if need > limit:
        yield (
            f"{settings.workers} workers can come to {need / _MIB:.0f} MiB, but {limit / _MIB:.0f} MiB are granted: "
            "lower QAIO_KV_TOKENS or QAIO_WORKERS, or set QAIO_WEIGHTS=fp16 (or int8)"
        )
    if service.checkpoint.model.kernel == "dense":
        yield "plain products are used on this CPU: packed kernels fail here or are no faster"
    if settings.model == "demo":
        yield "the demo model is a stand-in; set QAIO_MODEL to a Qwen checkpoint for real use"


def _threads(settings: Settings) -> int:
    return compute_threads(settings.threads, settings.workers)
