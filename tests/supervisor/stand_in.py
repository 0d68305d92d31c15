"""Small parts for the supervisor's tests, and a supervisor that runs them: `python stand_in.py ROLE --host FILE ..`.

They speak the real messages over the real sockets. A proxy answers each connection with `INDEX PID\n`; egress holds its
sockets and leaves what comes where it is. The
controller makes the FIFOs of a sandbox for each name it finds in `<run_dir>/records`, and leaves what it was told in
`<run_dir>/heard`. `<run_dir>/slow` makes starting parts wait, `broken` makes them end; with `mounted` the supervisor
cannot give its place back.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
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
            self.ended.set()
        elif isinstance(message, m.Streams):
            self.fifos += fds
        if self.part in {"controller", "collector"}:
            with open(f"/proc/self/fd/{HEARD}", "a") as file:
                file.write(f"{self.part} {message!r}\n")


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
    from sandpost.config.program import program_folders
    from sandpost.logs.setup import configure
    from sandpost.supervisor.reach import closed_above
    from sandpost.supervisor.supervisor import Plan, Supervisor, living

    def on_ended() -> None:
        if os.path.exists(host.path("mounted")):
            raise HostUnfit("it is still mounted")

    configure("supervisor")
    plan = Plan(
        host=host,
        host_file=host_file,
        release=os.environ.get("RELEASE", "1"),
        closed=closed_above([*program_folders(), os.path.dirname(HERE), host.run_dir]),
        command=command,
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
            purged.write("purge\n")
    else:
        if role in {"controller", "collector"}:
            HEARD = os.open(the_host.path("heard"), os.O_WRONLY | os.O_APPEND)
        asyncio.run(part(role, int(sys.argv[4]), the_host))  # type: ignore[arg-type]
