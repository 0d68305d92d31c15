"""A lab for egress: three network namespaces without a way out, and a real egress process in the middle one.

`inside` has the sandboxes' addresses, `host` the platform's address and the redirection that the firewall makes, `outside`
the internet: documentation addresses, a resolver that the test scripts, servers. No packet leaves the machine.
"""

import asyncio
import contextlib
import ctypes
import itertools
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import msgspec

from sandpost.ipc.channel import Channel, Listener
from sandpost.model import messages as m
from sandpost.model.host import GATE_PORT, Host
from support import collector

UID = 64_322
PLATFORM = "198.18.31.255"
ONE, TWO, STRANGER = "198.18.0.1", "198.18.0.3", "198.18.0.5"
"""Addresses of sandboxes."""
RESOLVER, SECOND = "203.0.113.53", "203.0.113.54"
SERVER, OTHER = "203.0.113.5", "203.0.113.6"
_MAIN = "import sys; from sandpost.egress.main import main; sys.exit(main(sys.argv[1:]))"
_AS_ITS_USER = (
    "setpriv",
    f"--reuid={UID}",
    f"--regid={UID}",
    "--clear-groups",
    "--inh-caps=-all,+dac_read_search",
    "--ambient-caps=+dac_read_search",
    "--bounding-set=-all,+dac_read_search",
)
REDIRECT = f"""
table ip gate {{
	chain prerouting {{
		type nat hook prerouting priority dstnat;
		iifname "inner" ip daddr != {PLATFORM} meta l4proto tcp dnat to {PLATFORM}:{GATE_PORT}
	}}
}}
"""
_numbers = itertools.count()
_libc = ctypes.CDLL(None, use_errno=True)


class Names:
    """The namespaces of one lab."""

    def __init__(self) -> None:
        tag = f"sp{os.getpid()}n{next(_numbers)}"
        self.inside, self.host, self.outside = f"{tag}i", f"{tag}h", f"{tag}o"

    def make(self) -> None:
        for name in (self.inside, self.host, self.outside):
            _ip("netns", "add", name)
            self.ip(name, "link", "set", "lo", "up")
        for here, mine, there, theirs in (
            (self.host, "inner", self.inside, "eth0"),
            (self.host, "outer", self.outside, "eth0"),
        ):
            self.ip(here, "link", "add", mine, "type", "veth", "peer", "name", theirs, "netns", there)
            self.ip(here, "link", "set", mine, "up")
            self.ip(there, "link", "set", theirs, "up")
        for name, link, address in (
            (self.host, "lo", f"{PLATFORM}/32"),
            (self.host, "inner", "198.18.0.254/24"),
            (self.host, "outer", "203.0.113.1/24"),
            *((self.inside, "eth0", f"{address}/24") for address in (ONE, TWO, STRANGER)),
            *((self.outside, "eth0", f"{address}/24") for address in (RESOLVER, SECOND, SERVER, OTHER)),
            (self.outside, "lo", "10.0.0.5/32"),
        ):
            self.ip(name, "address", "add", address, "dev", link)
        self.ip(self.inside, "route", "add", "default", "via", "198.18.0.254")
        self.ip(self.outside, "route", "add", "default", "via", "203.0.113.1")
        self.ip(self.host, "route", "add", "10.0.0.0/8", "via", SERVER)
        nft = ["ip", "netns", "exec", self.host, "nft", "-f", "-"]
        subprocess.run(nft, input=REDIRECT, text=True, check=True)

    def remove(self) -> None:
        for name in (self.inside, self.host, self.outside):
            subprocess.run(["ip", "netns", "delete", name], check=False)

    def ip(self, name: str, *words: str) -> None:
        _ip("-n", name, *words)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def sock_in(namespace: str, kind: socket.SocketKind, address: str = "", port: int = 0) -> socket.socket:
    """Make a socket in a namespace, bound there; a listening one if it has a port and is a stream."""
    made: list[socket.socket | Exception] = []

    def make() -> None:
        try:
            fd = os.open(f"/run/netns/{namespace}", os.O_RDONLY | os.O_CLOEXEC)
            if _libc.setns(fd, 0x40000000) != 0:
                raise OSError(ctypes.get_errno(), "setns")  # noqa: TRY301
            os.close(fd)
            sock = socket.socket(socket.AF_INET, kind)
            if kind == socket.SOCK_STREAM:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if address:
                sock.bind((address, port))
            if port and kind == socket.SOCK_STREAM:
                sock.listen(64)
            sock.setblocking(False)
            made.append(sock)
        except Exception as error:
            made.append(error)

    # A thread's namespace ends with it.
    thread = threading.Thread(target=make)
    thread.start()
    thread.join(10)
    if isinstance(made[0], Exception):
        raise made[0]
    return made[0]


