"""Who answers for `qwen-allinone feedback`: the model in this process, a running service, or a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from rich.markup import escape

from qwen_allinone import __version__, bootstrap, desk
from qwen_allinone.cli.asking import most_at_once
from qwen_allinone.cli.loaded_service import load_service
from qwen_allinone.cli.terminal import err, key_of, tell, worded
from qwen_allinone.engine import Status
from qwen_allinone.errors import DataFileError
from qwen_allinone.model import checkpoint
from qwen_allinone.patience import RemoteService
from qwen_allinone.service import Service
from qwen_allinone.settings import Settings
from qwen_allinone.telemetry import logs
from qwen_allinone.wording import said

if TYPE_CHECKING:
    from qwen_allinone.desk.cluster import Hired


class Engine(StrEnum):
    PROCESS = "process"
    RAY = "ray"


class Crew(Protocol):
    """Answers the rows of a table, from the first that is not done; raises DataFileError."""

    @property
    def about(self) -> desk.ModelInfo: ...

    def label(
        self,
        table: desk.Table,
        tasks: Sequence[str],
        journal: desk.Journal,
        *,
        sure: float,
        on_done: Callable[[], None],
        tell: desk.Tell | None,
    ) -> None: ...


@dataclass(frozen=True)
class Many:
    """How it was asked for on the command line.

    Raises:
        DataFileError: options that do not go together.
    """

    engine: Engine
    address: str
    actors: int
    actor_cpus: int
    url: str

    def __post_init__(self) -> None:
        if self.engine is Engine.RAY and self.url:
            raise DataFileError(said("ray_or_url"))
        if self.engine is not Engine.RAY and (self.address or self.actors or self.actor_cpus != 1):
            raise DataFileError(said("options_of_ray"))


@contextmanager
def crew(settings: Settings, many: Many, key_file: Path | None) -> Iterator[Crew]:
    """Whoever was asked for, until the context ends.

    Raises:
        DataFileError: the service does not answer, the cluster cannot be joined, or Ray is not installed.
    """
    if many.engine is Engine.RAY:
        with _cluster(settings, many) as cluster:
            yield cluster
    elif many.url:
        clerk = desk.over_http(RemoteService(many.url, key_of(key_file)))
        yield _OneClerk(clerk, most_at_once(settings))
    else:
        clerk = desk.in_process(load_service(settings), bootstrap.public_name(settings.model))
        yield _OneClerk(clerk, most_at_once(settings))


@dataclass(frozen=True)
class _OneClerk:
    about: desk.Clerk
    at_once: int

    def label(
        self,
        table: desk.Table,
        tasks: Sequence[str],
        journal: desk.Journal,
        *,
        sure: float,
        on_done: Callable[[], None],
        tell: desk.Tell | None,
    ) -> None:
        desk.label(table, self.about, tasks, journal, sure=sure, at_once=self.at_once, on_done=on_done, tell=tell)


@contextmanager
def _cluster(settings: Settings, many: Many) -> Iterator[Crew]:
    try:
        from qwen_allinone.desk.cluster import Cluster
    except ImportError as error:
        raise DataFileError(said("needs_ray", error=error)) from None
    everywhere = _for_actors(settings, many.actor_cpus)
    with err.status(escape(worded("joining", model=settings.model))):
        cluster = Cluster(
            partial(hire, everywhere), address=many.address, actors=many.actors, actor_cpus=many.actor_cpus
        )
    with cluster:
        tell(err, said("models_on_machines", actors=cluster.actors, machines=cluster.machines))
        yield cluster


def hire(settings: Settings) -> Hired:
    """In a process of the cluster: load the model.

    Raises:
        DataFileError: it cannot be loaded.
    """
    from qwen_allinone.desk.cluster import Hired

    logs.configure(settings.model_copy(update={"log_level": "error"}))
    service = bootstrap.build_service(settings)
    if service.engine.wait_until_settled() is not Status.READY:
        raise DataFileError(service.engine.problem)
    clerk = desk.in_process(service, bootstrap.public_name(settings.model))
    return Hired(clerk, most_at_once(settings), _identity(service))


def _identity(service: Service) -> str:
    """What decides an answer: the code, the weights, the prompts, and which tasks were fitted to the model in time."""
    fits = [f"{name} {fit.accuracy:.4f}" for name, fit in sorted(service.gold_fits().items())]
    return f"version {__version__}, {service.codec.model_id}, prompts {service.registry.version}, {', '.join(fits)}"


def _for_actors(settings: Settings, cpus: int) -> Settings:
    """Paths as they are from any folder, and threads for one actor's share of a machine."""
    paths = {
        name: path.absolute() for name in ("prompts", "fit_file", "packed_dir") if (path := getattr(settings, name))
    }
    model = (
        str(Path(settings.model).expanduser().absolute()) if checkpoint.is_folder(settings.model) else settings.model
    )
    return settings.model_copy(update={**paths, "model": model, "threads": cpus, "workers": 1})
