"""Parts that were taken over, each started as the supervisor starts it, behind all walls and behind one at a time."""

import contextlib
import errno
import json
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
import pytest

from sandpost.config import host as host_file
from sandpost.config import load
from sandpost.kernel import landlock, seccomp
from sandpost.model.errors import HostUnfit
from sandpost.model.messages import Part
from sandpost.supervisor import layout, spawn
from sandpost.supervisor.reach import Reach
from sandpost.walls.own.confine import confine
from support.command import what_everybody_sees
from support.platform import free_port

PROGRAM = str(Path(__file__).with_name("attempts.py"))
WALLS = ("reach", "landlock", "seccomp", "dumpable")
PARTS: tuple[Part, ...] = ("proxy", "api", "collector", "egress")


_FILES = {"reach", "landlock"}
STOPPED_BY: dict[str, set[str]] = {
    "read a file of the machine": _FILES,
    "read a file of somebody": _FILES,
    "look at what runs": _FILES,
    "write into the run folder": _FILES,
    "read the program": set(),
    "read the store": _FILES,
    "change the store": _FILES,
    "make files beside the store": _FILES,
    "read kept programs": _FILES,
    "keep a program": _FILES,
    "keep a module": _FILES,
    "read tenants' logs": _FILES,
    "write tenants' logs": _FILES,
    "leave figures": set(),
    "make a link": {"landlock", "seccomp"},
    "make a hard link": {"seccomp"},
    "make a FIFO": {"landlock", "seccomp"},
    "run a program": {"landlock", "seccomp"},
    "become a second process": {"seccomp"},
    "start a thread": set(),
    "move bytes in the kernel": {"seccomp"},
    "make memory that is written and run": {"seccomp"},
    "make memory code": {"seccomp"},
    "make a file in memory": {"seccomp"},
    "trace a sibling": {"landlock", "seccomp", "dumpable"},
    "read a sibling's memory": {"landlock", "seccomp", "dumpable"},
    "open a sibling's memory": {"reach", "landlock", "dumpable"},
    "read a sibling's environment": {"reach", "landlock", "dumpable"},
    "take a sibling's descriptor": {"landlock", "seccomp", "dumpable"},
    "signal a sibling": {"landlock 6", "seccomp"},
    "signal a sibling by a descriptor": {"seccomp"},
    "limit a sibling": {"seccomp"},
    "signal itself": set(),
    "set up io_uring": {"seccomp"},
    "keep a key in the kernel": {"seccomp"},
    "handle page faults": {"seccomp"},
    "watch files": {"seccomp"},
    "hang on to clone3": {"seccomp"},
    "speak to the controller": set(),
    "speak to a socket of somebody": {"reach", "landlock 9"},
    "speak to an abstract socket": {"landlock 6"},
    "connect to a sandbox": {"landlock 4"},
    "connect to the listener": {"landlock 4"},
    "connect to another port": {"landlock 4"},
    "bind a port": {"landlock 4"},
    "bind the port of figures": {"landlock 4"},
    "send datagrams": {"seccomp"},
    "make a netlink socket": {"seccomp"},
    "make a socket for hosts of machines": {"seccomp"},
    "own a user namespace": {"seccomp"},
}
"""Which walls stop an attempt, each by itself; a number is the ABI of Landlock from which on it does."""
_INTERNET = (
    "connect to a sandbox", "connect to the listener", "connect to another port", "bind a port", "bind the port of figures"
)  # fmt: skip
_WORK: dict[Part, tuple[str, ...]] = {
    "proxy": ("read the store", "read kept programs", "keep a program", "connect to a sandbox"),
    "api": (
        "read the store",
        "change the store",
        "make files beside the store",
        "keep a module",
        "connect to the listener",
        "bind the port of figures",
        "read tenants' logs",
        "watch files",
    ),
    "collector": ("read tenants' logs", "write tenants' logs", "move bytes in the kernel"),
    "egress": ("connect to a sandbox", "connect to the listener", "connect to another port", "send datagrams"),
}
OWN: dict[Part, dict[str, set[str]]] = {part: {name: set() for name in names} for part, names in _WORK.items()}
OWN["collector"] |= {name: {"landlock 4", "seccomp"} for name in _INTERNET}
"""Where a part differs: nothing stops what is its work, and the collector has no sockets but unix ones."""


ON_KAFKA: dict[Part, dict[str, set[str]]] = {
    "api": {"read tenants' logs": _FILES, "watch files": {"seccomp"}, "send datagrams": set()},
    "collector": {
        "read tenants' logs": _FILES,
        "write tenants' logs": _FILES,
        "send datagrams": set(),
        "connect to a sandbox": {"landlock 4"},
        "connect to the listener": {"landlock 4"},
        "connect to another port": {"landlock 4"},
    },
}
"""What is different where the log bus is a Kafka: names are looked up, the brokers' ports are connected to, and the
files of the local bus are nobody's."""


