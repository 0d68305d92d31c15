"""A lab without a way out: the host under test in a network namespace of its own, a made-up internet in a second, a
neighbour of the host's in a third. No packet of a test leaves them: none has a route to the machine's own network.

```
 lan 10.9.0.2 ---lan0 10.9.0.1 [host] up0 203.0.113.2, .3 ---- 203.0.113.1 [internet: every address of INTERNET]
```

Everything listens everywhere (`lab_server`), so that a missing wall is seen.
"""

import contextlib
import ctypes
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self, TypeVar

Result = TypeVar("Result")

PUBLIC, OTHER_PUBLIC = "198.51.100.10", "192.0.2.10"
FORBIDDEN = (
    "10.0.0.5", "100.64.0.5", "100.100.100.200", "168.63.129.16", "169.254.169.254", "172.16.0.5", "192.0.0.192",
    "192.31.196.1", "192.52.193.1", "192.88.99.1", "192.168.1.5", "192.175.48.1", "240.0.0.5",
)  # fmt: skip
"""One address at least of every block that no sandbox may reach and that a machine can have."""
INTERNET = (PUBLIC, OTHER_PUBLIC, *FORBIDDEN)
GATEWAY = "203.0.113.1"
HOST, HOST_OTHER, HOST_LAN, HOST_LOOPBACK = "203.0.113.2", "203.0.113.3", "10.9.0.1", "198.51.100.200"
LAN = "10.9.0.2"
PORTS = (53, 80, 443, 5432, 8443, 9000)
"""TCP and UDP ports that everything listens on, at each of its addresses."""
ANYWHERE = 81
"""One that it listens on at whatever other address it may come to have."""
UPLINK = "up0"

_AT_ONCE = 64
_NEWNET = 0x40000000
_SERVER = Path(__file__).with_name("lab_server.py")
_libc = ctypes.CDLL(None, use_errno=True)


def enter(namespace: int) -> None:
    """Move the calling thread into a network namespace for good."""
    if _libc.setns(namespace, _NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


class Place:
    """A network namespace, and threads that live in it."""

    def __init__(self, namespace: int | None = None) -> None:
        self._own = namespace is None
        self.namespace = _new_namespace() if namespace is None else namespace
        self._threads = ThreadPoolExecutor(_AT_ONCE, "lab", initializer=enter, initargs=(self.namespace,))

    def run(self, work: Callable[..., Result], *arguments: Any) -> Result:
        """Call `work` there."""
        return self._threads.submit(work, *arguments).result()

    def command(self, *command: str, check: bool = True) -> str:
        """Run a program there; return what it printed."""
        done = self.run(lambda: subprocess.run(command, capture_output=True, text=True, timeout=30, check=False))
        assert not check or done.returncode == 0, (command, done.stderr)
        return done.stdout

    def start(self, command: Sequence[str], **options: Any) -> "subprocess.Popen[bytes]":
        """Start a program there."""
        return self.run(lambda: subprocess.Popen(command, **options))

    def ip(self, *lines: str) -> None:
        """Run lines of `ip`."""
        self.run(lambda: subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True))

    def setting(self, name: str, value: str | None = None) -> str:
        """Read a setting of /proc/sys/net, or write it first."""
        path = Path("/proc/sys/net") / name

        def work() -> str:
            if value is not None:
                path.write_text(value)
            return path.read_text().strip()

        return self.run(work)

    def close(self) -> None:
        """End the threads; without a process in it the namespace goes."""
        self._threads.shutdown()
        if self._own:
            os.close(self.namespace)


