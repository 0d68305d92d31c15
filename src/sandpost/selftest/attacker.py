"""One tenant of a case over HTTP, and the raw connections by which it does what no HTTP library would."""

import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from textwrap import indent
from typing import Any
from urllib.parse import urlencode, urlsplit

from sandpost.client import Client
from sandpost.model.limits import EngineName
from sandpost.selftest.case import Answer, Broken, HostLook, Language, Untried, shown
from sandpost.selftest.host import Look
from sandpost.selftest.programs import PYTHON, csharp

_MAX_BODY = 16 << 20
_MAX_RAW = 1 << 20
_CONNECT = 5.0
LOG = 5.0
"""Seconds within which a tenant's log must say what happened."""

_INSIDE: Mapping[Language, Callable[[str], str]] = {
    "javascript": lambda body: f"return async (context) => ({{ seen: await (async () => {{ {body} }})() }})",
    "python": lambda body: (
        f"{PYTHON}def main(context):\n    return {{'seen': attack()}}\ndef attack():\n{indent(body, '    ')}"
    ),
    "csharp": csharp,
}
"""A program that answers with what a body returns, whatever that is."""

Log = Callable[[str], list[dict[str, Any]] | None]
"""Returns the records of a tenant's log, oldest first; None where it cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """Where the installation listens and with which operator's key. `context` is None without TLS."""

    url: str
    key: str
    context: ssl.SSLContext | None

    def connect(self, timeout: float) -> socket.socket:
        """Open a connection; `OSError`."""
        where = urlsplit(self.url)
        name = where.hostname or "127.0.0.1"
        port = where.port or (80 if self.context is None else 443)
        plain = socket.create_connection((name, port), timeout=timeout)
        if self.context is None:
            return plain
        return self.context.wrap_socket(plain, server_hostname=name)

    def http(self, timeout: float) -> http.client.HTTPConnection:
        """Return a connection that opens itself when it is used."""
        where = urlsplit(self.url)
        connection = http.client.HTTPConnection(where.hostname or "127.0.0.1", where.port, timeout=timeout)
        connection.sock = self.connect(min(timeout, _CONNECT))
        connection.sock.settimeout(timeout)
        return connection

    def target(self, tenant: str, query: Mapping[str, str] | None = None) -> str:
        """Return the path of a tenant's runs, with the key."""
        return f"/{tenant}?{urlencode({'key': self.key, **(query or {})})}"

    def call(
        self,
        tenant: str,
        program: str | bytes,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 60,
    ) -> Answer:
        """POST a program; `OSError` and `http.client.HTTPException` if the exchange breaks."""
        body = program.encode() if isinstance(program, str) else program
        return self.request("POST", self.target(tenant, query), body, headers or {}, timeout)

    def request(self, method: str, target: str, body: bytes, headers: Mapping[str, str], timeout: float) -> Answer:
        """Make a request; fails as `call` does."""
        connection = self.http(timeout)
        try:
            connection.request(method, target, body, dict(headers))
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, names, response.read(_MAX_BODY))
        finally:
            connection.close()


class Line:
    """A raw connection of a tenant."""

    def __init__(self, door: Door, tenant: str) -> None:
        self.target = door.target(tenant)
        self._sock = door.connect(_CONNECT)

    def write(self, data: bytes) -> None:
        """Send; `OSError` if the other side has gone or takes nothing for 10 s."""
        self._sock.settimeout(10)
        self._sock.sendall(data)

    def read(self, size: int, timeout: float = 10) -> bytes:
        """Return what is there, empty at the end; `TimeoutError` if nothing comes."""
        self._sock.settimeout(timeout)
        try:
            return self._sock.recv(size)
        except ConnectionError:
            return b""

    def close(self) -> None:
        """Close it at once."""
        self._sock.close()


