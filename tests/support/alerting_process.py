"""A process that has people told as a worker does, without a model: `python -m tests.support.alerting_process FILE HOME`.

POST /N tells of the text "第 N 单" and answers when that is kept. Its port is the first line that it prints.
"""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_network
from pathlib import Path

from qwen_allinone.alerts import Notices, Senders, Spool, Subject, load_alerts
from qwen_allinone.state import SqliteOutbox
from qwen_allinone.tasks import Registry

PROMPTS = Path(__file__).resolve().parents[2] / "prompts"


class Uncounted:
    """Nobody watches."""

    def count_alert(self, rule: str, outcome: str) -> None: ...

    def expect_channel(self, channel: str) -> None: ...

    def count_alert_message(self, channel: str, outcome: str) -> None: ...


def main(file: Path, home: Path) -> None:
    alerts = load_alerts(file, Registry.load(PROMPTS), [ip_network("127.0.0.0/8")])
    outbox = SqliteOutbox(home / "alerts.db")
    notices = Notices(
        alerts.rules, Spool(home / "spool"), outbox, Senders(alerts.senders, outbox, Uncounted()), Uncounted()
    )
    notices.start()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            number = self.path[1:]
            notices.tell(Subject("live", f"order-{number}", f"第 {number} 单", number))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