Script = Callable[[dns.message.Message], dns.message.Message | bytes | None]


class Resolver:
    """A resolver outside, by UDP and TCP. `script(query)` says what it answers, None: nothing."""

    def __init__(self, namespace: str, address: str, script: Script) -> None:
        self.script = script
        self.asked: list[tuple[str, str]] = []
        """Names in lower case and types, by either protocol."""
        self.spelled: list[str] = []
        self.sources: list[int] = []
        self.ids: list[int] = []
        self.by_tcp = 0
        self.udp = sock_in(namespace, socket.SOCK_DGRAM, address, 53)
        self.tcp = sock_in(namespace, socket.SOCK_STREAM, address, 53)
        loop = asyncio.get_running_loop()
        loop.add_reader(self.udp.fileno(), self._datagram)
        self._accepting = asyncio.create_task(self._accept())

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.udp.fileno())
        self._accepting.cancel()
        self.udp.close()
        self.tcp.close()

    def _datagram(self) -> None:
        wire, where = self.udp.recvfrom(4096)
        query = dns.message.from_wire(wire)
        self._note(query)
        self.sources.append(where[1])
        reply = self.script(query)
        if isinstance(reply, dns.message.Message):
            try:
                reply = reply.to_wire(max_size=1232)
            except dns.exception.TooBig:
                cut = dns.message.make_response(query)
                cut.flags |= dns.flags.TC
                reply = cut.to_wire()
        if reply is not None:
            self.udp.sendto(reply, where)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            sock, _ = await loop.sock_accept(self.tcp)
            with sock:
                head = await loop.sock_recv(sock, 2)
                query = dns.message.from_wire(await loop.sock_recv(sock, int.from_bytes(head, "big")))
                self._note(query)
                self.by_tcp += 1
                reply = self.script(query)
                if reply is not None:
                    wire = reply if isinstance(reply, bytes) else reply.to_wire(max_size=65535)
                    await loop.sock_sendall(sock, struct.pack("!H", len(wire)) + wire)

    def _note(self, query: dns.message.Message) -> None:
        asked = query.question[0]
        self.spelled.append(asked.name.to_text(omit_final_dot=True))
        self.asked.append((self.spelled[-1].lower(), dns.rdatatype.to_text(asked.rdtype)))
        self.ids.append(query.id)


def zone(*lines: str) -> Script:
    """Return a script that answers from `name ttl type data` lines along aliases, and NXDOMAIN for other names."""
    sets: dict[tuple[str, str], dns.rrset.RRset] = {}
    for line in lines:
        name, ttl, kind, data = line.split(" ", 3)
        rrset = dns.rrset.from_text(f"{name}.", int(ttl), "IN", kind, data)
        known = sets.setdefault((name, kind), rrset)
        if known is not rrset:
            known.update(rrset)  # type: ignore[no-untyped-call]

    def answer(query: dns.message.Message) -> dns.message.Message:
        response = dns.message.make_response(query)
        name = query.question[0].name.to_text(omit_final_dot=True).lower()
        kind = dns.rdatatype.to_text(query.question[0].rdtype)
        if not any(known == name for known, _ in sets):
            response.set_rcode(dns.rcode.NXDOMAIN)
        for _ in range(12):
            if (name, kind) in sets:
                response.answer.append(sets[name, kind])
                break
            if (name, "CNAME") not in sets:
                break
            response.answer.append(sets[name, "CNAME"])
            name = sets[name, "CNAME"][0].target.to_text(omit_final_dot=True)
        return response

    return answer


