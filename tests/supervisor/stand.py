"""A really running supervisor with small parts, in folders and on a port of its own."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import msgspec

from sandpost.config import host as host_file
from sandpost.config import load
from sandpost.ipc import Channel, Connector
from sandpost.model import messages as m
from sandpost.supervisor import layout
from sandpost.supervisor.family import Known
from support.platform import free_port

STAND_IN = str(Path(__file__).with_name("stand_in.py"))


class Stand:
    """One installation of stand-ins. `start` may be called again after the supervisor was killed."""

    def __init__(self, top: Path) -> None:
        self.port = free_port()
        settings = load({"SANDPOST_LISTEN": f"127.0.0.1:{self.port}", "SANDPOST_WORKERS": "2"})
        made = host_file.make(settings, instance=13, image="none", runtime_command="/usr/sbin/runc", cgroups=1, cores=2)
        self.host = msgspec.structs.replace(
            made,
            run_dir=str(top / "run"),
            state_dir=str(top / "state"),
            drain_timeout=2.0,
            # A platform address of this process's own: other test runs on the machine have instance 13 too.
            sandbox_network=f"198.19.{200 + os.getpid() // 64 % 16}.{os.getpid() % 64 * 4}/30",
        )
        for folder in (self.host.run_dir, self.host.state_dir):
            os.mkdir(folder)
            os.chmod(folder, 0o711)
        layout.make_folders(self.host)
        self.path = host_file.write(self.host)
        self.heard_file = Path(self.host.path("heard"))
        self.heard_file.touch()
        self.heard_file.chmod(0o666)
        self.log = open(top / "log", "a+b")  # noqa: SIM115  (closed by the fixture)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, release: str = "1", pass_fds: Sequence[int] = (), words: Sequence[str] = ()) -> None:
        self.process = subprocess.Popen(
            [sys.executable, STAND_IN, "supervise", "--host", self.path, *words],
            stdout=subprocess.PIPE,
            stderr=self.log,
            env={**os.environ, "RELEASE": release},
            pass_fds=pass_fds,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line == b"ready\n", self.output()

    @property
    def pid(self) -> int:
        """Pid of the supervisor."""
        assert self.process is not None
        return self.process.pid

    def kill(self) -> None:
        """Kill the supervisor as nobody expects."""
        os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def stop(self) -> int:
        """Stop it and return its status."""
        os.kill(self.pid, signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Wait for the supervisor's end and return its status."""
        assert self.process is not None
        assert self.process.stdout is not None
        status = self.process.wait(30)
        self.process.stdout.close()
        self.process = None
        return status

    def children(self) -> dict[tuple[str, int], int]:
        """Pids by part and index, as the supervisor has recorded them."""
        raw = Path(self.host.path("children.json")).read_bytes()
        return {(known.part, known.index): known.pid for known in msgspec.json.decode(raw, type=list[Known])}

    def pids(self) -> list[int]:
        """Pids of all children, also of two in one role."""
        raw = Path(self.host.path("children.json")).read_bytes()
        return [known.pid for known in msgspec.json.decode(raw, type=list[Known])]

    def call(self) -> tuple[int, int]:
        """Connect and return who answered: index and pid of the worker."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as sock:
            text = b""
            while part := sock.recv(100):
                text += part
        index, pid, uid = (int(word) for word in text.split())
        assert uid == self.host.users.proxy
        return index, pid

    def heard(self) -> str:
        return self.heard_file.read_text()

    def output(self) -> str:
        self.log.seek(0)
        return self.log.read().decode()


class Calls:
    """Two threads that connect again and again, and note who answered and what failed."""

    def __init__(self, stand: Stand) -> None:
        self.answers: list[int] = []
        self.failures: list[Exception] = []
        self._stand = stand
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(2)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(20)

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                self.answers.append(self._stand.call()[1])
            except Exception as error:
                self.failures.append(error)


def alive(pid: int) -> bool:
    try:
        return b") Z" not in Path(f"/proc/{pid}/stat").read_bytes()
    except FileNotFoundError:
        return False


def ask(stand: Stand, message: m.Restart | m.Stop, within: float = 20) -> m.Restarted | m.Stopped | None:
    """Say something as the operator's command line; None if the connection ended without an answer."""

    async def talk() -> m.Restarted | m.Stopped | None:
        answer: asyncio.Future[m.Restarted | m.Stopped | None] = asyncio.get_running_loop().create_future()

        def greet(channel: Channel[m.FromSupervisor]) -> None:
            channel.send(m.Hello(part="cli", pid=os.getpid()))
            channel.send(message)

        connector: Connector[m.FromSupervisor] = Connector(
            stand.host.supervisor_socket,
            m.FromSupervisor,
            lambda _channel, got, _fds: answer.set_result(got) if isinstance(got, m.Restarted | m.Stopped) else None,
            greet=greet,
            on_lost=lambda: None if answer.done() else answer.set_result(None),
        )
        try:
            return await asyncio.wait_for(answer, within)
        finally:
            connector.close()

    return asyncio.run(talk())
