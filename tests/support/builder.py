"""A scripted proxy in the place of the one whose sandboxes install modules, and an api that calls it."""

import json
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from sandpost.auth.keys import Key, key_digest
from sandpost.model.host import Host, Modules
from sandpost.store import TenantRecord, open_reader
from support.archives import member, tar
from support.installation import Installation, wait_for

Order = Mapping[str, Any]


@dataclass
class Said:
    """An answer. `own`: the builder's program wrote it; `cut`: it ends in the middle, after so many bytes."""

    body: bytes = b""
    status: int = 200
    own: bool = True
    cut: int | None = None
    after: float = 0.0
    """Seconds until it begins."""


@dataclass
class Asked:
    """A call: what was to be installed, by whose key, as which tenant that the store knows."""

    order: Order
    key: Key | None
    tenant: TenantRecord | None
    at: float
    path: str
    program: bytes


@dataclass
class ScriptedProxy:
    """Listens on a loopback port of its own; `answer` says what each order gets."""

    answer: Callable[[Order], Said]
    calls: list[Asked] = field(default_factory=list)
    host: Host | None = None
    """Whose store says which keys are good."""
    certificate: Path | None = None
    """Certificate and key in one file: it speaks TLS."""

    def __post_init__(self) -> None:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                outer.serve(self)

            def log_message(self, *_: object) -> None:
                """Nobody reads it."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if self.certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        """Take one call."""
        program = request.rfile.read(int(request.headers["content-length"]))
        order = json.loads(parse_qs(urlsplit(request.path).query)["order"][0])
        digest = key_digest(request.headers["authorization"].removeprefix("Bearer ").encode())
        key = tenant = None
        if self.host is not None:
            reader = open_reader(self.host)
            key = reader.key(digest)
            tenant = reader._records.get(urlsplit(request.path).path[1:])  # type: ignore[attr-defined]
            reader.close()
        self.calls.append(Asked(order, key, tenant, time.monotonic(), urlsplit(request.path).path, program))
        said = self.answer(order)
        time.sleep(said.after)
        request.close_connection = True
        try:
            request.send_response(said.status)
            request.send_header("x-wt-response-source", "webtask" if said.own else "proxy")
            request.send_header("transfer-encoding", "chunked")
            request.send_header("connection", "close")
            request.end_headers()
            body = said.body if said.cut is None else said.body[: said.cut]
            for start in range(0, len(body), 5000):
                piece = body[start : start + 5000]
                request.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            if said.cut is None:
                request.wfile.write(b"0\r\n\r\n")
        except OSError:
            """The api went away."""

    def close(self) -> None:
        """End."""
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()


NPM, PYPI = "http://npm.example.com:4873/", "https://pypi.example.com/simple/"
SETTINGS = Modules(npm=NPM, pypi=PYPI, hosts=["files.example.com:443"], size=1 << 20, files=50, keep=4 << 20, count=8)


def archive(order: Order, size: int = 10) -> bytes:
    """Return what a good builder sends."""
    top = ["node_modules", *(f"node_modules/{path}" for path in folders(order["name"]))]
    files = [member(f"{top[-1]}/package.json", b"{}"), member(f"{top[-1]}/data", bytes(size))]
    said = member(".integrity.json", json.dumps({f"{order['name']}@{order['version']}": "sha512-x"}).encode())
    return tar([said, *(member(name, None) for name in top), *files])


def folders(name: str) -> list[str]:
    return [name.partition("/")[0], name] if "/" in name else [name]


def good(order: Order) -> Said:
    return Said(archive(order))


class Bench:
    """An installation whose builder is scripted."""

    def __init__(self, settings: Modules = SETTINGS, certificate: Path | None = None) -> None:
        self.proxy = ScriptedProxy(good, certificate=certificate)
        tls = "" if certificate is None else str(certificate)
        self.made = Installation(listen_port=self.proxy.port, modules=settings, tls_cert=tls, tls_key=tls)
        self.proxy.host = self.made.host
        self.made.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.made.close()
        self.proxy.close()

    @property
    def ready(self) -> Path:
        return Path(self.made.host.modules_ready)

    def add(self, *specs: str, status: int = 202, **fields: Any) -> list[dict[str, Any]]:
        answer = self.made.call("POST", "/api/modules", {"modules": list(specs), **fields})
        assert answer.status_code == status, answer.text
        found: list[dict[str, Any]] = answer.json()["modules"] if status == 202 else [answer.json()]
        return found

    def state(self, spec: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = self.made.call("GET", f"/api/modules?spec={spec}").json()["modules"]
        return found[0] if found else {"state": "none"}

    def until(self, spec: str, state: str, reason: str = "", within: float = 15) -> dict[str, Any]:
        def there() -> bool:
            found = self.state(spec)
            return found["state"] == state and reason in found.get("reason", "")

        wait_for(there, within)
        return self.state(spec)

    def specs(self) -> list[str]:
        return [one["spec"] for one in self.made.call("GET", "/api/modules").json()["modules"]]

    def remove(self, spec: str) -> int:
        return self.made.call("DELETE", f"/api/modules?spec={spec}").status_code
