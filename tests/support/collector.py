"""A real collector process between a supervisor and a controller that the test plays, with real FIFOs."""

import asyncio
import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from sandpost.ipc.channel import Channel, Listener
from sandpost.kernel import sockets
from sandpost.logs.journal import Journal
from sandpost.model import messages as m
from sandpost.model.host import Host, Users
from sandpost.model.limits import Limits
from support.logs import records_of

if TYPE_CHECKING:
    import socket

UID = 64_321
"""The collector's user: not root, and in no passwd file."""
# The interpreter may live where only root can go (a virtual environment in /root): reading is allowed, no more.
_AS_ITS_USER = (
    "setpriv",
    f"--reuid={UID}",
    f"--regid={UID}",
    "--clear-groups",
    "--inh-caps=-all,+dac_read_search",
    "--ambient-caps=+dac_read_search",
    "--bounding-set=-all,+dac_read_search",
)
_MAIN = "import sys; from sandpost.collector.main import main; sys.exit(main(sys.argv[1:]))"


class Fifos:
    """One sandbox's FIFOs: read ends held as the supervisor holds them, write ends as the sandbox has them."""

    def __init__(self, folder: Path, sandbox_id: str) -> None:
        self.id = sandbox_id
        self.reads: list[int] = []
        self.writes: list[int] = []
        for name in ("out", "err", "log"):
            path = folder / f"{sandbox_id}-{name}"
            os.mkfifo(path, 0o600)
            self.reads.append(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
            self.writes.append(os.open(path, os.O_WRONLY))

    @property
    def out(self) -> int:
        """Write end of its standard output."""
        return self.writes[0]

    @property
    def err(self) -> int:
        """Write end of its standard error."""
        return self.writes[1]

    @property
    def frames(self) -> int:
        """Write end of its frames."""
        return self.writes[2]

    def end(self) -> None:
        """The sandbox's processes end: no writer is left."""
        for fd in self.writes:
            os.close(fd)
        self.writes = []

    def close(self) -> None:
        """Let go of everything."""
        self.end()
        for fd in self.reads:
            os.close(fd)
        self.reads = []


class Rig:
    """The collector and what is around it."""

    def __init__(self, folder: Path, output: int) -> None:
        self.folder = folder
        self.fifos: dict[str, Fifos] = {}
        self._journals: list[Journal] = []
        self.platform: socket.socket | None = None
        self.routes: dict[str, str] = {}
        self.process: subprocess.Popen[bytes] | None = None
        self.supervisor_up = self.controller_up = 0
        run, state = folder / "run", folder / "state"
        self.logs = state / "logs"
        self.spool = run / "spool"
        for path in (run / "metrics", self.spool, state, self.logs, folder / "fifos"):
            path.mkdir(parents=True, exist_ok=True)
        for path in (self.logs, self.spool, run / "metrics"):
            os.chown(path, UID, UID)
        for path in (folder, *folder.parents):
            # pytest's folders are root's alone; the collector is not root.
            if path.stat().st_uid == os.getuid() and path != Path("/"):
                path.chmod(path.stat().st_mode | 0o011)
        self.host = make_host(str(state), str(run), output)
        self.host_file = run / "host.json"
        self.write_host()
        self.log = folder / "stderr"

    def write_host(self) -> None:
        self.host_file.write_bytes(msgspec.json.encode(self.host))

    # --- the two servers ------------------------------------------------------------------------------------

    def open(self) -> None:
        if self.platform is not None:
            self.platform.close()
        self.platform = sockets.receive(self.host.records_socket, mode=0o620, gid=UID)
        self.supervisor: Listener[Any] = Listener(
            self.host.supervisor_socket, m.ToSupervisor, self._on_supervisor, lambda _: None, admit=lambda _: True
        )
        self.open_controller()

    def open_controller(self) -> None:
        self.controller: Listener[Any] = Listener(
            self.host.controller_socket, m.ToController, self._on_controller, lambda _: None, admit=lambda _: True
        )

    def _on_supervisor(self, channel: Channel[Any], message: Any, fds: list[int]) -> None:
        if isinstance(message, m.Hello):
            assert (message.part, channel.peer.uid, fds) == ("collector", UID, [])
            assert self.platform is not None
            channel.send(m.RecordsSocket(), (self.platform.fileno(),))
            for fifos in self.fifos.values():
                channel.send(m.Streams(sandbox_id=fifos.id), fifos.reads)
        elif isinstance(message, m.Ready):
            self.supervisor_up += 1

    def _on_controller(self, channel: Channel[Any], message: Any, _fds: list[int]) -> None:
        if isinstance(message, m.Hello):
            routes = [route(sandbox_id, tenant) for sandbox_id, tenant in self.routes.items()]
            middle = len(routes) // 2
            channel.send(m.Table(routes=routes[:middle], last=False))
            channel.send(m.Table(routes=routes[middle:], last=True))
            self.controller_up += 1

    # --- what they say --------------------------------------------------------------------------------------

    def sandbox(self, number: int, tenant: str | None = None, output: int | None = None) -> Fifos:
        """Make a sandbox's FIFOs, tell the collector, and assign them."""
        fifos = Fifos(self.folder / "fifos", f"{number:012x}")
        self.fifos[fifos.id] = fifos
        for channel in self.supervisor.channels:
            channel.send(m.Streams(sandbox_id=fifos.id), fifos.reads)
        if tenant is not None:
            self.assign(fifos, tenant, output)
        return fifos

    def assign(self, fifos: Fifos, tenant: str, output: int | None = None) -> None:
        self.routes[fifos.id] = tenant
        for channel in self.controller.channels:
            channel.send(m.Assigned(route=route(fifos.id, tenant, output)))

    def journal(self) -> Journal:
        """Return a part's way to the collector."""
        made = Journal(self.host.records_socket)
        self._journals.append(made)
        return made

    def tell(self, message: msgspec.Struct) -> None:
        """Say something as the controller."""
        for channel in self.controller.channels:
            channel.send(message)

    def release(self, fifos: Fifos) -> None:
        """The sandbox's end as supervisor and controller tell it."""
        fifos.end()
        for channel in list(self.controller.channels):
            gone = m.Gone(seq=1, sandbox_id=fifos.id, tenant=self.routes[fifos.id], word="idle", message="")
            channel.send(gone)
        for channel in list(self.supervisor.channels):
            channel.send(m.Release(sandbox_id=fifos.id))
        fifos.close()
        del self.fifos[fifos.id], self.routes[fifos.id]

    # --- the process ----------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the collector and wait until both servers have heard of it."""
        ups = self.supervisor_up, self.controller_up
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [*_AS_ITS_USER, sys.executable, "-c", _MAIN, "--host", str(self.host_file)], stderr=log
            )
        await self.until(lambda: (self.supervisor_up, self.controller_up) == (ups[0] + 1, ups[1] + 1))

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(10)

    async def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        self.supervisor.close()
        self.controller.close()
        if self.platform is not None:
            self.platform.close()
        for journal in self._journals:
            journal.close()
        for fifos in self.fifos.values():
            fifos.close()

    # --- what is seen ---------------------------------------------------------------------------------------

    def records(self, tenant: str) -> list[dict[str, Any]]:
        """All records of a tenant, oldest first; fails on a line that is none."""
        return records_of(self.logs, tenant)

    def said(self, tenant: str) -> list[str]:
        return [record["msg"] for record in self.records(tenant) if record.get("sandbox")]

    def told(self, tenant: str) -> list[str]:
        return [record["msg"] for record in self.records(tenant) if not record.get("sandbox")]

    def figure(self, name: str, **labels: str) -> float:
        """The last one written; not a number, which equals none, before the first one is."""
        try:
            raw = json.loads((Path(self.host.metrics_dir) / "collector-0.json").read_bytes())
        except FileNotFoundError:
            return math.nan
        for sample in raw["samples"]:
            if sample["name"] == name and sample.get("labels", {}) == labels:
                value: float = sample["value"]
                return value
        raise AssertionError(f"no figure {name} {labels}")

    def cpu(self) -> float:
        """CPU seconds that the collector has used."""
        assert self.process is not None
        stat = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")

    async def until(self, condition: Callable[[], bool], seconds: float = 10) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if self.process is not None and self.process.poll() is not None:
                raise AssertionError(f"collector ended with {self.process.returncode}: {self.log.read_text()}")
            assert time.monotonic() < deadline, f"not within {seconds} s: {self.log.read_text()}"
            await asyncio.sleep(0.02)


