"""The only place that wires objects together."""

from __future__ import annotations

import atexit
import logging
import sys
import threading
from functools import partial
from pathlib import Path

from flask import Flask

from qwen_allinone import __version__
from qwen_allinone.access import Credentials, RateCounters
from qwen_allinone.alerts import Counts, Notices, Senders, Spool, load_alerts
from qwen_allinone.engine import Capacity, Engine, Loaded, Status
from qwen_allinone.errors import AlertsFileError
from qwen_allinone.host import compute_threads, resident_bytes
from qwen_allinone.http import (
    WINDOW_S,
    Batches,
    BatchRunner,
    Browsers,
    Guards,
    Once,
    PromptBench,
    Quota,
    UsageMeter,
    create_app,
)
from qwen_allinone.model import checkpoint
from qwen_allinone.postgres_link import PostgresLink
from qwen_allinone.service import Codec, Fitting, Keeper, Memories, ResultCache, Service, fit
from qwen_allinone.serving.multiprocess import metrics_share
from qwen_allinone.serving.succession import ask_own_master, prompts_in_force
from qwen_allinone.settings import Settings
from qwen_allinone.state import (
    Corrections,
    MemoryStore,
    OnceStore,
    PostgresMemories,
    PostgresOnce,
    PostgresStore,
    PostgresUsage,
    RedisMemories,
    RedisOnce,
    RedisStore,
    RedisUsage,
    Responses,
    Sessions,
    SqliteBatches,
    SqliteMemories,
    SqliteOnce,
    SqliteOutbox,
    SqliteStore,
    SqliteUsage,
    Store,
    UsageAccounts,
    UsageStore,
)
from qwen_allinone.state.batches import Quota as BatchQuota
from qwen_allinone.state.cache import SingleFlightCache
from qwen_allinone.tasks import Registry, Task, check_memory_tasks
from qwen_allinone.telemetry import Telemetry, Tracing, logs, tracing
from qwen_allinone.telemetry.audit import AuditFile, AuditLog
from qwen_allinone.telemetry.metrics import Metrics, Vitals

log = logging.getLogger(__name__)

# For how long a thread in Python code keeps the others out. The engine's comes back to Python some hundred times a
# step, and with Python's own 5 ms one busy request would make all others wait half a second. With 0.1 ms threads change
# so often that a hundred refusals at once take nearly twice as long.
_SWITCH_S = 0.0005


def build_app(settings: Settings | None = None) -> Flask:
    """The WSGI app of one worker. The model loads in the engine's thread after this returns.

    Raises:
        StartupError: a setting or a task file is at fault.
    """
    settings = settings or Settings.load()
    edited, settings = settings.prompts, settings.model_copy(update={"prompts": prompts_in_force(settings)})
    logs.configure(settings)
    sys.setswitchinterval(_SWITCH_S)
    return wrap(build_service(settings), settings, edited)


def wrap(service: Service, settings: Settings, edited: Path | None = None) -> Flask:
    """The WSGI app around a service.

    `edited`: where people edit the tasks, and a reload takes them from; None: where they are read.
    """
    link = _postgres(settings)
    store = _store(settings, link)
    memories, keeper = _memories(settings, service, link)
    woken = threading.Event()
    batches = _batches(settings, woken)
    accounts = _accounts(settings, link)
    telemetry = _telemetry(settings, service, accounts)
    notices = _notices(settings, service.registry, telemetry.metrics)
    app = create_app(
        service,
        Sessions(store, max_turns=settings.session_turns, deadline_s=settings.deadline_s),
        Responses(store, deadline_s=settings.deadline_s),
        memories,
        model_names=(public_name(settings.model), *settings.model_aliases),
        max_body_bytes=settings.max_body_bytes,
        guarded_by=_guards(settings),
        once=Once(_once(settings, link), settings.deadline_s),
        telemetry=telemetry,
        ping_s=settings.ping_s,
        corrections=_corrections(settings),
        batches_kept=batches,
        accounts=accounts,
        admins=settings.admins,
        ask_to_reload=partial(ask_own_master, edited or settings.prompts, settings.prompts_kept),
        remembers_completions=settings.memory_chat_completions,
        notices=notices,
        bench=_bench(settings, edited or settings.prompts),
    )
    app.extensions.update(memory=keeper, alerts=notices, sessions=store)
    if batches:
        app.extensions["batches"] = _batch_runner(settings, app, service, batches.store, woken)
    return app


