"""Small parts for the supervisor's tests, and a supervisor that runs them: `python stand_in.py ROLE --host FILE ..`.

They speak the real messages over the real sockets. A proxy answers each connection with `INDEX PID\n`; egress holds its
sockets and leaves what comes where it is. The
controller makes the FIFOs of a sandbox for each name it finds in `<run_dir>/records`, and leaves what it was told in
`<run_dir>/heard`. `<run_dir>/slow` makes starting parts wait, `broken` makes them end, `drains` keeps proxies that are to end; with `mounted` the supervisor
cannot give its place back, with `dies` it is killed where it would write down one part more.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from sandpost.ipc import Channel, Connector
from sandpost.model import messages as m
from sandpost.model.errors import HostUnfit, SandpostError
from sandpost.model.host import Host, load
from sandpost.model.messages import Part

HERE = os.path.abspath(__file__)


def command(part: Part, index: int, host_file: str) -> list[str]:
    return [sys.executable, HERE, part, "--host", host_file, str(index)]


class StandIn:
    def __init__(self, part: Part, index: int, host: Host) -> None:
        self.part, self.index, self.host = part, index, host
        self.ended = asyncio.Event()
        self.fifos: list[int] = []
        self.listeners: dict[int, socket.socket] = {}
        self.connector: Connector[m.FromSupervisor] = Connector(
            host.supervisor_socket, m.FromSupervisor, self.on_message, greet=self.greet
        )

    def greet(self, channel: Channel[m.FromSupervisor]) -> None:
        if self.part == "proxy" and not self.listeners:
            sock = socket.socket(fileno=3)
            sock.setblocking(False)
            self.listen(self.index, sock)
        if self.part == "egress" and not self.listeners:
            self.listeners = {offset: socket.socket(fileno=3 + offset) for offset in range(3)}
        channel.send(m.Hello(part=self.part, index=self.index, pid=os.getpid()))
        channel.send(m.Ready())
        if self.part == "controller":
            for name in os.listdir(self.host.path("records")):
                folder = self.host.path("fifos", name)
                os.makedirs(folder, exist_ok=True)
                fds = []
                for fifo in ("out", "err", "log"):
                    with contextlib.suppress(FileExistsError):
                        os.mkfifo(os.path.join(folder, fifo))
                    fds.append(os.open(os.path.join(folder, fifo), os.O_RDWR | os.O_NONBLOCK))
                channel.send(m.Hold(sandbox_id=name, held_at=time.time()), fds)
                for fd in fds:
                    os.close(fd)

    def listen(self, index: int, sock: socket.socket) -> None:
        self.listeners[index] = sock
        asyncio.get_running_loop().add_reader(sock.fileno(), self.accept, sock)

    def drain(self) -> None:
        """Accept no more, and have clients until `<run_dir>/drains` is gone."""
        for sock in self.listeners.values():
            asyncio.get_running_loop().remove_reader(sock.fileno())
            sock.close()
        self.listeners.clear()
        self.drained()

    def drained(self) -> None:
        if os.path.exists(self.host.path("drains")):
            asyncio.get_running_loop().call_later(0.05, self.drained)
        else:
            self.ended.set()

    def accept(self, sock: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            connection, _ = sock.accept()
            connection.sendall(f"{self.index} {os.getpid()} {os.getuid()}\n".encode())
            connection.close()

    def on_message(self, channel: Channel[m.FromSupervisor], message: Any, fds: list[int]) -> None:
        if isinstance(message, m.Listen):
            self.listen(message.index, socket.socket(fileno=fds[0]))
        elif isinstance(message, m.Unlisten):
            sock = self.listeners.pop(message.index)
            asyncio.get_running_loop().remove_reader(sock.fileno())
            sock.close()
        elif isinstance(message, m.GiveListeners):
            channel.send(m.Listeners(indices=list(self.listeners)), [sock.fileno() for sock in self.listeners.values()])
        elif isinstance(message, m.Retire):
            if self.part == "proxy" and os.path.exists(self.host.path("drains")):
                self.drain()
            else:
                self.ended.set()
        elif isinstance(message, m.Streams):
            self.fifos += fds
        if self.part in {"controller", "collector"}:
            os.write(HEARD, f"{self.part} {message!r}\n".encode())


HEARD = -1


def orphan(path: str) -> None:
    subprocess.run(["sh", "-c", f"sh {path} &"], check=True)


async def part(name: Part, index: int, host: Host) -> None:
    if os.path.exists(host.path("slow")):
        await asyncio.sleep(0.5)
    if os.path.exists(host.path("broken")):
        sys.exit(1)
    stand_in = StandIn(name, index, host)
    if name == "controller":
        # `<run_dir>/orphan` holds what a process does whose parent is gone.
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, orphan, host.path("orphan"))
    await stand_in.ended.wait()
    # As a real worker: what is in the queue is served before the end.
    for sock in stand_in.listeners.values():
        asyncio.get_running_loop().remove_reader(sock.fileno())
        sock.close()
    stand_in.connector.close()


async def supervise(host: Host, host_file: str) -> None:
    from sandpost.kernel import files
    from sandpost.logs.setup import configure
    from sandpost.supervisor import spawn
    from sandpost.supervisor.reach import Reach
    from sandpost.supervisor.supervisor import Plan, Supervisor, living

    def reach(part: Part, host: Host) -> Reach | None:
        real = spawn.reach_of(part, host)
        # This program, and what the tests leave and look for in the run folder.
        return real and Reach((*real.read, os.path.dirname(HERE)), (*real.write, host.run_dir))

    def on_ended() -> None:
        if os.path.exists(host.path("mounted")):
            raise HostUnfit("it is still mounted")

    noted = files.replace

    def note(path: str, data: bytes, mode: int, owner: tuple[int, int] | None = None) -> None:
        if os.path.exists(host.path("dies")) and data.count(b'"pid"') > Path(path).read_bytes().count(b'"pid"'):
            os.kill(os.getpid(), signal.SIGKILL)
        noted(path, data, mode, owner)

    files.replace = note
    configure("supervisor")
    plan = Plan(
        host=host,
        host_file=host_file,
        release=os.environ.get("RELEASE", "1"),
        command=command,
        reach=reach,
        tidy=["/bin/sh", "-c", f"echo tidies >> {host.path('heard')}; exec sleep 600"] if "tidies" in sys.argv else (),
        on_ready=lambda: print("ready", flush=True),
        on_ended=on_ended,
    )
    supervisor = Supervisor(plan)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, supervisor.stop)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, supervisor.reload)
    if "reload" in sys.argv:
        supervisor.reload()
    try:
        await supervisor.run(living(host))
    except SandpostError as error:
        sys.exit(error.message)


if __name__ == "__main__":
    role, host_file = sys.argv[1], sys.argv[3]
    the_host = load(host_file)
    if role == "supervise":
        asyncio.run(supervise(the_host, host_file))
    elif "--purge" in sys.argv:
        with open(the_host.path("heard"), "a") as purged:
            purged.write("purge at once\n" if "--at-once" in sys.argv else "purge\n")
    else:
        if role in {"controller", "collector"}:
            HEARD = os.open(the_host.path("heard"), os.O_WRONLY | os.O_APPEND)
        asyncio.run(part(role, int(sys.argv[4]), the_host))  # type: ignore[arg-type]
