"""A bed for controller tests: an installation on a claimed place, a really started controller, and clients of its socket."""

import asyncio
import contextlib
import ctypes
import hashlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec

from sandpost.controller.record import Record
from sandpost.ipc import Channel, Connector
from sandpost.kernel.processes import start_time
from sandpost.model.host import Host
from sandpost.model.limits import Tenant
from sandpost.model.messages import (
    Ack,
    Ask,
    AskStatus,
    Assigned,
    Done,
    FromController,
    Gone,
    Granted,
    Hello,
    Leaving,
    ListSandboxes,
    Part,
    Refused,
    Route,
    Sandboxes,
    SandboxInfo,
    Status,
    Table,
    Usage,
    UsageItem,
    UsageTaken,
    Way,
    WayOpened,
    Ways,
)
from sandpost.model.runtimes import DEFAULT
from support.engine_bed import claimed_host
from support.heard import Heard
from support.lab import Place

SANDPOST = str(Path(sys.executable).with_name("sandpost"))
Answer = TypeVar("Answer")
_PR_SET_CHILD_SUBREAPER = 36


class Installation:
    """A run folder, and `sandpost controller` as a child of the test; `place`: where in a lab it runs."""

    def __init__(self, place: Place | None = None, **changes: Any) -> None:
        self._place = place
        self._claim = contextlib.ExitStack()
        host = self._claim.enter_context(claimed_host())
        self.host = msgspec.structs.replace(host, **{"pool_size": 2, "parallel_starts": 2, "queue": 8, **changes})
        self.run_dir = host.run_dir
        os.makedirs(self.host.metrics_dir)
        self.host_file = os.path.join(self.run_dir, "host.json")
        self.write_host()
        self.heard = Heard(self.host.records_socket)
        self.process: subprocess.Popen[bytes] | None = None
        # What a killed controller leaves becomes ours, and must not stay as zombies.
        _adopt_orphans(1)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (closed in __exit__)

    def write_host(self, **changes: Any) -> None:
        """Write the host file, changed."""
        self.host = msgspec.structs.replace(self.host, **changes)
        Path(self.host_file).write_bytes(msgspec.json.encode(self.host))

    def start(self) -> Self:
        """Start a controller and wait until it listens."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.host.controller_socket)
        command = [SANDPOST, "controller", "--host", self.host_file]
        self.process = self._there(
            lambda: subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log)
        )
        self.until(lambda: os.path.exists(self.host.controller_socket), "the controller to listen", 20)
        return self

    def kill(self) -> None:
        """Kill the controller as nobody expects it."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def retire(self) -> int:
        """End the controller as a renewal does."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def purge(self) -> int:
        """Remove every sandbox by a controller of its own."""
        command = [SANDPOST, "controller", "--host", self.host_file, "--purge"]
        return self._there(
            lambda: subprocess.run(command, stdout=self._log, stderr=self._log, timeout=100, check=False)
        ).returncode

    def _there(self, work: Callable[[], Answer]) -> Answer:
        return work() if self._place is None else self._place.run(work)

    def until(self, met: Callable[[], Any], what: str, within: float = 10) -> None:
        """Wait for something to become true; not inside an event loop, whose clients would say nothing meanwhile."""
        for _ in self._looks(met, what, within):
            time.sleep(0.01)

    async def becomes(self, met: Callable[[], Any], what: str, within: float = 10) -> None:
        """Wait for something to become true while clients go on."""
        for _ in self._looks(met, what, within):
            await asyncio.sleep(0.01)

    def _looks(self, met: Callable[[], Any], what: str, within: float) -> Iterator[None]:
        deadline = time.monotonic() + within
        while not met():
            if self.process is not None and self.process.poll() is not None:
                raise AssertionError(f"the controller ended with {self.process.returncode}:\n{self.output()}")
            assert time.monotonic() < deadline, f"waited {within} s for {what}:\n{self.output()[-5000:]}"
            yield

    def records(self) -> dict[str, Record]:
        """The records on disk."""
        found = {}
        for path in Path(self.host.path("records")).glob("*.json"):
            with contextlib.suppress(FileNotFoundError):
                record = msgspec.json.decode(path.read_bytes(), type=Record)
                found[record.sandbox_id] = record
        return found

    def phases(self) -> list[str]:
        """The phases of all records."""
        return sorted(record.phase for record in self.records().values())

    def output(self) -> str:
        """Everything that controllers have printed."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if self.process is not None and self.process.poll() is None:
                self.kill()
            status = self.purge()
            if kind is not None or status != 0:
                print(self.output()[-20000:])
            assert status == 0, "purge left something"
            assert not (left := self._there(lambda: list(names_left(self.host)))), left
        finally:
            # Whoever comes next in this process may rely on init for what it leaves.
            _adopt_orphans(0)
            self._log.close()
            self.heard.close()
            self._claim.close()