class Lab:
    """The lab and the process in it."""

    def __init__(self) -> None:
        self.names = Names()
        self.folder = Path(tempfile.mkdtemp(prefix="sandpost-egress-"))
        self.folder.chmod(0o711)
        (self.folder / "metrics").mkdir()
        os.chown(self.folder / "metrics", UID, UID)
        self.host: Host = msgspec.structs.replace(
            collector.make_host(str(self.folder), str(self.folder), 0),
            resolvers=[f"{RESOLVER}:53"],
            own_names=["me.example"],
        )
        self.ways: list[m.Way] = []
        self.notes: list[m.Noted] = []
        self.acks: list[int] = []
        self.hellos = 0
        self.greeted = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.sockets: list[socket.socket] = []
        self.resolvers: list[Resolver] = []
        self.log = self.folder / "stderr"
        self.before = ""
        """What the process does first."""
        self.whole = True
        """Whether the controller tells the end of its table."""

    # --- around it ------------------------------------------------------------------------------------------

    def open(self) -> None:
        self.names.make()
        self.supervisor: Listener[Any] = Listener(
            self.host.supervisor_socket, m.ToSupervisor, self._on_supervisor, lambda _: None, admit=lambda _: True
        )
        self.open_controller()
        for kind, port in ((socket.SOCK_DGRAM, 53), (socket.SOCK_STREAM, 53), (socket.SOCK_STREAM, GATE_PORT)):
            self.sockets.append(sock_in(self.names.host, kind, PLATFORM, port))
        # As the supervisor makes it (SO_RCVBUFFORCE).
        self.sockets[0].setsockopt(socket.SOL_SOCKET, 33, 4 << 20)

    def open_controller(self) -> None:
        self.controller: Listener[Any] = Listener(
            self.host.controller_socket, m.ToController, self._on_controller, lambda _: None, admit=lambda _: True
        )

    def _on_supervisor(self, _channel: Channel[Any], message: Any, _fds: list[int]) -> None:
        self.greeted += isinstance(message, m.Hello)

    def _on_controller(self, channel: Channel[Any], message: Any, _fds: list[int]) -> None:
        match message:
            case m.Hello(part="egress"):
                channel.send(m.Ways(ways=self.ways[:1], last=False))
                channel.send(m.Ways(ways=self.ways[1:], last=self.whole))
                self.hellos += 1
            case m.Noted():
                self.notes.append(message)
            case m.Ack():
                self.acks.append(message.seq)

    def resolver(self, script: Script, address: str = RESOLVER) -> Resolver:
        made = Resolver(self.names.outside, address, script)
        self.resolvers.append(made)
        return made

    def way(self, address: str = ONE, egress: str = "public", tenant: str = "acme", sandbox_id: str = "") -> m.Way:
        """Open a sandbox's way, or change it."""
        way = m.Way(sandbox_id=sandbox_id or f"of-{address}", tenant=tenant, address=address, egress=egress)
        self.ways = [one for one in self.ways if one.sandbox_id != way.sandbox_id] + [way]
        self.say(m.WayOpened(way=way))
        return way

    def gone(self, way: m.Way, seq: int) -> None:
        self.ways = [one for one in self.ways if one != way]
        self.say(m.Gone(seq=seq, sandbox_id=way.sandbox_id, tenant=way.tenant, word="idle", message=""))

    def say(self, message: msgspec.Struct) -> None:
        for channel in self.controller.channels:
            channel.send(message)

    # --- the process ------------------------------------------------------------------------------------------

    def write_host(self) -> str:
        path = self.folder / "host.json"
        path.write_bytes(msgspec.json.encode(self.host))
        return str(path)

    async def start(self) -> None:
        hellos, greeted = self.hellos, self.greeted
        command = [
            "ip", "netns", "exec", self.names.host, *_AS_ITS_USER, sys.executable, "-c", self.before + _MAIN, "--host",
            self.write_host(),
        ]  # fmt: skip
        high = [os.dup(sock.fileno()) for sock in self.sockets]

        def arrange() -> None:
            copies = [os.dup(fd) for fd in high]
            for offset, fd in enumerate(copies):
                os.dup2(fd, 3 + offset, inheritable=True)

        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                command, stderr=log, preexec_fn=arrange, close_fds=True, pass_fds=(3, 4, 5, *high)
            )
        for fd in high:
            os.close(fd)
        await self.until(lambda: self.hellos > hellos and self.greeted > greeted)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    async def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            await asyncio.to_thread(self.process.wait, 10)
        for resolver in self.resolvers:
            resolver.close()
        self.supervisor.close()
        self.controller.close()
        for sock in self.sockets:
            sock.close()
        self.names.remove()
        print(self.log.read_text()[-6000:])
        shutil.rmtree(self.folder)

    async def until(self, condition: Callable[[], object], seconds: float = 10) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if self.process is not None and self.process.poll() is not None:
                raise AssertionError(f"egress ended with {self.process.returncode}: {self.log.read_text()}")
            assert time.monotonic() < deadline, f"not within {seconds} s: {self.log.read_text()[-4000:]}"
            await asyncio.sleep(0.01)

    # --- what a sandbox does ------------------------------------------------------------------------------------

    async def ask(
        self, name: str, kind: str = "A", source: str = ONE, within: float = 6, **options: Any
    ) -> dns.message.Message:
        """Ask the resolver by UDP, with EDNS; `TimeoutError` if it does not answer."""
        query = dns.message.make_query(name, kind, use_edns=options.pop("edns", 0), **options)
        return dns.message.from_wire(await self.ask_raw(query.to_wire(), source, within))

    async def ask_raw(self, wire: bytes, source: str = ONE, within: float = 6) -> bytes:
        loop = asyncio.get_running_loop()
        with sock_in(self.names.inside, socket.SOCK_DGRAM, source) as sock:
            sock.connect((PLATFORM, 53))
            sock.send(wire)
            async with asyncio.timeout(within):
                return await loop.sock_recv(sock, 65535)

    async def connect(self, address: str, port: int, source: str = ONE) -> socket.socket:
        """Connect from a sandbox; the gate takes it, unless it is the platform's address."""
        sock = sock_in(self.names.inside, socket.SOCK_STREAM, source)
        try:
            async with asyncio.timeout(5):
                await asyncio.get_running_loop().sock_connect(sock, (address, port))
        except BaseException:
            sock.close()
            raise
        return sock

    # --- what is seen ------------------------------------------------------------------------------------------

    def said(self, kind: str) -> list[str]:
        return [note.text for note in self.notes if note.kind == kind]

    def figure(self, name: str, **labels: str) -> float:
        raw = json.loads((self.folder / "metrics" / "egress-0.json").read_bytes())
        for sample in raw["samples"]:
            if sample["name"] == name and sample.get("labels", {}) == labels:
                value: float = sample["value"]
                return value
        return 0.0


def ede(message: dns.message.Message) -> list[tuple[int, str]]:
    """Extended errors of an answer (RFC 8914)."""
    return [(int(one.code), one.text or "") for one in message.options if one.otype == 15]


def texts(message: dns.message.Message) -> list[str]:
    """The answer's records without their names and lifetimes."""
    return [rdata.to_text() for rrset in message.answer for rdata in rrset]


@contextlib.asynccontextmanager
async def lab(prepare: Callable[[Lab], None] = lambda _: None) -> AsyncIterator[Lab]:
    made = Lab()
    prepare(made)
    try:
        made.open()
        await made.start()
        yield made
    finally:
        await made.close()


def in_lab(test: Callable[[Lab], Awaitable[None]], prepare: Callable[[Lab], None] = lambda _: None) -> None:
    """Run a test's coroutine in a lab of its own."""

    async def body() -> None:
        async with lab(prepare) as made:
            await test(made)

    asyncio.run(body())