BY_OTLP: dict[str, set[str]] = {
    "send datagrams": set(),
    "connect to a sandbox": {"landlock 4"},
    "connect to the listener": {"landlock 4"},
    "connect to another port": {"landlock 4"},
}
"""The same of the collector where records go out by OTLP too."""


def stopping(part: Part, *, on_kafka: bool = False, by_otlp: bool = False) -> dict[str, set[str]]:
    """Return the walls that stop each attempt of a part on this kernel."""
    has = landlock.version()
    found: dict[str, set[str]] = {}
    different = {**(ON_KAFKA[part] if on_kafka else {}), **(BY_OTLP if by_otlp else {})}
    for name, walls in {**STOPPED_BY, **OWN[part], **different}.items():
        pairs = (wall.partition(" ") for wall in walls)
        found[name] = {wall for wall, _, since in pairs if wall != "landlock" or has >= int(since or 1)}
    return found


class Bed:
    """An installation's folders, all of them open to everybody, so that it is not the modes that refuse."""

    def __init__(self, top: Path, **more: str) -> None:
        self.top = top
        settings = load({"SANDPOST_WORKERS": "2", "SANDPOST_METRICS_LISTEN": f"127.0.0.1:{free_port()}", **more})
        made = host_file.make(settings, instance=12, image="none", runtime_command="/usr/sbin/runc", cgroups=1, cores=2)
        self.host = msgspec.structs.replace(made, run_dir=str(top / "run"), state_dir=str(top / "state"))
        for folder in (self.host.run_dir, self.host.state_dir, str(top / "outside")):
            os.mkdir(folder)
        layout.make_folders(self.host)
        self.host_file = host_file.write(self.host)
        for folder in (self.host.code_dir, self.host.logs_dir, self.host.metrics_dir, str(top / "outside")):
            Path(folder, "file").write_text("x")
        Path(self.host.store_path).write_text("x")
        self.open: list[socket.socket] = [
            self._listen(socket.AF_UNIX, self.host.controller_socket),
            self._listen(socket.AF_UNIX, str(top / "outside/socket")),
            self._listen(socket.AF_INET, ("127.0.0.1", 0)),
        ]
        self.listen_at(self.open[-1].getsockname()[1])
        for path in (top, *top.rglob("*")):
            path.chmod(0o777 if path.is_dir() else 0o666)

    def close(self) -> None:
        for sock in self.open:
            sock.close()
        shutil.rmtree(self.top)

    def listen_at(self, port: int) -> None:
        """Let attempts be made at `port`, where somebody listens, and at an abstract socket named after it."""
        self.port = port
        self.open.append(self._listen(socket.AF_UNIX, f"\0sandpost-test-{port}"))

    def _listen(self, family: int, address: str | tuple[str, int]) -> socket.socket:
        made = socket.socket(family, socket.SOCK_STREAM)
        made.bind(address)
        made.listen(64)
        return made

    def start(self, part: Part, walls: Iterable[str], place: str) -> tuple[int, int]:
        """Start a part behind these walls; return its pid and a descriptor that reads what it says."""
        uid, gid = spawn.user_of(part, self.host)
        real = spawn.reach_of(part, self.host)
        assert real is not None
        walled = real if "reach" in walls else Reach(what_everybody_sees().read, (str(self.top),))
        seen = Reach((*walled.read, str(Path(PROGRAM).parents[2])), walled.write)
        reader, writer = os.pipe2(os.O_CLOEXEC)
        try:
            command = [sys.executable, "-I", PROGRAM, part, self.host_file, place, ",".join(walls)]
            newborn = spawn.Newborn(spawn.Birth(command=command, uid=uid, gid=gid, output=writer, reach=seen))
            newborn.go()
            return newborn.pid, reader
        finally:
            os.close(writer)

    def tried(self, part: Part, walls: Iterable[str]) -> dict[str, int]:
        """Start a part and a sibling behind these walls; return the errno of each of its attempts, 0 for a success."""
        sibling, said = self.start(part, walls, "")
        try:
            with open(said, "rb") as pipe:
                # Before it, what the part logs.
                assert any(line == b"up\n" for line in pipe), "the sibling has ended"
                place = {"outside": str(self.top / "outside"), "port": self.port, "sibling": sibling}
                pid, reader = self.start(part, walls, json.dumps(place))
                with open(reader, "rb") as answer:
                    text = answer.read()
                assert os.waitpid(pid, 0)[1] == 0, text
        finally:
            os.kill(sibling, signal.SIGKILL)
            os.waitpid(sibling, 0)
        *_, table, ran = text.splitlines()
        return {**json.loads(table), "run a program": int(ran)}