def _guards(settings: Settings) -> Guards:
    """Who may call and how much. Broken key files stop the master (gunicorn.conf.py), not a worker that starts later:
    it refuses everybody until they are mended."""
    url = _redis_url(settings)
    quota = Quota(settings.rate_requests, settings.rate_tokens)
    if quota and settings.workers > 1 and url is None:
        log.warning("limits: %d workers each count for themselves; set QAIO_REDIS_URL", settings.workers)
    browsers = Browsers(settings.answers_to, settings.cors_origins, settings.trusted_proxies)
    counters = RateCounters(WINDOW_S, url)
    first = frozenset(settings.priority_keys)
    return Guards(Credentials(settings), settings.trusted_proxies, quota, counters, browsers, first)


def _postgres(settings: Settings) -> PostgresLink | None:
    """What all that is kept in PostgreSQL shares. Raises StartupError: what it needs is not installed."""
    if settings.state_url is None:
        return None
    link = PostgresLink(settings.state_url.get_secret_value())
    atexit.register(link.close)
    return link


def _store(settings: Settings, link: PostgresLink | None) -> Store:
    """Where conversations are kept. Trouble there is told, and is no reason not to serve requests without one."""
    if link:
        database = PostgresStore(link, ttl_s=settings.session_ttl_s, owner_mb=settings.sessions_key_mb)
        database.start()
        atexit.register(database.stop)
        return database
    if url := _redis_url(settings):
        return RedisStore(url, ttl_s=settings.session_ttl_s, owner_mb=settings.sessions_key_mb)
    store = SqliteStore(
        settings.sessions_file,
        ttl_s=settings.session_ttl_s,
        max_mb=settings.sessions_max_mb,
        owner_mb=settings.sessions_key_mb,
    )
    if problem := store.problem():
        log.warning("sessions: %s: requests with a session are answered 503; set QAIO_SESSIONS_FILE", problem)
    atexit.register(store.close)
    return store


def _once(settings: Settings, link: PostgresLink | None) -> OnceStore:
    """Where answers to requests with an Idempotency-Key are kept: beside conversations."""
    ttl_s, owner_mb = settings.idempotency_ttl_s, settings.idempotency_key_mb
    if link:
        return PostgresOnce(link, ttl_s=ttl_s, owner_mb=owner_mb)
    if url := _redis_url(settings):
        return RedisOnce(url, ttl_s=ttl_s, owner_mb=owner_mb)
    store = SqliteOnce(settings.sessions_file, ttl_s=ttl_s, owner_mb=owner_mb, max_mb=settings.sessions_max_mb)
    atexit.register(store.close)
    return store


def _memories(
    settings: Settings, service: Service, link: PostgresLink | None
) -> tuple[Memories, Keeper] | tuple[None, None]:
    """What users told of themselves, and the thread that finds it; none if nothing is to be remembered.

    Raises TaskFileError: the prompts have no part for it.
    """
    if not settings.memory:
        return None, None
    check_memory_tasks(service.registry)
    if not settings.asks_for_keys:
        log.warning("memory: no keys are asked for: whoever reaches this service and names a user reads his memories")
    store = _memory_store(settings, link)
    keeper = Keeper(service, store, deadline_s=settings.deadline_s)
    keeper.start()
    # The last to be registered is the first to be called: the engine ends after it.
    atexit.register(keeper.stop)
    return Memories(store, keeper.wake), keeper


def _bench(settings: Settings, edited: Path) -> PromptBench | None:
    """Where prompts are tried and saved; None if nobody may."""
    if not settings.prompt_edit:
        return None
    if not settings.asks_for_keys:
        log.warning("prompts: no keys are asked for: whoever reaches this service may try prompts and add tasks")
    editors = settings.admins if settings.asks_for_keys else None
    return PromptBench(settings.prompts, edited, editors, settings.fit)


def _memory_store(settings: Settings, link: PostgresLink | None) -> MemoryStore:
    """Where memories are kept: beside conversations."""
    ttl_s, most, owner_mb = settings.memory_ttl_s, settings.memory_items, settings.memory_key_mb
    if link:
        return PostgresMemories(link, ttl_s=ttl_s, most=most, owner_mb=owner_mb)
    if url := _redis_url(settings):
        return RedisMemories(url, ttl_s=ttl_s, most=most, owner_mb=owner_mb)
    store = SqliteMemories(
        settings.sessions_file, ttl_s=ttl_s, most=most, owner_mb=owner_mb, max_mb=settings.sessions_max_mb
    )
    atexit.register(store.close)
    return store