def lines_told(told: Iterable[str]) -> int:
    """Return how many lines these sentences (`1,204 lines dropped in ..`) say were dropped."""
    return sum(int(text.split()[0].replace(",", "")) for text in told)


def route(sandbox_id: str, tenant: str, output: int | None = None) -> m.Route:
    return m.Route(sandbox_id=sandbox_id, tenant=tenant, host="198.18.0.1", port=8000, output=output)


def make_host(state_dir: str, run_dir: str, output: int) -> Host:
    return Host(
        instance=0,
        state_dir=state_dir,
        run_dir=run_dir,
        image_dir="",
        image="",
        listen_host="127.0.0.1",
        listen_port=1,
        workers=1,
        users=Users(proxy=1, api=1, collector=UID, egress=1, gid=UID),
        sandbox_network="198.18.0.0/19",
        sandbox_uids=1_000_000,
        runtime_command="runc",
        cgroups=1,
        pool_size=1,
        parallel_starts=1,
        queue=1,
        memory_reserve=0.1,
        drain_timeout=1,
        head_timeout=1,
        body_timeout=1,
        keep_alive=1,
        max_head=1,
        max_connections=1,
        max_programs=1 << 27,
        defaults=Limits(output=output),
    )


@contextlib.asynccontextmanager
async def rig(folder: Path, output: int = 1 << 20) -> AsyncIterator[Rig]:
    """A running collector with its surroundings, ended afterwards."""
    made = Rig(folder, output)
    made.open()
    try:
        await made.start()
        yield made
    finally:
        await made.close()


def write_all(fd: int, data: bytes, seconds: float = 5) -> None:
    """Write as a sandbox's process does, but within a time; run it in a thread."""
    os.set_blocking(fd, False)
    deadline = time.monotonic() + seconds
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise AssertionError(f"{len(data)} bytes were not read within {seconds} s") from None
            time.sleep(0.001)
