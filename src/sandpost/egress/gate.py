"""The gate of allow-list tenants: a connection passes if the name it asks for is allowed and leads where it goes.

The firewall sends their TCP here. The name is read from the first bytes (TLS, HTTP), the destination from the kernel,
and the resolver says whether this tenant was told that address for that name.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address

import dns.message
import msgspec
from dns.rdatatype import RdataType

from sandpost.egress import hello, verdict
from sandpost.egress.body import Body, BrokenBody
from sandpost.egress.counts import Counts
from sandpost.egress.head import BadHead, read_head
from sandpost.egress.hello import BadHello
from sandpost.egress.notes import Notes
from sandpost.egress.pump import Pump
from sandpost.egress.question import LEAST_ANSWER, Question
from sandpost.egress.resolver import Resolver
from sandpost.egress.shares import Shares
from sandpost.egress.verdict import Refusal
from sandpost.egress.ways import Sandbox
from sandpost.model.errors import EgressRefused

MOST_EACH = 512
"""Connections of one tenant."""
MOST = 8192
"""Of all tenants: beyond it the one that has most gives up its oldest."""
FIRST_BYTES = 10.0
"""Seconds for the first bytes to say a name."""
CONNECT = 10.0
_LAST_WORDS = 1.0
"""Seconds that a refused client may take to read why."""
_ORIGINAL_DESTINATION = 80
"""SO_ORIGINAL_DST (linux/netfilter_ipv4.h): where the connection went before the firewall turned it."""
_ADDRESS = struct.Struct("!2xH4s8x")
_ACCESS_DENIED, _UNRECOGNIZED_NAME = 49, 112
_READ = 16384
_PIECES = 128
"""Reads in which the first bytes may come."""


@dataclass(frozen=True, slots=True)
class _Said:
    """What the first bytes say: `first` goes to the server in their place; `body` bounds what may follow."""

    name: str
    first: bytes
    body: Body | None


class _Refused(Exception):  # noqa: N818 - it says what is wrong
    """The connection does not pass."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.text)
        self.refusal = refusal


class Gate:
    """All connections through the gate."""

    def __init__(self, resolver: Resolver, counts: Counts, notes: Notes) -> None:
        self._resolver = resolver
        self._counts = counts
        self._notes = notes
        self._shares = Shares(MOST_EACH, MOST, "connections through the gate")
        self._passed: dict[asyncio.Task[None], tuple[Sandbox, str, IPv4Address, int]] = {}
        self.open = 0
        """Connections that are being looked at or pass."""

    async def serve(self, sandbox: Sandbox, sock: socket.socket) -> None:
        """Judge a connection and let it pass, or refuse it; it is closed in the end."""
        self.open += 1
        first = bytearray()
        over: Callable[[], None] | None = None
        try:
            over = self._enter(sandbox)
            await self._judged(sandbox, sock, first)
        except _Refused as error:
            self._note(sandbox, error.refusal)
            with contextlib.suppress(OSError, TimeoutError):
                await _tell(sock, bytes(first), error.refusal)
        except OSError:
            # The server is not there, or one side went: to the program as if there were no gate.
            _reset(sock)
        finally:
            if over is not None:
                over()
            self.open -= 1
            sock.close()

    def changed(self, sandbox: Sandbox) -> None:
        """The sandbox has another policy: end what it does not allow any more."""
        policy = sandbox.policy
        for task, (owner, name, address, port) in self._passed.items():
            named = name and verdict.of_name(policy, name, port) is None
            if owner is sandbox and not named and not verdict.in_block(policy, address, port):
                task.cancel()

    def _enter(self, sandbox: Sandbox) -> Callable[[], None]:
        """Count the connection; return what is to be called when it is over."""
        if why := self._shares.refusal(sandbox.tenancy.name):
            raise _Refused(Refusal("too_many_connections", why))
        return self._shares.add(sandbox.tenancy.name, partial(self._give_up, sandbox, sandbox.task()))

    def _give_up(self, sandbox: Sandbox, task: asyncio.Task[None]) -> None:
        self._note(sandbox, Refusal("too_many_connections", self._shares.given_up))
        task.cancel()

    def _note(self, sandbox: Sandbox, refusal: Refusal) -> None:
        self._counts.gate_refused[refusal.kind] += 1
        self._notes.add(sandbox.id, refusal.kind, refusal.text)

    async def _judged(self, sandbox: Sandbox, sock: socket.socket, first: bytearray) -> None:
        address, port = _destination(sock)
        _demand(verdict.of_destination(sandbox.policy, address, port))
        if is_own(address):
            raise _Refused(verdict.own(address))
        if verdict.in_block(sandbox.policy, address, port):
            await self._pass(sandbox, sock, _Said("", b"", None), (address, port))
            return
        try:
            async with asyncio.timeout(FIRST_BYTES):
                said = await _read(sock, first, port)
        except TimeoutError:
            text = f"{address}:{port}: no name within {FIRST_BYTES:g} s: TLS and HTTP pass, whose client speaks first"
            raise _Refused(Refusal("no_name", text)) from None
        _demand(verdict.of_name(sandbox.policy, said.name, port))
        if not await self._resolver.leads_to(sandbox, _question(said.name), str(address)):
            raise _Refused(verdict.elsewhere(said.name, address))
        # Meanwhile the policy may have changed.
        _demand(verdict.of_destination(sandbox.policy, address, port))
        _demand(verdict.of_name(sandbox.policy, said.name, port))
        await self._pass(sandbox, sock, said, (address, port))

    async def _pass(self, sandbox: Sandbox, sock: socket.socket, said: _Said, where: tuple[IPv4Address, int]) -> None:
        loop = asyncio.get_running_loop()
        task = sandbox.task()
        # From here on a change of the policy ends it, also while the server takes its time.
        self._passed[task] = (sandbox, said.name, *where)
        try:
            kind = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
            with socket.socket(socket.AF_INET, kind) as outside:
                for one in (sock, outside):
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                async with asyncio.timeout(CONNECT):
                    await loop.sock_connect(outside, (str(where[0]), where[1]))
                self._counts.connections += 1
                await Pump(sock, outside, self._counts, said.body).run(said.first)
        finally:
            del self._passed[task]