def _corrections(settings: Settings) -> Corrections | None:
    """Where answers wait for feedback; None if nobody asked for that."""
    if settings.feedback_file is None:
        return None
    corrections = Corrections(settings.feedback_file, days=settings.feedback_days, max_mb=settings.feedback_max_mb)
    atexit.register(corrections.close)
    return corrections


def _batches(settings: Settings, woken: threading.Event) -> Batches | None:
    """Where batches are kept; None if none are to be worked off. `woken` is set when there is a new one."""
    if not settings.batch_at_once:
        return None
    store = SqliteBatches(
        settings.batches_file,
        quota=BatchQuota(
            settings.batch_file_mb, settings.batch_key_mb, settings.batch_key_lines, settings.batch_key_open
        ),
        keep_days=settings.batch_days,
        max_mb=settings.batches_max_mb,
    )
    if problem := store.problem():
        log.warning("batches: %s: /v1/files and /v1/batches are answered 503; set QAIO_BATCHES_FILE", problem)
    if database := _shared_by(settings):
        log.warning("batches: kept in %s on this machine alone, not in %s", settings.batches_file, database)
    atexit.register(store.close)
    return Batches(store, woken.set)


def _batch_runner(
    settings: Settings, app: Flask, service: Service, store: SqliteBatches, woken: threading.Event
) -> BatchRunner:
    """The thread that works batches off, started; it ends before the engine does."""
    runner = BatchRunner(
        app,
        service,
        store,
        at_once=settings.batch_at_once,
        deadline_s=settings.deadline_s,
        most_bytes=settings.max_body_bytes,
        woken=woken,
    )
    runner.start()
    atexit.register(runner.stop)
    return runner


def _notices(settings: Settings, registry: Registry, counts: Counts) -> Notices | None:
    """What has people told of texts, started; None if there are no rules.

    A broken file stops the master, not a worker that starts later: it serves, tells nobody, and says so.
    """
    if settings.alerts is None:
        return None
    try:
        alerts = load_alerts(settings.alerts, registry, settings.alerts_networks)
    except AlertsFileError as error:
        log.error("alerts: NOBODY IS TOLD ANYTHING until this is mended and the service restarted: %s", error)
        return None
    outbox = alerts_outbox(settings)
    if problem := outbox.problem():
        log.warning("alerts: %s: nobody is told anything until that is mended; set QAIO_ALERTS_OUTBOX", problem)
    if database := _shared_by(settings):
        log.warning("alerts: kept in %s on this machine alone, not in %s", settings.alerts_outbox, database)
    senders = Senders(alerts.senders, outbox, counts)
    notices = Notices(alerts.rules, alerts_spool(settings), outbox, senders, counts)
    notices.start()
    atexit.register(outbox.close)
    atexit.register(notices.stop)
    return notices


def alerts_outbox(settings: Settings) -> SqliteOutbox:
    """Where alerts wait to be sent."""
    return SqliteOutbox(settings.alerts_outbox)


def alerts_spool(settings: Settings) -> Spool:
    """What leads into it: a folder beside it."""
    file = settings.alerts_outbox.absolute()
    return Spool(file.with_name(f"{file.name}.spool"))


def _accounts(settings: Settings, link: PostgresLink | None) -> UsageAccounts | None:
    """What each caller has used, kept beside conversations; None if that is not to be kept."""
    if not settings.usage_days:
        return None
    if link:
        store: UsageStore = PostgresUsage(link, days=settings.usage_days)
    elif url := _redis_url(settings):
        store = RedisUsage(url, days=settings.usage_days)
    else:
        store = SqliteUsage(settings.sessions_file, days=settings.usage_days, max_mb=settings.sessions_max_mb)
    accounts = UsageAccounts(store, days=settings.usage_days)
    accounts.start()
    return accounts


def _shared_by(settings: Settings) -> str | None:
    """What machines share conversations by, as people call it."""
    return "PostgreSQL" if settings.state_url else "Redis" if settings.redis_url else None


def _redis_url(settings: Settings) -> str | None:
    return settings.redis_url.get_secret_value() if settings.redis_url else None


