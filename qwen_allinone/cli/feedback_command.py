"""`qwen-allinone feedback`: files of feedback labelled, with alarms, suggested replies and a report."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from qwen_allinone import desk
from qwen_allinone.cli.feedback_alerts import row_alerts
from qwen_allinone.cli.feedback_crews import Crew, Engine, Many, crew
from qwen_allinone.cli.terminal import err, exit_with, in_terminal, load_settings, out, tell, worded
from qwen_allinone.errors import DataFileError, QaioError
from qwen_allinone.settings import Settings
from qwen_allinone.wording import said

JOURNAL = "journal.jsonl"
INTERRUPTED = 130
_MOST_TOLD = 300  # characters of a row's problem
_SAMPLE = Path(desk.__file__).parent / "sample.csv"


def feedback(
    files: Annotated[list[str] | None, typer.Argument(help=worded("arg_files"))] = None,
    out_folder: Annotated[Path, typer.Option("--out", help=worded("opt_desk_out"))] = Path("feedback"),
    sample: Annotated[bool, typer.Option("--sample", help=worded("opt_sample"))] = False,
    text: Annotated[str, typer.Option("--text", help=worded("opt_text"))] = "",
    date: Annotated[str, typer.Option("--date", help=worded("opt_date"))] = "",
    product: Annotated[str, typer.Option("--product", help=worded("opt_product"))] = "",
    rating: Annotated[str, typer.Option("--rating", help=worded("opt_rating"))] = "",
    number: Annotated[str, typer.Option("--id", help=worded("opt_id"))] = "",
    without: Annotated[list[str] | None, typer.Option("--without", help=worded("opt_without"))] = None,
    sure: Annotated[float, typer.Option(min=0.5, max=1, help=worded("opt_sure"))] = desk.SURE,
    resume: Annotated[bool, typer.Option("--resume", help=worded("opt_resume"))] = False,
    url: Annotated[str, typer.Option(help=worded("opt_url"))] = "",
    key_file: Annotated[Path | None, typer.Option("--key", help=worded("opt_key"))] = None,
    engine: Annotated[Engine, typer.Option(help=worded("opt_engine"))] = Engine.PROCESS,
    address: Annotated[str, typer.Option(help=worded("opt_address"))] = "",
    actors: Annotated[int, typer.Option(min=0, help=worded("opt_actors"))] = 0,
    actor_cpus: Annotated[int, typer.Option(min=1, help=worded("opt_actor_cpus"))] = 1,
) -> None:
    """Label files of feedback: sentiment, intent, keywords, alarms, suggested replies; and make a report of them.

    Ctrl-C stops it, --resume goes on. labelled.csv, alerts.csv and report.html are in the folder when it is done.
    """
    settings = load_settings()
    try:
        wanted = _wanted(without or [])
        many = Many(engine, address, actors, actor_cpus, url)
        table = desk.open_table(
            _files(files, sample, anywhere=engine is Engine.RAY), desk.Columns(text, date, product, rating, number)
        )
        _show_columns(table)
        with err.status(worded("reading_files")):
            survey = desk.survey(table)
        _show_survey(survey)
        with crew(settings, many, key_file) as asked:
            figures = _run(settings, table, survey, asked, wanted, out_folder, sure=sure, resume=resume)
    except QaioError as error:
        raise exit_with(error) from None
    _show_result(out_folder, figures)


def _files(files: list[str] | None, sample: bool, *, anywhere: bool) -> list[desk.File]:
    """`anywhere`: by paths that hold in a process with another folder, too."""
    if bool(files) == sample:
        raise DataFileError(said("name_a_file"))
    places = [desk.place(name) for name in files or [os.fspath(_SAMPLE)]]
    return [place.absolute() if anywhere and isinstance(place, Path) else place for place in places]


def _run(
    settings: Settings,
    table: desk.Table,
    survey: desk.Survey,
    asked: Crew,
    wanted: list[str],
    folder: Path,
    *,
    sure: float,
    resume: bool,
) -> desk.Figures:
    """Label what is not labelled yet, and write what comes of it."""
    tasks = desk.check(asked.about, wanted)
    _make_folder(folder)
    known_by = _known_by(table, asked.about, tasks, sure)
    with desk.Journal(folder / JOURNAL, known_by, resume=resume) as journal:
        with row_alerts(settings, known_by, folder, journal) as tell:
            _label(table, asked, tasks, journal, survey.rows, sure, tell)
        with err.status(worded("writing_report")):
            told = desk.About(
                tuple(source.path.name for source in table.sources),
                asked.about.model,
                table.chosen,
                {name: asked.about.tasks[name] for name in tasks},
                sure,
                datetime.now().replace(microsecond=0),
                survey.doubles,
            )
            return desk.write(folder, table, journal, told)


def _wanted(without: list[str]) -> list[str]:
    optional = desk.TASKS[1:]
    if unknown := [name for name in without if name not in optional]:
        raise DataFileError(said("without_form", unknown=unknown[0], optional=optional))
    return [name for name in desk.TASKS if name not in without]


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataFileError(said("out_folder_not_made", folder=folder, strerror=error.strerror)) from None


def _known_by(table: desk.Table, about: desk.ModelInfo, tasks: tuple[str, ...], sure: float) -> dict[str, object]:
    """What a run is known again by: with any other, the answers that are kept would be those to something else. Where
    they are computed is not among it: a run may go on with another engine. Of a service it is not known what it is made
    of beyond the model's name. The names are kept in English, and told in the language of the terminal."""
    made_of = {said("run_made_of"): about.made_of} if about.made_of else {}
    return {said("run_files"): table.fingerprint(), said("run_text_column"): table.chosen.text,
            said("run_model"): about.model, said("run_tasks"): tasks, "--sure": sure} | made_of  # fmt: skip