class Tenant:
    """See `case.Attacker`."""

    def __init__(
        self, door: Door, client: Client, look: Look | None, log: Log,
        *, tenant: str, neighbour: str, engine: EngineName, language: Language,
    ) -> None:  # fmt: skip
        self._door, self._client, self._look, self._log = door, client, look, log
        self._language = language
        self.tenant, self.neighbour, self.engine = tenant, neighbour, engine
        limits = client.tenant(tenant).limits
        self.memory, self.cpu = limits.memory, limits.cpu

    def call(
        self,
        program: str | bytes,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 60,
    ) -> Answer:
        """POST a program and read the answer whole."""
        try:
            return self._door.call(self.tenant, program, query, headers, timeout)
        except (OSError, http.client.HTTPException) as error:
            raise Broken(f"the exchange broke: {type(error).__name__} {shown(error)}") from None

    def start(self, program: str | bytes) -> Callable[[float], Answer]:
        """Begin a call in a thread of its own."""
        found: list[Answer | Exception] = []

        def run() -> None:
            try:
                found.append(self.call(program, timeout=120))
            except Broken as error:
                found.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()

        def wait(timeout: float) -> Answer:
            thread.join(timeout)
            if not found:
                raise Broken(f"no answer within {timeout:g} s")
            if isinstance(found[0], Exception):
                raise found[0]
            return found[0]

        return wait

    def inside(self, body: str, *, timeout: float = 60) -> object:
        """Run `body` as an async function in the sandbox, and return the JSON value that it returns."""
        answer = self.call(_INSIDE[self._language](body), timeout=timeout)
        if answer.status != 200:
            raise Broken(f"{answer.status}: {shown(answer.body)}")
        found = answer.json
        return found.get("seen") if isinstance(found, dict) else None

    def send(self, data: bytes, *, timeout: float = 10) -> bytes:
        """Send raw bytes and return what comes until the other side closes."""
        line = self.connect()
        parts: list[bytes] = []
        try:
            with contextlib.suppress(ConnectionError):
                line.write(data.replace(b"{target}", line.target.encode()))
            end = time.monotonic() + timeout
            while sum(map(len, parts)) < _MAX_RAW and (left := end - time.monotonic()) > 0:
                part = line.read(65536, left)
                if not part:
                    break
                parts.append(part)
        except TimeoutError:
            pass
        finally:
            line.close()
        return b"".join(parts)

    def connect(self) -> Line:
        """Open a raw connection."""
        try:
            return Line(self._door, self.tenant)
        except OSError as error:
            raise Broken(f"the listener takes no connection: {error}") from None

    def sandbox(self) -> str:
        """Return the id of its sandbox."""
        found = [one.sandbox_id for one in self._client.sandboxes(self.tenant) if one.phase == "assigned"]
        return found[0] if found else ""

    def cpu_seconds(self) -> float:
        """Return the CPU time of its sandboxes that live."""
        return sum(one.cpu_seconds for one in self._client.sandboxes(self.tenant))

    def log(self) -> list[dict[str, Any]]:
        """Return the records of its log."""
        found = self._log(self.tenant)
        if found is None:
            raise Untried("it needs the tenant's log: run it on the host as root")
        return found

    def told(self, *words: str) -> str:
        """Check that its log comes to say each of these words; return ` (log unseen)` where it cannot be read."""
        patience = time.monotonic() + LOG
        while True:
            records = self._log(self.tenant)
            if records is None:
                return " (log unseen)"
            missing = [word for word in words if not any(word in record["msg"] for record in records)]
            if not missing:
                return ""
            if time.monotonic() > patience:
                last = [record["msg"] for record in records[-3:]]
                raise Broken(f"his log does not say `{missing[0]}`, but: {shown(last)}")
            time.sleep(0.1)

    def key(self, tenant: str) -> str:
        """Make a key of a tenant."""
        return self._client.make_key(tenant, "selftest").key

    def request(self, method: str, path: str, key: str, body: bytes = b"") -> Answer:
        """Make a request as whoever has `key`."""
        try:
            return self._door.request(method, path, body, {"authorization": f"Bearer {key}"}, 60)
        except (OSError, http.client.HTTPException) as error:
            raise Broken(f"the exchange broke: {type(error).__name__} {shown(error)}") from None

    def host(self) -> HostLook:
        """Return a look at the host."""
        if self._look is None:
            raise Untried("it needs a look at the host: run it there as root")
        return self._look