class Lab:
    """See the module. A context manager; nothing is left of it."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self.servers: dict[str, Server] = {}

    def __enter__(self) -> Self:
        try:
            self._make()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def place(self, namespace: int | None = None) -> Place:
        """Another place of the lab, such as the inside of a slot."""
        made = Place(namespace)
        self._stack.callback(made.close)
        return made

    def _make(self) -> None:
        self.host, self.internet, self.lan = self.place(), self.place(), self.place()
        self.host.run(_pair, UPLINK, "net0", self.internet.namespace)
        self.host.run(_pair, "lan0", "eth0", self.lan.namespace)
        self.internet.ip(
            "link set lo up", "link set net0 up", f"addr add {GATEWAY}/24 dev net0",
            *(f"addr add {address}/32 dev lo" for address in INTERNET),
            "route add 198.18.0.0/15 via 203.0.113.2",
        )  # fmt: skip
        self.lan.ip(
            "link set lo up", "link set eth0 up", f"addr add {LAN}/24 dev eth0", f"route add default via {HOST_LAN}"
        )
        self.host.ip(
            "link set lo up", f"link set {UPLINK} up", "link set lan0 up",
            f"addr add {HOST}/24 dev {UPLINK}", f"addr add {HOST_OTHER}/24 dev {UPLINK}",
            f"addr add {HOST_LAN}/24 dev lan0", f"addr add {HOST_LOOPBACK}/32 dev lo",
            f"route add default via {GATEWAY}",
        )  # fmt: skip
        self.host.setting("ipv4/ip_unprivileged_port_start", "0")
        for name, place in (("host", self.host), ("internet", self.internet), ("lan", self.lan)):
            self.servers[name] = self._stack.enter_context(Server(place))


class Server:
    """`lab_server` in a place: answers on all its addresses, on PORTS, TCP and UDP; remembers who asked."""

    def __init__(self, place: Place, ports: Sequence[int] = PORTS, *, address: str = "", uid: int = 0) -> None:
        self._place = place
        self._command = [sys.executable, str(_SERVER), address or "all", str(uid), *map(str, ports)]

    def __enter__(self) -> Self:
        self.process = self._place.start(self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"
        self.seen: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(10)
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.seen.append(json.loads(line))


def ask(address: str, port: int = 80, *, udp: bool = False, patience: float = 1.0, source: str = "") -> dict[str, Any]:
    """Ask a lab server who we are to it; `OSError` says how that was refused, `TimeoutError` that nobody answered."""
    kind = socket.SOCK_DGRAM if udp else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.settimeout(patience)
        if source:
            sock.setsockopt(socket.SOL_IP, 15, 1)  # IP_FREEBIND
            sock.bind((source, 0))
        sock.connect((address, port))
        sock.send(b"who\n")
        found: dict[str, Any] = json.loads(sock.recv(65536))
        return found


def reaches(place: Place, address: str, port: int = 80, **options: Any) -> str:
    """How `ask` goes from a place: `yes`, or `refused`, `prohibited`, `reset`, `silent`, `no route`.."""
    try:
        place.run(lambda: ask(address, port, **options))
    except TimeoutError:
        return "silent"
    except ConnectionRefusedError:
        return "refused"
    except OSError as error:
        return {113: "prohibited", 101: "no route", 13: "prohibited", 1: "not permitted"}.get(
            error.errno or 0, str(error)
        )
    return "yes"


def every_packet() -> socket.socket:
    """Return a socket that hears every IPv4 packet that comes to the place it is made in."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
    sock.setblocking(False)
    return sock


def destinations(heard: socket.socket) -> list[str]:
    """Return where the packets were sent that such a socket has heard."""
    found = []
    with contextlib.suppress(BlockingIOError):
        while packet := heard.recv(65536):
            found.append(socket.inet_ntoa(packet[16:20]))
    return found


def until(condition: Callable[[], bool], patience: float = 5.0) -> bool:
    """Wait until `condition` holds; say whether it came to."""
    end = time.monotonic() + patience
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


@contextlib.contextmanager
def lab() -> Iterator[Lab]:
    """A lab, made and removed."""
    with Lab() as made:
        yield made


def _new_namespace() -> int:
    made: list[int] = []

    def work() -> None:
        if _libc.unshare(_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        made.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return made[0]


def _pair(name: str, peer: str, namespace: int) -> None:
    subprocess.run(
        ["ip", "link", "add", name, "type", "veth", "peer", "name", peer, "netns", f"/proc/{os.getpid()}/fd/{namespace}"],
        check=True,
    )  # fmt: skip
