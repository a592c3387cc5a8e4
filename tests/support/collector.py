"""An OpenTelemetry collector on loopback, as far as spans need one: it reads them and may refuse them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Seen:
    """A span that arrived; ids in hex, times in nanoseconds since the epoch. `resource` is of whom it is."""

    name: str
    trace_id: str
    span_id: str
    parent: str
    kind: int
    status: int
    began: int
    ended: int
    attributes: dict[str, Any]
    resource: dict[str, Any]


class Collector:
    """Answers on a port of its own, with `status`; what it answers 200 is taken."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.status = 200
        self.paths: list[str] = []
        self.raw = b""
        self._spans: list[Seen] = []
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def spans(self) -> list[Seen]:
        with self._lock:
            return list(self._spans)

    def of_request(self, request_id: str) -> list[Seen]:
        """The span of that request, and then its children by time; none before the first is here."""
        spans = self.spans
        servers = [span for span in spans if span.attributes.get("qaio.request_id") == request_id]
        ids = {span.span_id for span in servers}
        return [*servers, *sorted((span for span in spans if span.parent in ids), key=lambda span: span.began)]

    def take(self, path: str, body: bytes) -> int:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        with self._lock:
            self.paths.append(path)
            if self.status == 200:
                self.raw += body
                self._spans += _read(ExportTraceServiceRequest.FromString(body))
        return self.status


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that is there until the context ends."""
    made: list[Collector] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            status = made[0].take(self.path, self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    made.append(Collector(server.server_port))
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield made[0]
    finally:
        server.shutdown()
        server.server_close()


def _read(exported: Any) -> Iterator[Seen]:
    for of_resource in exported.resource_spans:
        resource = _values(of_resource.resource.attributes)
        for scope in of_resource.scope_spans:
            for span in scope.spans:
                yield Seen(
                    span.name,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    span.kind,
                    span.status.code,
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                    _values(span.attributes),
                    resource,
                )


def _values(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}
