"""A receiver of OTLP/HTTP: reads real requests, answers as it is told."""

import contextlib
import gzip
import http.server
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord


class Receiver:
    """What came, and how the next request is answered."""

    def __init__(self, port: int = 0, tls: Path | None = None) -> None:
        self.status = 200
        self.answer = b""
        self.retry_after = ""
        self.requests: list[ExportLogsServiceRequest] = []
        """Those that were answered 200."""
        self.headers: list[dict[str, str]] = []
        """Of all requests, names in lower case."""
        self.go_on = threading.Event()
        """Answers wait for it."""
        self.go_on.set()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.headers.append(
                    {name.lower(): value for name, value in self.headers.items()} | {":path": self.path}
                )
                outer.go_on.wait(60)
                status = outer.status
                if status == 200:
                    outer.requests.append(ExportLogsServiceRequest.FromString(gzip.decompress(body)))
                self.send_response(status)
                if outer.retry_after:
                    self.send_header("retry-after", outer.retry_after)
                self.send_header("content-length", str(len(outer.answer)))
                self.end_headers()
                self.wfile.write(outer.answer)

            def log_message(self, format: str, *_: object) -> None:  # noqa: A002 - the base class calls it so
                """Say nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def records(self) -> list[LogRecord]:
        """Return all that came, in its order."""
        return [
            record
            for request in list(self.requests)
            for resource in request.resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]

    def bodies(self) -> list[str]:
        """Return the texts of what came."""
        return [record.body.string_value for record in self.records()]

    def close(self) -> None:
        """Let go of the port."""
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


@contextlib.contextmanager
def receiver(port: int = 0, tls: Path | None = None) -> Iterator[Receiver]:
    """One that is closed at the end; `tls`: a file with its certificate and key."""
    made = Receiver(port, tls)
    try:
        yield made
    finally:
        made.close()


def attributes(record: LogRecord) -> dict[str, Any]:
    """Return a record's attributes as Python has them."""
    return {one.key: _plain(one.value) for one in record.attributes}


def _plain(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return [_plain(one) for one in value.array_value.values]
    if kind == "kvlist_value":
        return {one.key: _plain(one.value) for one in value.kvlist_value.values}
    return getattr(value, kind)
