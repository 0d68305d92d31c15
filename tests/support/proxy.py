"""A proxy worker in the test's own event loop, between a scripted controller and scripted or real sandboxes.

Everything is real but the controller: sockets, the store, the files. A scripted sandbox is a TCP server whose
connections the test reads and writes byte by byte; `real_runtime` is the runtime that production runs.
"""

import asyncio
import contextlib
import json
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import msgspec
import uvloop
from bench.running import node_binary

from sandpost.auth.keys import Key, key_digest
from sandpost.ipc import Channel, Listener
from sandpost.logs.journal import Journal
from sandpost.model.ends import End
from sandpost.model.limits import Isolation, Limits
from sandpost.model.messages import (
    Ack,
    Ask,
    Assigned,
    Finished,
    Gone,
    Granted,
    Hello,
    Leaving,
    Named,
    Refusal,
    Refused,
    Replace,
    Report,
    Route,
    Suspect,
    Table,
    ToController,
)
from sandpost.model.runtimes import DEFAULT
from sandpost.proxy.worker import Worker
from sandpost.store import TenantRecord, open_writer
from support.installation import host_in

if TYPE_CHECKING:
    from sandpost.model.host import Host

KEY = "operator-key-of-the-tests"
HELLO = b'return function (cb) { cb(null, "Hello, world!") }'
RUNTIME = Path(__file__).resolve().parents[2] / "src/sandpost/runtimes/node/main.js"
FLAGS = json.loads(RUNTIME.with_name("flags.json").read_text())["flags"]
T = TypeVar("T")


def run(work: Coroutine[Any, Any, T], within: float = 20) -> T:
    """Run a test's coroutine on the loop that production uses."""

    async def bounded() -> T:
        async with asyncio.timeout(within):
            return await work

    return uvloop.run(bounded())


async def eventually(check: Callable[[], Any], within: float = 5.0) -> Any:
    """Return the first true value of `check`, or fail."""
    deadline = asyncio.get_running_loop().time() + within
    while not (value := check()):
        assert asyncio.get_running_loop().time() < deadline, "it did not happen in time"
        await asyncio.sleep(0.005)
    return value


# --- the controller -------------------------------------------------------------------------------------------