@pytest.fixture
def bed() -> Iterator[Bed]:
    made = Bed(Path(tempfile.mkdtemp(prefix="sandpost-own-")))
    with contextlib.closing(made):
        yield made


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_was_taken_over_can_do_its_work_and_nothing_else(bed: Bed, part: Part) -> None:
    tried = bed.tried(part, WALLS)
    stopped = {name: bool(number) for name, number in tried.items()}
    assert stopped == {name: bool(walls) for name, walls in stopping(part).items()}


@pytest.mark.parametrize("part", ["collector", "api"])
@pytest.mark.parametrize("known", [True, False])
def test_with_a_kafka_the_brokers_ports_are_reached_and_no_others(part: Part, known: bool) -> None:
    with socket.socket() as broker:
        broker.bind(("127.0.0.1", 0))
        broker.listen(64)
        port = broker.getsockname()[1]
        kafka = {"LOGS_BUS": "kafka", "LOGS_KAFKA_BROKERS": f"localhost:{port if known else free_port()}"}
        made = Bed(
            Path(tempfile.mkdtemp(prefix="sandpost-own-")), **{f"SANDPOST_{name}": to for name, to in kafka.items()}
        )
        with contextlib.closing(made):
            made.listen_at(port)
            tried = made.tried(part, WALLS)
    stopped = {name for name, number in tried.items() if number}
    assert stopped == {name for name, walls in stopping(part, on_kafka=True).items() if walls} - (
        {"connect to another port"} if known else set()
    )


@pytest.mark.parametrize("known", [True, False])
def test_with_otlp_the_receivers_port_is_reached_and_no_other(known: bool) -> None:
    with socket.socket() as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.listen(64)
        port = receiver.getsockname()[1]
        endpoint = f"http://localhost:{port if known else free_port()}/v1/logs"
        made = Bed(Path(tempfile.mkdtemp(prefix="sandpost-own-")), SANDPOST_LOGS_OTLP_ENDPOINT=endpoint)
        with contextlib.closing(made):
            made.listen_at(port)
            tried = made.tried("collector", WALLS)
    stopped = {name for name, number in tried.items() if number}
    assert stopped == {name for name, walls in stopping("collector", by_otlp=True).items() if walls} - (
        {"connect to another port"} if known else set()
    )


@pytest.mark.parametrize("part", PARTS)
def test_without_walls_a_part_could_do_all_of_it(bed: Bed, part: Part) -> None:
    assert {name: number for name, number in bed.tried(part, ()).items() if number} == {}


@pytest.mark.parametrize("wall", WALLS)
@pytest.mark.parametrize("part", PARTS)
def test_each_wall_stands_by_itself(bed: Bed, part: Part, wall: str) -> None:
    if wall == "landlock" and not landlock.version():
        pytest.fail("this kernel has no Landlock: the tests want one that has (Debian 12 has)")
    tried = bed.tried(part, [wall])
    assert {name for name, number in tried.items() if number} == {
        name for name, walls in stopping(part).items() if wall in walls
    }


def test_a_part_has_no_capability_in_any_set_and_leaves_no_core(bed: Bed) -> None:
    for part in PARTS:
        pid, reader = bed.start(part, WALLS, "")
        try:
            with open(reader, "rb") as said:
                assert any(line == b"up\n" for line in said)
                status = Path(f"/proc/{pid}/status").read_text()
                limits = Path(f"/proc/{pid}/limits").read_text()
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert f"{name}:\t0000000000000000\n" in status
        assert "NoNewPrivs:\t1\n" in status
        assert "Seccomp:\t2\n" in status
        assert os.stat(f"/proc/{os.getpid()}").st_uid == 0
        assert re.search(r"^Max core file size +0 +0 ", limits, re.MULTILINE)
        assert re.search(r"^Max processes +\d+ +\d+ ", limits, re.MULTILINE)


def test_a_kernel_that_takes_no_filter_stops_the_start_with_a_sentence(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: bytes) -> None:
        raise OSError(errno.EINVAL, "seccomp: Invalid argument")

    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        monkeypatch.setattr(seccomp, "install", refused)
        try:
            confine("collector", bed.host)
        except HostUnfit as error:
            os.write(writer, error.message.encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as said:
        message = said.read()
    assert os.waitpid(pid, 0)[1] == 0
    assert "collector cannot confine itself" in message
    assert "CONFIG_SECCOMP_FILTER" in message