def _adopt_orphans(adopt: int) -> None:
    assert ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, adopt, 0, 0, 0) == 0


def names_left(host: Host) -> Iterator[str]:
    """Everything on this machine that carries the installation's names."""
    for top, folders, _ in os.walk("/sys/fs/cgroup"):
        yield from (os.path.join(top, name) for name in folders if name.startswith(host.cgroup_parent))
    yield from (name for _, name in socket.if_nameindex() if name.startswith(host.interface_prefix))
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, timeout=10, check=True).stdout
    yield from (line for line in tables.splitlines() if line.endswith(f" {host.nft_table}"))
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            uid = os.stat(f"/proc/{pid}").st_uid
            if host.sandbox_uids <= uid < host.sandbox_uids + 8 * host.slots:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(int(pid), os.WNOHANG)
                # A zombie that is not ours to reap is of an earlier user of this place.
                if start_time(int(pid)):
                    yield f"process {pid} of uid {uid}"


class Client:
    """A client of the controller's socket, of the part it says; as a proxy it acknowledges what it does not cling to."""

    def __init__(self, host: Host, part: Part = "proxy", index: int = 0) -> None:
        self.host = host
        self.routes: dict[str, Route] = {}
        self.answers: dict[int, Granted | Refused] = {}
        self.gone: dict[str, Gone] = {}
        self.left: set[str] = set()
        self.told: list[FromController] = []
        self.ways: dict[str, Way] = {}
        self.unacknowledged: list[Gone] = []
        self.clings_to: set[str] = set()
        """Tenants whose routes it does not let go of."""
        self.table_known = asyncio.Event()
        self.sandboxes: list[SandboxInfo] = []
        self.status: Status | None = None
        self.usage: dict[str, UsageItem] = {}
        self.done: set[int] = set()
        self._batches: set[str] = set()
        self._part: Part = part
        self._index = index
        self._seq = 0
        self._heard = asyncio.Event()
        self._connector: Connector[FromController] = Connector(
            host.controller_socket, FromController, self._take, greet=self._greet, on_lost=self.table_known.clear
        )

    def close(self) -> None:
        self._connector.close()

    def send(self, message: msgspec.Struct) -> bool:
        return self._connector.send(message)

    async def until(self, found: Callable[[], Answer | None], what: str, within: float = 10) -> Answer:
        """Wait until something is heard that `found` returns."""
        try:
            async with asyncio.timeout(within):
                while True:
                    answer = found()
                    if answer:
                        return answer
                    self._heard.clear()
                    await self._heard.wait()
        except TimeoutError:
            raise AssertionError(f"waited {within} s for {what}") from None

    def ask(self, tenant: str | Tenant, *, exclusive: bool = False, runtime: str = DEFAULT) -> int:
        """Ask for a sandbox; return the number of the question."""
        self._seq += 1
        value = tenant if isinstance(tenant, Tenant) else Tenant(name=tenant, limits=self.host.defaults)
        assert self.send(Ask(seq=self._seq, tenant=value, runtime=runtime, exclusive=exclusive)), "not connected"
        return self._seq

    async def answer(self, seq: int, within: float = 20) -> Granted | Refused:
        return await self.until(lambda: self.answers.get(seq), f"the answer to {seq}", within)

    async def route(self, tenant: str | Tenant, *, exclusive: bool = False, runtime: str = DEFAULT) -> Route:
        """Ask, and return the granted route."""
        answer = await self.answer(self.ask(tenant, exclusive=exclusive, runtime=runtime))
        assert isinstance(answer, Granted), answer
        return answer.route

    async def refusal(self, tenant: str | Tenant, *, exclusive: bool = False) -> Refused:
        """Ask, and return the refusal."""
        answer = await self.answer(self.ask(tenant, exclusive=exclusive))
        assert isinstance(answer, Refused), answer
        return answer

    async def end_of(self, route: Route, within: float = 15) -> Gone:
        """Wait until a sandbox is said to be gone."""
        return await self.until(lambda: self.gone.get(route.sandbox_id), f"the end of {route.sandbox_id}", within)

    async def ask_status(self) -> Status:
        self.status = None
        self.send(AskStatus(seq=1))
        return await self.until(lambda: self.status, "the status")

    async def infos(self, tenant: str | None = None) -> list[SandboxInfo]:
        self.sandboxes, self._listed = [], False
        self.send(ListSandboxes(seq=1, tenant=tenant))
        await self.until(lambda: self._listed, "the list")
        return self.sandboxes

    def acknowledge(self) -> None:
        """Acknowledge what it does not cling to."""
        for gone in list(self.unacknowledged):
            if gone.tenant not in self.clings_to:
                self.unacknowledged.remove(gone)
                self.send(Ack(seq=gone.seq))

    def _greet(self, channel: Channel[FromController]) -> None:
        # What was to be acknowledged on an earlier connection is told again.
        self.unacknowledged.clear()
        channel.send(Hello(part=self._part, index=self._index, pid=os.getpid()))

    def _take(self, channel: Channel[FromController], message: FromController, fds: list[int]) -> None:
        assert not fds
        match message:
            case Table():
                if not self.table_known.is_set():
                    self.routes = {}
                self.routes.update({route.sandbox_id: route for route in message.routes})
                if message.last:
                    self.table_known.set()
            case Assigned():
                self.routes[message.route.sandbox_id] = message.route
            case Granted() | Refused():
                assert message.seq not in self.answers, "answered twice"
                self.answers[message.seq] = message
            case Leaving():
                self.left.add(message.sandbox_id)
            case Gone():
                self.routes.pop(message.sandbox_id, None)
                self.ways.pop(message.sandbox_id, None)
                self.gone[message.sandbox_id] = message
                self.unacknowledged.append(message)
                self.acknowledge()
            case Sandboxes():
                self.sandboxes += message.items
                self._listed = message.last
            case Status():
                self.status = message
            case Usage():
                if message.batch not in self._batches:
                    self._batches.add(message.batch)
                    for item in message.items:
                        self._add(item)
                channel.send(UsageTaken(batch=message.batch))
            case Ways():
                if not self.table_known.is_set():
                    self.ways = {}
                self.ways.update({way.sandbox_id: way for way in message.ways})
                if message.last:
                    self.table_known.set()
            case WayOpened():
                self.ways[message.way.sandbox_id] = message.way
            case Done():
                self.done.add(message.seq)
            case _:
                self.told.append(message)
        self._heard.set()

    def _add(self, item: UsageItem) -> None:
        before = self.usage.get(item.tenant, UsageItem(tenant=item.tenant, hour=0))
        ends = dict(before.ends)
        for word, count in item.ends.items():
            ends[word] = ends.get(word, 0) + count
        self.usage[item.tenant] = UsageItem(
            tenant=item.tenant, hour=item.hour, calls=before.calls + item.calls,
            cpu_seconds=before.cpu_seconds + item.cpu_seconds,
            memory_seconds=before.memory_seconds + item.memory_seconds,
            bytes_in=before.bytes_in + item.bytes_in, bytes_out=before.bytes_out + item.bytes_out, ends=ends,
        )  # fmt: skip