@dataclass
class Controller:
    """Grants what `places` says, and remembers what it was told."""

    path: str
    places: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Where a tenant's sandboxes are, or those of a set of modules or a runtime; `*` is for all others."""
    refusal: Refusal | None = None
    silent: bool = False
    heard: list[Any] = field(default_factory=list)
    ended: list[Gone] = field(default_factory=list)
    """What whoever connects has to forget: told before the table, as the controller does it."""
    routes: dict[str, Route] = field(default_factory=dict)
    made: int = 0
    _open: bool = False

    def open(self) -> None:
        """Listen."""
        self._open = True
        self._listener: Listener[ToController] = Listener(
            self.path, ToController, self._take, lambda _: None, admit=lambda _: True
        )

    def close(self) -> None:
        """End all connections, as a kill would."""
        if self._open:
            self._open = False
            self._listener.close()

    def send(self, message: msgspec.Struct) -> None:
        """Tell every proxy."""
        for channel in list(self._listener.channels):
            channel.send(message)

    def all(self, kind: type[T]) -> list[T]:
        """What was heard of one kind."""
        return [message for message in self.heard if isinstance(message, kind)]

    def route(self, tenant: str, *, runtime: str = DEFAULT, modules: str = "", exclusive: bool = False) -> Route:
        """Make a route."""
        self.made += 1
        place = self.places.get(tenant) or (modules and self.places.get(modules)) or self.places.get(runtime)
        host, port = place or self.places["*"]
        route = Route(
            sandbox_id=f"{self.made:012x}",
            tenant=tenant,
            runtime=runtime,
            modules=modules,
            host=host,
            port=port,
            exclusive=exclusive,
        )
        self.routes[route.sandbox_id] = route
        return route

    def gone(self, sandbox_id: str, word: End, message: str = "it ended", seq: int = 0, **more: Any) -> int:
        """Say that a sandbox has ended; returns the number to be acknowledged."""
        route = self.routes.pop(sandbox_id)
        self.made += 1
        number = seq or self.made
        self.send(Gone(seq=number, sandbox_id=sandbox_id, tenant=route.tenant, word=word, message=message, **more))
        return number

    def leave(self, sandbox_id: str) -> None:
        """Say that a sandbox takes no new calls."""
        self.send(Leaving(sandbox_id=sandbox_id))

    def present(self, tenant: str, runtime: str = DEFAULT, modules: str = "") -> Route | None:
        """The tenant's last shared route of a runtime and set of modules."""
        return next(
            (
                route
                for route in reversed(self.routes.values())
                if (route.tenant, route.runtime, route.modules, route.exclusive) == (tenant, runtime, modules, False)
            ),
            None,
        )

    def _take(self, channel: Channel[ToController], message: ToController, fds: list[int]) -> None:
        assert not fds
        self.heard.append(message)
        if isinstance(message, Hello):
            for gone in self.ended:
                channel.send(gone)
            channel.send(Table(routes=list(self.routes.values()), last=True))
        elif isinstance(message, Ask) and not self.silent:
            self.answer(channel, message)
        elif isinstance(message, Finished):
            self.gone(message.sandbox_id, "done")

    def answer(self, channel: Channel[ToController], ask: Ask) -> None:
        """Grant or refuse."""
        if self.refusal is not None:
            channel.send(Refused(seq=ask.seq, refusal=self.refusal))
            return
        route = None if ask.exclusive else self.present(ask.tenant.name, ask.runtime, ask.modules)
        if route is None:
            route = self.route(ask.tenant.name, runtime=ask.runtime, modules=ask.modules, exclusive=ask.exclusive)
            for each in self._listener.channels:
                each.send(Assigned(route=route))
        channel.send(Granted(seq=ask.seq, route=route))


# --- sandboxes ------------------------------------------------------------------------------------------------


@dataclass
class Request:
    """What a scripted sandbox read."""

    line: bytes
    headers: dict[bytes, bytes]
    body: bytes