def _demand(refusal: Refusal | None) -> None:
    """Go no further with what a verdict is against."""
    if refusal is not None:
        raise _Refused(refusal)


def is_own(address: IPv4Address) -> bool:
    """Whether `address` is this machine's own: a datagram to it would come from it. Sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((str(address), 9))
        except OSError:
            return False
        source: str = sock.getsockname()[0]
        return source == str(address)


def _destination(sock: socket.socket) -> tuple[IPv4Address, int]:
    port, packed = _ADDRESS.unpack(sock.getsockopt(socket.SOL_IP, _ORIGINAL_DESTINATION, _ADDRESS.size))
    return IPv4Address(packed), port


async def _read(sock: socket.socket, first: bytearray, port: int) -> _Said:
    loop = asyncio.get_running_loop()
    # Each piece has all before it read again.
    for _ in range(_PIECES):
        more = await loop.sock_recv(sock, _READ)
        if not more:
            raise ConnectionResetError("it ended before it said a name")
        first += more
        said = _said(bytes(first), port)
        if said is not None:
            return said
    raise _Refused(Refusal("no_name", f"port {port}: its first bytes come in more than {_PIECES} pieces"))


def _said(first: bytes, port: int) -> _Said | None:
    """Return what the first bytes say; None if more are needed. Pure."""
    try:
        if first[0] == hello.HANDSHAKE:
            name = hello.read_hello(first)
            return None if name is None else _Said(name, first, None)
        if not first[:1].isalpha():
            raise _Refused(
                Refusal("unknown_protocol", f"port {port}: it is neither TLS nor HTTP, which alone say a name")
            )
        head = read_head(first)
        if head is None:
            return None
        if head.port not in {None, port}:
            raise _Refused(Refusal("malformed_request", f"port {port}: its Host says port {head.port}"))
        rest = memoryview(first)[head.size :]
        count = head.body.feed(rest)
    except (BadHello, BadHead) as error:
        raise _Refused(Refusal(error.kind, f"port {port}: {error}")) from None
    except BrokenBody as error:
        raise _Refused(Refusal("malformed_request", f"port {port}: {error}")) from None
    return _Said(head.host, head.wire + bytes(rest[:count]), head.body)


def _question(name: str) -> Question:
    return Question(dns.message.make_query(name + ".", RdataType.A), name, RdataType.A, LEAST_ANSWER, edns=False)


async def _tell(sock: socket.socket, first: bytes, refusal: Refusal) -> None:
    """Say why in the client's own protocol, and let it read that."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(_LAST_WORDS):
        if first[:1] == b"\x16":
            code = _UNRECOGNIZED_NAME if refusal.kind in {"no_name", "host_refused"} else _ACCESS_DENIED
            await loop.sock_sendall(sock, bytes((21, 3, 1, 0, 2, 2, code)))
        elif first[:1].isalpha():
            body = msgspec.json.encode(EgressRefused(refusal.text).to_dict())
            head = (
                "HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            )
            await loop.sock_sendall(sock, head.encode() + body)
        else:
            _reset(sock)
            return
        sock.shutdown(socket.SHUT_WR)
        # Closed with bytes unread, the kernel would reset the connection and the answer with it.
        while await loop.sock_recv(sock, _READ):
            pass


def _reset(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
