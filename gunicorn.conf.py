"""How Gunicorn runs the workers. Every value has its reason; sizes come from the QAIO_* settings."""

import math
import resource
import sys
from pathlib import Path

from qwen_allinone.errors import StartupError
from qwen_allinone.serving import multiprocess, startup
from qwen_allinone.serving.succession import Succession
from qwen_allinone.telemetry import logs

try:
    # A worker that raises while booting stops the master with a traceback; say it in one line before that.
    settings = startup.checked_settings()
except StartupError as error:
    sys.exit(startup.refusal(error))

_host = settings.listens_on
bind = f"[{_host}]:{settings.port}" if ":" in _host else f"{_host}:{settings.port}"
# As app.py does it, but found wherever the service is started: it stays in that folder, to which paths are relative.
wsgi_app = "qwen_allinone.bootstrap:build_app()"

# Each worker holds the model, so few of them; the engine batches, so one serves many requests.
workers = settings.workers
# Threads only wait for the engine. sync workers would be killed by `timeout` while they generate.
# gthread, but for what serving/worker.py says: who is accepted, and how a worker ends.
worker_class = "qwen_allinone.serving.worker.EngineWorker"
# Every admitted request holds a thread; eight more answer health checks and refusals meanwhile.
threads = settings.slots + settings.max_waiting + 8
# Far more connections than threads, so that overload is answered with a 503 instead of waiting in the backlog. Those
# without a thread are idle, silent or closing; each takes a file, of which the process must have enough.
_files, _most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
_wanted = threads + 1024 + 256
if _most_files != resource.RLIM_INFINITY:
    _wanted = min(_wanted, _most_files)
if _files != resource.RLIM_INFINITY and _files < _wanted:
    resource.setrlimit(resource.RLIMIT_NOFILE, (_wanted, _most_files))
worker_connections = max(_wanted - 256, threads + 8)
# A burst waits here for the few milliseconds until it is accepted; a full queue would cost clients a second or more.
backlog = 1024
# Forking after torch has started its threads hangs: each worker loads the model for itself. What is only imported is
# imported once, below.
preload_app = False
# A stop waits for admitted requests; two seconds more, so that a worker whose time is up ends what is left itself.
graceful_timeout = math.ceil(settings.stop_s) + 2
# Liveness of the worker's main loop, which no request can hold up. An engine that hangs is noticed earlier.
timeout = math.ceil(settings.stuck_s) + 30
keepalive = settings.keepalive_s
# Nobody manages a running service through a socket in the home folder, which may be read-only.
control_socket_disable = True
# The heartbeat file must not wait for a disk.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None
# X-Forwarded-* only from the proxies that the service trusts too.
forwarded_allow_ips = ",".join(map(str, settings.trusted_proxies))
limit_request_line = 4094
limit_request_fields = 50
limit_request_field_size = 8190
# A header written two ways (a-b, a_b) could say two things.
header_map = "refuse"
# The service writes a line a request itself, and Gunicorn's own lines go the same way.
accesslog = None
loglevel = settings.log_level
logconfig_dict = logs.config(settings)


# Metrics: the workers share their numbers through a folder, each under a number that its successor takes over.
def on_starting(server):
    try:
        startup.check_addresses(server.address)
    except StartupError as error:
        sys.exit(startup.refusal(error))
    multiprocess.make_folder()


def when_ready(server):
    startup.import_app()
    server.succession = Succession(server, settings, startup.checked_settings)
    try:
        server.succession.begin()
    except StartupError as error:
        sys.exit(startup.refusal(error))


def pre_fork(server, worker):
    worker.number = multiprocess.free_number(other.number for other in server.WORKERS.values())
    worker.is_heir = server.succession.is_under_way


def post_fork(server, worker):
    multiprocess.become(worker.number)


def child_exit(server, worker):
    multiprocess.forget(worker.number)


def on_exit(server):
    if hasattr(server, "succession"):  # it may end before it listens
        server.succession.end()
    multiprocess.remove_folder()