class Peer:
    """One connection of a scripted sandbox."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def head(self) -> Request:
        """Read one head; `asyncio.IncompleteReadError` at the end."""
        raw = await self.reader.readuntil(b"\r\n\r\n")
        line, *lines = raw[:-4].split(b"\r\n")
        headers = {name: value.lstrip() for name, _, value in (each.partition(b":") for each in lines)}
        return Request(line, headers, b"")

    async def request(self) -> Request:
        """Read one request with its body; answers `Expect`."""
        request = await self.head()
        length = int(request.headers.get(b"content-length", b"0"))
        if b"expect" in request.headers:
            await self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if request.headers.get(b"transfer-encoding") == b"chunked":
            request.body = await self.chunks()
        elif length:
            request.body = await self.reader.readexactly(length)
        return request

    async def chunks(self) -> bytes:
        """Read a chunked body."""
        body = b""
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            body += (await self.reader.readexactly(size + 2))[:-2]
        await self.reader.readuntil(b"\r\n")
        return body

    async def write(self, data: bytes) -> None:
        """Send."""
        self.writer.write(data)
        with contextlib.suppress(OSError):
            await self.writer.drain()


def answer(body: bytes = b'"ok"', status: str = "200 OK", *headers: str, wire: str = "1") -> bytes:
    """An answer as an honest runtime writes it."""
    lines = [f"HTTP/1.1 {status}", f"x-sandpost-wire: {wire}", "x-sandpost-source: webtask", *headers]
    return "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode() + body


PROBE_ANSWER = b"HTTP/1.1 204 No Content\r\nx-sandpost-wire: 1\r\nConnection: keep-alive\r\n\r\n"
LOADED = b"HTTP/1.1 204 No Content\r\nx-sandpost-wire: 1\r\n\r\n"
Script = Callable[["Sandbox", Peer, Request], Awaitable[None]]


class Sandbox:
    """A scripted sandbox. Probes and loads are answered honestly unless `silent`; `on_call` does the rest.

    `on_call` gets a call's head, before its body was read.
    """

    def __init__(self, on_call: Script) -> None:
        self._on_call = on_call
        self.silent = False
        self.calls: list[Request] = []
        self.loads: list[Request] = []
        self.connections = 0
        self.open: set[asyncio.StreamWriter] = set()
        self.load_answer = LOADED
        self.load_gate: asyncio.Event | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.die()
        await asyncio.sleep(0.01)

    @property
    def place(self) -> tuple[str, int]:
        """Where it is."""
        return "127.0.0.1", self.port

    def die(self) -> None:
        """Stop listening and reset every connection."""
        self._server.close()
        for writer in list(self.open):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open.add(writer)
        peer = Peer(reader, writer)
        try:
            while True:
                request = await peer.head()
                op = request.headers.get(b"x-sandpost-op")
                if self.silent:
                    continue
                if op == b"probe":
                    await peer.write(PROBE_ANSWER)
                elif op == b"load":
                    request.body = await reader.readexactly(int(request.headers[b"content-length"]))
                    self.loads.append(request)
                    if self.load_gate is not None:
                        await self.load_gate.wait()
                    await peer.write(self.load_answer)
                else:
                    self.calls.append(request)
                    await self._on_call(self, peer, request)
        except (asyncio.IncompleteReadError, OSError, asyncio.CancelledError):
            pass
        finally:
            self.open.discard(writer)
            writer.transport.abort()


def says(data: bytes) -> Script:
    """A script that answers every call with `data`."""

    async def script(_sandbox: Sandbox, peer: Peer, _request: Request) -> None:
        await peer.write(data)

    return script


@contextlib.asynccontextmanager
async def real_runtime(*flags: str, programs: int = 256) -> AsyncIterator[tuple[str, int]]:
    """The runtime of production as a plain process; yields where it listens."""
    with tempfile.TemporaryDirectory() as folder:
        port_file = os.path.join(folder, "port")
        environment = {
            "SANDPOST_PORT": "0",
            "SANDPOST_PORT_FILE": port_file,
            "SANDPOST_PROGRAMS": str(programs),
            "PATH": os.environ["PATH"],
        }
        process = await asyncio.create_subprocess_exec(
            node_binary(), *FLAGS, *flags, str(RUNTIME), env=environment, stdin=asyncio.subprocess.DEVNULL
        )
        try:
            port = int(await eventually(lambda: os.path.exists(port_file) and Path(port_file).read_text(), 10))
            yield "127.0.0.1", port
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


# --- the worker -----------------------------------------------------------------------------------------------


@dataclass
class Answer:
    """A whole answer as a client read it."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return msgspec.json.decode(self.body)