def _cache(settings: Settings) -> ResultCache | None:
    """What remembers the results of greedy tasks; None if nothing is to be remembered."""
    if not settings.cache_mb:
        return None
    return ResultCache(SingleFlightCache(settings.cache_mb * 1_000_000, settings.cache_ttl_s, _redis_url(settings)))


def public_name(model: str) -> str:
    """What clients may know of QAIO_MODEL: of a folder only its name, not where it lies."""
    return Path(model).resolve().name if checkpoint.is_folder(model) else model


def build_service(settings: Settings, registry: Registry | None = None) -> Service:
    """The service with its engine started; `registry` is what it runs, the settings' own if it is not given."""
    registry = registry or Registry.load(settings.prompts)
    capacity = Capacity(
        threads=compute_threads(settings.threads, settings.workers),
        slots=settings.slots,
        kv_tokens=settings.kv_tokens,
        step_tokens=settings.step_tokens,
        share_tokens=settings.share_tokens,
        caller_slots=settings.caller_slots,
        max_waiting=settings.max_waiting,
        shares=settings.shares,
        drafts=settings.drafts == "auto",
    )
    engine = Engine(lambda: _load(settings, registry), capacity, stuck_s=settings.stuck_s)
    service = Service(registry, engine, deadline_s=settings.deadline_s, cache=_cache(settings))
    engine.start()
    # A thread inside torch while the interpreter is torn down aborts the process.
    atexit.register(engine.stop)
    return service


def _telemetry(settings: Settings, service: Service, accounts: UsageAccounts | None) -> Telemetry:
    """Metrics that watch the engine, the audit log if there is to be one, the accounts of what is used, and spans."""
    audit = None
    if settings.audit_file:
        file = AuditFile(settings.audit_file, max_bytes=settings.audit_max_mb * 1_000_000, keep=settings.audit_keep)
        audit = AuditLog(file)
    build = {"version": __version__, "model": public_name(settings.model), "weights": settings.weights}
    labels = {task.name: _shown_labels(task) for task in service.registry if task.labels}
    metrics = Metrics(build, labels, metrics_share())
    engine = service.engine

    def vitals() -> Vitals:
        return Vitals(
            ready=engine.status is Status.READY,
            running=engine.running,
            waiting=engine.waiting,
            resident_bytes=resident_bytes(),
            lost_log_lines=logs.lost_lines(),
            lost_audit_lines=audit.lost if audit else 0,
            gold_accuracy={name: fit.accuracy for name, fit in service.gold_fits().items()},
        )

    metrics.watch(vitals)
    meter = UsageMeter(accounts, has_keys=settings.asks_for_keys) if accounts else None
    telemetry = Telemetry(metrics, audit, tells_text=settings.log_text, usage=meter, tracing=_tracing(settings))
    atexit.register(telemetry.close)
    return telemetry


def _tracing(settings: Settings) -> Tracing | None:
    """What sends spans, started; None if nobody wants them.

    What is missing stops the master (serving/startup.py), not a worker that starts later: it serves, and says so.
    """
    if tracing.wanted_by() is None:
        return None
    try:
        return Tracing(public_name(settings.model), __version__)
    except Exception as error:  # OpenTelemetry's, at any of its variables
        log.error("tracing: no spans are sent until this is mended and the service restarted: %s", error)
        return None


def _shown_labels(task: Task) -> list[str]:
    """All that a label task may answer, `unknown` among them."""
    unknown = task.spec.output.unknown
    return [*task.labels, *([unknown.name] if unknown else [])]


def _load(settings: Settings, registry: Registry) -> Loaded[Codec]:
    """Find and load the model, and fit the tasks to it. Runs in the engine's thread."""
    if settings.model == checkpoint.DEMO:
        log.warning("QAIO_MODEL=demo: a tiny stand-in model, not Qwen; see demo/MODEL_CARD.md")
    loaded = checkpoint.load(
        settings.model,
        settings.model_revision,
        settings.weights,
        settings.context,
        settings.kernels,
        settings.kv,
        settings.packed_dir,
    )
    title = f"model {loaded.name}, kernel {loaded.model.kernel}, weights {settings.weights}"
    fitting = Fitting(settings.fit, settings.fit_s, settings.fit_file)
    return fit(registry, loaded, public_name(settings.model), title, fitting)