def run(route: Route, program: str, patience: float = 20) -> tuple[int, bytes]:
    """Load and call a program in a sandbox; status and body, or (0, ..) if the connection broke."""
    source = program.encode()
    head = {"x-sandpost-code": hashlib.sha256(source).hexdigest(), "x-sandpost-req": "r1"}
    connection = http.client.HTTPConnection(route.host, route.port, timeout=patience)
    try:
        connection.request("PUT", "/", source, {"x-sandpost-op": "load", **head})
        connection.getresponse().read()
        connection.request("GET", "/", headers={"x-sandpost-op": "call", **head})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException) as error:
        return 0, str(error).encode()
    finally:
        connection.close()


async def run_in(route: Route, program: str, patience: float = 20) -> tuple[int, bytes]:
    """`run`, beside the event loop."""
    return await asyncio.to_thread(run, route, program, patience)


def drive(work: Coroutine[Any, Any, None], within: float = 60) -> None:
    """Run a test's work in an event loop of its own."""

    async def bounded() -> None:
        async with asyncio.timeout(within):
            await work

    asyncio.run(bounded())


@contextlib.asynccontextmanager
async def client(host: Host, part: Part = "proxy", index: int = 0) -> AsyncIterator[Client]:
    """A connected client; of a proxy, one that has the table."""
    one = Client(host, part, index)
    try:
        if part in {"proxy", "egress"}:
            await asyncio.wait_for(one.table_known.wait(), 10)
        else:
            await asyncio.sleep(0.1)
        yield one
    finally:
        one.close()