def _label(
    table: desk.Table,
    asked: Crew,
    tasks: tuple[str, ...],
    journal: desk.Journal,
    rows: int,
    sure: float,
    tell: desk.Tell | None,
) -> None:
    """With a bar on the terminal; Ctrl-C ends the command with a word on how to go on."""
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[pace]}"),
        TimeRemainingColumn(),
        TextColumn(worded("time_left")),
    )
    with Progress(*columns, console=err, transient=True) as progress:
        bar = progress.add_task("", total=rows, completed=journal.done, pace="")

        def done() -> None:
            speed = progress.tasks[0].speed
            progress.update(bar, advance=1, pace=worded("rows_a_second", speed=f"{speed:.1f}") if speed else "")

        try:
            asked.label(table, tasks, journal, sure=sure, on_done=done, tell=tell)
        except KeyboardInterrupt:
            progress.stop()
            err.print(worded("stopped", done=journal.done, rows=rows), highlight=False)
            raise typer.Exit(INTERRUPTED) from None


def _show_columns(table: desk.Table) -> None:
    """What was guessed or said, so that a wrong guess is seen before hours are spent on it."""
    chosen = table.chosen
    flags = {
        "--text": chosen.text,
        "--date": chosen.date,
        "--product": chosen.product,
        "--rating": chosen.rating,
        "--id": chosen.number,
    }
    tell(err, said("columns_chosen"))
    for flag, name in flags.items():
        tell(err, f"  {flag:<10} {name or worded('no_column')}")
    for source in table.sources:
        if source.note:
            tell(err, said("read_as", name=source.path.name, encoding=source.note))


def _show_survey(survey: desk.Survey) -> None:
    tell(err, said("rows_found", count=f"{survey.rows:,}"))
    if survey.problems:
        err.print(f"[yellow]{worded('rows_unreadable', count=f'{survey.problems:,}')}[/]")
    if survey.doubles:
        err.print(f"[yellow]{worded('rows_again', count=f'{survey.doubles:,}')}[/]")
    for line in survey.told:
        tell(err, f"  {in_terminal(line)[:_MOST_TOLD]}")
    if not survey.rows:
        raise DataFileError(said("no_row_below_header"))


def _show_result(folder: Path, figures: desk.Figures) -> None:
    numbers = {
        "rows": figures.rows,
        "positive": figures.sentiments.positive,
        "negative": figures.sentiments.negative,
        "unlabelled": figures.rows - figures.labelled,
        "alarms": figures.alarmed,
    }
    tell(out, said("feedback_done", **{name: f"{number:,}" for name, number in numbers.items()}))
    if figures.drafts_dropped:
        tell(out, said("drafts_dropped", count=f"{figures.drafts_dropped:,}", file=desk.LABELLED))
    for name in (desk.LABELLED, desk.ALERTS, desk.REPORT):
        out.print(os.fspath(folder / name), highlight=False, markup=False, soft_wrap=True)
