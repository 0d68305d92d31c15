"""The address that sandboxes reach, and the sockets there that egress inherits."""

import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from sandpost.model.errors import HostUnfit
from sandpost.model.host import GATE_PORT
from sandpost.supervisor import platform
from supervisor.stand import Stand
from support.waiting import until


def has_address(stand: Stand) -> bool:
    shown = subprocess.run(["ip", "-4", "-o", "address", "show", "lo"], capture_output=True, text=True, check=True)
    return f" {stand.host.platform_address}/32 " in shown.stdout


def inodes(pid: int) -> list[str]:
    try:
        return [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (3, 4, 5)]
    except FileNotFoundError:
        # It is known before it has become the part.
        return []


def test_the_address_is_there_while_it_runs_and_gone_afterwards(stand: Stand) -> None:
    assert not has_address(stand)
    stand.start()
    assert has_address(stand)
    for port in (53, GATE_PORT):
        socket.create_connection((str(stand.host.platform_address), port), timeout=5).close()
    stand.stop()
    assert not has_address(stand)


def test_what_is_queued_outlives_egress(stand: Stand) -> None:
    stand.start()
    where = str(stand.host.platform_address), 53
    first = stand.children()["egress", 0]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker, socket.create_connection(where, 5) as caller:
        asker.sendto(b"asked before", where)
        caller.sendall(b"said before")
        kept = inodes(first)
        os.kill(first, signal.SIGKILL)
        until(lambda: stand.children().get(("egress", 0), first) != first, "egress returns")
        second = stand.children()["egress", 0]
        until(lambda: inodes(second) == kept, "it has its sockets")
        # Its own word for it: the stand-in reads nothing, so both still wait in the kernel.
        waiting = Path("/proc/net/udp").read_text()
        address = "".join(f"{int(part):02X}" for part in reversed(where[0].split(".")))
        line = next(one for one in waiting.splitlines() if f" {address}:0035 " in one)
        assert int(line.split()[4].split(":")[1], 16) > 0


def test_the_next_supervisor_has_the_same_sockets(stand: Stand) -> None:
    stand.start()
    first = stand.children()["egress", 0]
    kept = inodes(first)
    stand.kill()
    stand.start()
    assert stand.children()["egress", 0] == first
    os.kill(first, signal.SIGKILL)
    until(lambda: stand.children().get(("egress", 0), first) != first, "egress returns")
    # One that is not a part yet has the supervisor's.
    until(lambda: inodes(stand.children()["egress", 0]) == kept, "it has its sockets")
    stand.stop()
    assert not has_address(stand)


def test_an_address_left_by_a_killed_supervisor_is_taken_again(stand: Stand) -> None:
    for sock in platform.open_sockets(stand.host):
        sock.close()
    assert has_address(stand)
    stand.start()
    stand.stop()
    assert not has_address(stand)


def test_a_resolver_of_the_host_on_all_addresses_is_told(stand: Stand) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        for sock in platform.open_sockets(stand.host):
            sock.close()
        other.bind((str(stand.host.platform_address), 53))
        try:
            with pytest.raises(HostUnfit, match=r":53 \(udp\).*bind it to its own ones"):
                platform.open_sockets(stand.host)
        finally:
            platform.remove_address(stand.host)