class Connection:
    """A client's connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> Answer:
        """Read a head alone."""
        raw = await self.reader.readuntil(b"\r\n\r\n")
        line, *lines = raw[:-4].decode("latin-1").split("\r\n")
        headers = {}
        for each in lines:
            name, _, value = each.partition(": ")
            headers[name.lower()] = value
        return Answer(int(line.split(" ")[1]), headers, b"")

    async def answer(self, method: str = "GET") -> Answer:
        """Read a whole answer; interim heads are skipped."""
        head = await self.head()
        while head.status < 200 and head.status != 101:
            head = await self.head()
        if method == "HEAD" or head.status in {101, 204, 304}:
            return head
        if head.headers.get("transfer-encoding") == "chunked":
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                head.body += (await self.reader.readexactly(size + 2))[:-2]
            assert await self.reader.readexactly(2) == b"\r\n"
        elif "content-length" in head.headers:
            head.body = await self.reader.readexactly(int(head.headers["content-length"]))
        else:
            head.body = await self.reader.read()
        return head

    async def call(self, target: str, body: bytes = b"", method: str = "POST", *headers: str) -> Answer:
        """Make one request and read its answer."""
        await self.send(request(target, body, method, *headers))
        return await self.answer(method)

    async def rest(self) -> bytes:
        """Read to the end."""
        return await self.reader.read()

    async def ended(self) -> bool:
        """Whether the server closes now."""
        async with asyncio.timeout(5):
            return await self.reader.read(1) == b""

    def close(self) -> None:
        """Close."""
        self.writer.close()


def request(target: str, body: bytes = b"", method: str = "POST", *headers: str) -> bytes:
    """A request's bytes."""
    lines = [f"{method} {target} HTTP/1.1", "Host: test", *headers]
    if body or method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


class Rig:
    """A worker, a controller and a store in a folder of their own."""

    def __init__(self, *, limits: dict[str, Any] | None = None, **changes: Any) -> None:
        self._root = tempfile.mkdtemp(prefix="proxy-")
        os.chmod(self._root, 0o755)
        defaults = msgspec.structs.replace(Limits(), **(limits or {}))
        self.host: Host = host_in(self._root, defaults=defaults, **changes)
        for folder in ("", "tables", "metrics", "api"):
            os.makedirs(self.host.path(folder), exist_ok=True)
        for folder in ("store", "code"):
            os.makedirs(self.host.state(folder), exist_ok=True)
        self.writer = open_writer(self.host)
        self.writer.add_key(Key(id="00000000", digest=key_digest(KEY.encode()), tenant=None, created_at=0))
        self.controller = Controller(self.host.controller_socket)
        self.worker: Worker
        self._connections: list[Connection] = []

    def tenant(self, name: str, isolation: Isolation = "per_tenant", **limits: Any) -> None:
        """Register a tenant with limits of its own."""
        self.writer.put_tenant(TenantRecord(name=name, isolation=isolation, limits=limits))

    async def __aenter__(self) -> Self:
        self.controller.open()
        listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        listener.setblocking(False)
        self.port: int = listener.getsockname()[1]
        self._journal = Journal(self.host.records_socket)
        self.worker = Worker(self.host, 0, "", self._journal)
        self._task = asyncio.create_task(self.worker.run(listener))
        await eventually(lambda: self.worker.link.table_known)
        return self

    async def __aexit__(self, *_: object) -> None:
        for connection in self._connections:
            connection.writer.transport.abort()
        self.worker.retire(0.2)
        # Also where a test's own time is up already.
        async with asyncio.timeout(10):
            await self._task
        self._journal.close()
        self.controller.close()
        self.writer.close()
        shutil.rmtree(self._root)
        await asyncio.sleep(0)

    async def connect(self) -> Connection:
        """Open a client's connection, closed with the rig."""
        connection = Connection(*await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 22))
        self._connections.append(connection)
        return connection

    async def call(self, target: str, body: bytes = HELLO, method: str = "POST", *headers: str) -> Answer:
        """Make one call on a connection of its own."""
        connection = await self.connect()
        try:
            return await connection.call(target, body, method, *headers)
        finally:
            connection.close()


def at(tenant: str, query: str = "") -> str:
    """The target of a call with the operator's key."""
    return f"/{tenant}?key={KEY}" + (f"&{query}" if query else "")


__all__ = [
    "HELLO", "KEY", "LOADED", "Ack", "Answer", "Ask", "Connection", "Controller", "Finished", "Leaving", "Named", "Peer",
    "Refusal", "Replace", "Report", "Request", "Rig", "Sandbox", "Suspect", "answer", "at", "eventually",
    "real_runtime", "request", "run", "says", "sys",
]  # fmt: skip
