"""How Gunicorn runs the workers. Every value has its reason; sizes come from the QAIO_* settings."""

import sys
from pathlib import Path

from qwen_allinone.errors import StartupError
from qwen_allinone.settings import Settings
from qwen_allinone.tasks import Registry

try:
    # A worker that raises while booting stops the master with a traceback; say it in one line before that.
    settings = Settings.load()
    Registry.load(settings.prompts)
except StartupError as error:
    sys.exit(f"qwen-allinone cannot start: {error}")

bind = f"{settings.host}:{settings.port}"
wsgi_app = "app:app"
chdir = str(Path(__file__).resolve().parent)

# Each worker holds the model, so few of them; the engine batches, so one serves many requests.
workers = settings.workers
# Threads only wait for the engine. sync workers would be killed by `timeout` while they generate.
worker_class = "gthread"
# Every admitted request holds a thread; eight more answer health checks and refusals meanwhile.
threads = settings.slots + settings.max_waiting + 8
# Beyond its threads a worker would queue connections where nobody sees them.
worker_connections = threads + 8
# Likewise the kernel's queue.
backlog = 128
# Forking after torch has started its threads hangs: each worker loads for itself.
preload_app = False
# A stop waits for the longest request that may be running.
graceful_timeout = int(settings.deadline_s) + 5
# Liveness of the worker's main loop; gthread requests are not bound by it.
timeout = graceful_timeout + 30
keepalive = 5
# Nobody manages a running service through a socket in the home folder, which may be read-only.
control_socket_disable = True
# The heartbeat file must not wait for a disk.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None
# X-Forwarded-* only from a proxy on this machine.
forwarded_allow_ips = "127.0.0.1,::1"
limit_request_line = 4094
limit_request_fields = 50
limit_request_field_size = 8190
# A header written two ways (a-b, a_b) could say two things.
header_map = "refuse"
# The service says what it does itself; an access log line a request is the proxy's job.
accesslog = None
errorlog = "-"
loglevel = settings.log_level
