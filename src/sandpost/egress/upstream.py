"""Asks the resolvers of this host, one after another, within a deadline.

Every question has a socket, hence a source port, an id and a spelling (0x20) of its own, and takes no answer that
differs in any of them: who cannot read the question cannot forge its answer (RFC 5452). A resolver that spells names
its own way, or whose answer does not fit, is asked by TCP, where the address of its answer cannot be forged.
"""

import asyncio
import random
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
from dns.rdatatype import RdataType

from sandpost.egress.question import UNREADABLE

DEADLINE = 4.0
"""Seconds for an answer, whoever gives it; programs wait for five."""
_TRIES = (0.8, 1.2, 2.0)
"""Seconds that a resolver gets, round after round."""
_REST = (5.0, 30.0)
"""Seconds for which a resolver that failed is asked last: at first, and at most."""
_SIZE = 1232
_STRANGERS = 16
"""Datagrams that are no answer to the question, after which it is asked by TCP."""

_USABLE = frozenset({dns.rcode.NOERROR, dns.rcode.NXDOMAIN})

_random = random.SystemRandom()


class NoAnswer(Exception):  # noqa: N818 - it says what is wrong
    """No resolver gave a usable answer; the message says what each did."""


@dataclass(slots=True)
class Server:
    """One resolver, and how it did."""

    shown: str
    family: socket.AddressFamily
    where: tuple[str, int]
    failures: int = 0
    rests_until: float = 0.0
    counted: int = field(default=0)
    """Failures since the start, for figures."""

    def failed(self, now: float) -> None:
        """Ask it last for a while."""
        self.failures += 1
        self.counted += 1
        self.rests_until = now + min(_REST[0] * 2 ** min(self.failures - 1, 16), _REST[1])

    def answered(self) -> None:
        """It is well."""
        self.failures = 0
        self.rests_until = 0.0


def servers(addresses: Sequence[str]) -> list[Server]:
    """Return the resolvers of `host:port` texts, as settings have checked them."""
    found = []
    for text in addresses:
        host, _, port = text.rpartition(":")
        host = host.strip("[]")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        found.append(Server(text, family, (host, int(port))))
    return found


def make(name: dns.name.Name, kind: RdataType) -> dns.message.QueryMessage:
    """Return a question for an upstream: nothing of the sandbox's own message is in it."""
    spelled = dns.name.Name(tuple(bytes(map(_recase, label)) for label in name.labels))
    query = dns.message.make_query(spelled, kind, use_edns=0, payload=_SIZE)
    query.id = _random.getrandbits(16)
    return query


def is_answer(query: dns.message.Message, message: dns.message.Message, *, exact: bool = True) -> bool:
    """Whether `message` answers `query`: id, opcode and question, in the same spelling if `exact`. Pure."""
    if message.id != query.id or not message.flags & dns.flags.QR or message.opcode() != dns.opcode.QUERY:
        return False
    if len(message.question) != 1:
        return False
    asked, told = query.question[0], message.question[0]
    if (asked.rdtype, asked.rdclass) != (told.rdtype, told.rdclass) or asked.name != told.name:
        return False
    return not exact or asked.name.labels == told.name.labels


class Upstream:
    """The resolvers of this host."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self.servers = servers(addresses)

    async def ask(self, name: dns.name.Name, kind: RdataType) -> dns.message.Message:
        """Return the first usable answer (NOERROR, NXDOMAIN); `NoAnswer` after `DEADLINE`, or when all have failed."""
        if not self.servers:
            raise NoAnswer("this host has no resolver: its operator sets egress.resolvers")
        complaints: dict[str, str] = {}
        spoken: set[str] = set()
        try:
            async with asyncio.timeout(DEADLINE):
                for patience in _TRIES:
                    now = time.monotonic()
                    # Those that rest come last; sorting keeps the given order among equals.
                    for server in sorted(self.servers, key=lambda one: one.rests_until > now):
                        if server.shown in spoken:
                            continue
                        try:
                            async with asyncio.timeout(patience):
                                message = await _ask(server, name, kind)
                        except TimeoutError:
                            complaints[server.shown] = "did not answer"
                        except (OSError, *UNREADABLE) as error:
                            complaints[server.shown] = str(error) or type(error).__name__
                        else:
                            server.answered()
                            if message.rcode() in _USABLE:
                                return message
                            # It is well, the name is not: asked again it would say the same.
                            complaints[server.shown] = f"says {dns.rcode.to_text(message.rcode())}"
                            spoken.add(server.shown)
                            continue
                        server.failed(time.monotonic())
        except TimeoutError:
            complaints.setdefault("in all", f"no answer within {DEADLINE:g} s")
        raise NoAnswer("; ".join(f"{shown}: {text}" for shown, text in complaints.items()))


async def _ask(server: Server, name: dns.name.Name, kind: RdataType) -> dns.message.Message:
    query = make(name, kind)
    message = await _by_datagram(server, query)
    if message is None:
        message = await _by_stream(server, query)
    return message


async def _by_datagram(server: Server, query: dns.message.Message) -> dns.message.Message | None:
    """Return the answer; None if it is to be had by TCP."""
    loop = asyncio.get_running_loop()
    with socket.socket(server.family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as sock:
        # Connected: the kernel chooses the port at random and lets nobody else's datagrams in.
        sock.connect(server.where)
        sock.send(query.to_wire())
        for _ in range(_STRANGERS):
            wire = await loop.sock_recv(sock, 65535)
            try:
                message = dns.message.from_wire(wire, ignore_trailing=True, raise_on_truncation=False)
            except UNREADABLE:
                continue
            if not is_answer(query, message, exact=False):
                continue
            if message.flags & dns.flags.TC or not is_answer(query, message):
                return None
            return message
    return None


async def _by_stream(server: Server, query: dns.message.Message) -> dns.message.Message:
    loop = asyncio.get_running_loop()
    with socket.socket(server.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as sock:
        await loop.sock_connect(sock, server.where)
        wire = query.to_wire()
        await loop.sock_sendall(sock, struct.pack("!H", len(wire)) + wire)
        (length,) = struct.unpack("!H", await _exactly(sock, 2))
        message = dns.message.from_wire(await _exactly(sock, length))
    if not is_answer(query, message, exact=False):
        raise OSError("answers another question")
    if message.flags & dns.flags.TC:
        raise OSError("cuts its answers by TCP too")
    return message


async def _exactly(sock: socket.socket, length: int) -> bytes:
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < length:
        more = await loop.sock_recv(sock, length - len(data))
        if not more:
            raise OSError("ends the connection in the midst of its answer")
        data += more
    return data


def _recase(byte: int) -> int:
    letter = 0x41 <= byte & 0xDF <= 0x5A
    return byte ^ (_random.getrandbits(1) << 5) if letter else byte
