"""The controller among the other parts: who may speak to it, the supervisor that holds outputs, the end of all."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec

from sandpost.ipc import Channel, Listener
from sandpost.model.messages import Exited, Held, Hello, Hold, Ready, Release, ToSupervisor
from support.controller_bed import Installation, client, drive, run_in


def test_only_the_parts_users_are_let_in_and_each_only_as_itself() -> None:
    program = (
        "import os, socket, sys, msgspec\n"
        "from sandpost.model.messages import Hello, AskStatus\n"
        "os.setresgid(7, 7, 7); os.setresuid(*[int(sys.argv[2])] * 3)\n"
        "with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:\n"
        "    sock.settimeout(5); sock.connect(sys.argv[1])\n"
        "    try:\n"
        "        sock.send(msgspec.msgpack.encode(Hello(part=sys.argv[3], pid=os.getpid())))\n"
        "        sock.send(msgspec.msgpack.encode(AskStatus(seq=1)))\n"
        "        print(len(sock.recv(1 << 18)))\n"
        "    except OSError as error: print(0)\n"
    )
    with Installation(pool_size=0) as inst:
        users = inst.host.users

        def heard(uid: int, part: str) -> bool:
            command = [sys.executable, "-c", program, inst.host.controller_socket, str(uid), part]
            return int(subprocess.run(command, capture_output=True, check=True, timeout=20).stdout) > 0

        assert heard(users.api, "api")
        assert heard(users.proxy, "proxy")
        assert heard(users.collector, "collector")
        assert heard(users.egress, "egress")
        assert not heard(users.proxy, "egress")
        assert not heard(users.egress, "proxy")
        assert not heard(users.proxy, "api")
        assert not heard(users.api, "proxy")
        assert not heard(65534, "proxy")


def test_purge_needs_no_records() -> None:
    with Installation() as inst:
        inst.until(lambda: inst.phases() == ["pooled", "pooled"], "the pool")
        inst.kill()
        for path in Path(inst.host.path("records")).iterdir():
            path.unlink()
        # Leaving the block purges, and looks whether anything carries the installation's names.


class Supervisor:
    """The supervisor's side of its socket: holds what it is given, tells what it is told to."""

    def __init__(self, inst: Installation) -> None:
        self.held: dict[str, list[int]] = {}
        self.released: list[str] = []
        self.ready = 0
        self._listener: Listener[ToSupervisor] = Listener(
            inst.host.supervisor_socket, ToSupervisor, self._take, lambda _: None, admit=lambda _: True
        )

    def close(self) -> None:
        self._listener.close()
        for fds in self.held.values():
            for fd in fds:
                os.close(fd)

    def tell(self, message: msgspec.Struct) -> None:
        for channel in self._listener.channels:
            channel.send(message)

    def _take(self, channel: Channel[ToSupervisor], message: ToSupervisor, fds: list[int]) -> None:
        match message:
            case Hold():
                assert len(fds) == 3
                self.held[message.sandbox_id] = fds
                channel.send(Held(sandbox_id=message.sandbox_id))
            case Release():
                self.released.append(message.sandbox_id)
            case Ready():
                self.ready += 1
            case _:
                assert isinstance(message, Hello)
                assert message.part == "controller"


def test_the_supervisor_holds_every_output_and_its_word_about_an_end_counts() -> None:
    async def work() -> None:
        inst = Installation()
        supervisor = Supervisor(inst)
        with inst:
            async with client(inst.host) as proxy:
                route = await proxy.route("held")
                assert route.sandbox_id in supervisor.held, "started before its output was held"
                await run_in(route, "return (cb) => { console.error('to the pipe'); cb(null, 1) }")
                frames = supervisor.held[route.sandbox_id][2]
                assert b"to the pipe" in os.read(frames, 65536)
                pid = inst.records()[route.sandbox_id].pid
                # As tini passes a runtime's abort on.
                supervisor.tell(Exited(pid=pid, status=(128 + 6) << 8))
                gone = await proxy.end_of(route)
                assert (gone.word, gone.message) == ("crash", "crash: killed by signal 6 (SIGABRT)")
                await inst.becomes(lambda: route.sandbox_id in supervisor.released, "the release of its output")
                assert supervisor.ready == 1
        supervisor.close()

    drive(work())


def test_a_sandbox_starts_without_a_supervisor_and_is_handed_over_when_it_comes() -> None:
    async def work() -> None:
        with Installation(pool_size=1) as inst:
            async with client(inst.host) as proxy:
                route = await proxy.route("early")
                supervisor = Supervisor(inst)
                await inst.becomes(lambda: route.sandbox_id in supervisor.held, "it to be handed over")
                await run_in(route, "return (cb) => { console.log('kept'); cb(null, 1) }")
                assert b"kept" in os.read(supervisor.held[route.sandbox_id][2], 65536)
            supervisor.close()

    drive(work())
