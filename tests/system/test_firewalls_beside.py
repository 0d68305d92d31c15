"""The firewalls that users have, really run beside a whole installation, in a lab: what they cut is told, the command
that is told mends it, and nothing of theirs is changed. Their rulesets' shapes: tests/network/test_foreign_firewalls.py.
"""

import contextlib
import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.firewalls import Machine, docker, firewalld, machine
from support.lab import HOST, HOST_LAN, PUBLIC, Lab, lab
from support.platform import Platform, platform

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

CONNECT = """return (ctx, cb) => {
  const sock = require('net').connect({ host: ctx.data.host, port: +ctx.data.port, timeout: 2000 });
  sock.on('connect', () => { sock.destroy(); cb(null, 'yes'); });
  sock.on('error', (error) => cb(null, error.code));
  sock.on('timeout', () => { sock.destroy(); cb(null, 'silence'); });
};"""
SITE = "8080"


def reach(running: Platform, host: str, port: int = 80) -> str:
    """What a program meets when it connects; its call is answered in any case."""
    answer = running.call("acme", CONNECT, f"host={host}&port={port}")
    assert answer.status == 200, answer.body
    return str(answer.json)


def told(running: Platform, path: str = "") -> list[str]:
    """What `doctor` says of other firewalls, if they cut sandboxes off."""
    environment = {"PATH": f"{path}:{os.environ['PATH']}"} if path else None
    done = running.command("doctor", "--json", environment=environment)
    findings = [one for one in json.loads(done.stdout) if one["name"].startswith("other firewalls")]
    return [one["message"] for one in findings if one["level"] == "warn"]


def commands(sentences: Sequence[str]) -> list[str]:
    """The commands that sentences name, each once."""
    found = (re.findall(r"`([^`]+)`", sentence.partition("pass with")[2]) for sentence in sentences)
    return list(dict.fromkeys(command for one in found for command in one))


def theirs(made: Lab, their: Machine) -> str:
    """Everything in the kernel's firewall that is not ours, with the number of every rule, without counts."""
    tables = [line.split()[1:] for line in made.host.command("nft", "list", "tables").splitlines()]
    listed = [their.run("nft", "-sa", "list", "table", *table) for table in tables if "sandpost_" not in table[1]]
    # Of what iptables loads nft names modules and no more.
    saved = [their.run("iptables-save")]
    if made.host.command("cat", "/proc/thread-self/net/ip_tables_names"):
        saved.append(their.run("iptables-legacy-save"))
    return "\n".join(listed + [re.sub(r"\[\d+:\d+\]|^#.*$", "", text, flags=re.MULTILINE) for text in saved])


@dataclass(frozen=True)
class Firewall:
    """One of them: how it starts, what `doctor` must say to type, and how it is made to read its own files again."""

    start: Callable[[Machine], contextlib.AbstractContextManager[None]]
    typed: Sequence[str]
    again: str = "true"
    """What they say to it when they have changed its files."""


@contextlib.contextmanager
def ufw(their: Machine) -> Iterator[None]:
    their.type("ufw allow ssh && ufw --force enable")
    yield


def iptables(program: str) -> Callable[[Machine], contextlib.AbstractContextManager[None]]:
    """Rules as a host's own script writes them."""

    @contextlib.contextmanager
    def start(their: Machine) -> Iterator[None]:
        for chain in ("INPUT", "FORWARD"):
            their.type(f"{program} -A {chain} -i lo -j ACCEPT")
            their.type(f"{program} -A {chain} -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT")
            their.type(f"{program} -A {chain} -j REJECT --reject-with icmp-host-prohibited")
        yield

    return start


FIREWALLS = {
    "ufw": Firewall(
        ufw,
        ["ufw allow in on sp+", "ufw route allow in on sp+", "ufw route allow out on sp+"],
        "ufw reload",
    ),
    "firewalld": Firewall(
        firewalld,
        ["firewall-cmd --permanent --zone=trusted --add-interface=sp+", "firewall-cmd --reload"],
        "firewall-cmd --complete-reload",
    ),
    "docker": Firewall(
        docker,
        ["iptables -I DOCKER-USER -i sp+ -j ACCEPT", "iptables -I DOCKER-USER -o sp+ -j ACCEPT"],
    ),
    "iptables": Firewall(
        iptables("iptables"),
        ["iptables -I INPUT -i sp+ -j ACCEPT", "iptables -I FORWARD -i sp+ -j ACCEPT", "iptables -I FORWARD -o sp+ -j ACCEPT"],
    ),
    "iptables-legacy": Firewall(
        iptables("iptables-legacy"),
        [
            "iptables-legacy -I INPUT -i sp+ -j ACCEPT", "iptables-legacy -I FORWARD -i sp+ -j ACCEPT",
            "iptables-legacy -I FORWARD -o sp+ -j ACCEPT",
        ],
    ),
}  # fmt: skip


@pytest.fixture
def made() -> Iterator[Lab]:
    with lab() as laboratory:
        yield laboratory


@pytest.fixture
def their(made: Lab) -> Iterator[Machine]:
    with machine(made.host) as found:
        yield found


@pytest.mark.parametrize("name", FIREWALLS)
def test_what_it_cuts_is_told_and_mended_by_its_own_commands(
    made: Lab, their: Machine, name: str, tmp_path: Path
) -> None:
    firewall = FIREWALLS[name]
    # Its programs are in its own Debian, but for the one that our doctor reads legacy rules with.
    their.shim("iptables-legacy-save", tmp_path)
    with firewall.start(their):
        quiet = theirs(made, their)
        assert quiet
        with platform(made.host, pool_size="2") as running:
            resolver = str(running.host.platform_address)
            assert reach(running, PUBLIC) != "yes"
            # Docker drops nothing that comes to the host itself.
            assert (reach(running, resolver, 53) == "yes") == (name == "docker")
            if name == "iptables-legacy":
                (unread,) = told(running)
                assert "cannot be read: `apt-get install iptables`" in unread
            assert commands(told(running, str(tmp_path))) == firewall.typed
            assert theirs(made, their) == quiet
            for command in firewall.typed:
                their.type(command)
            mended = theirs(made, their)
            assert told(running, str(tmp_path)) == []
            assert reach(running, PUBLIC) == "yes"
            assert reach(running, resolver, 53) == "yes"
            # What passes them is still judged by ours.
            assert reach(running, "10.0.0.5") == "ECONNREFUSED"
            assert reach(running, HOST_LAN) == "ECONNREFUSED"
        assert theirs(made, their) == mended
        their.type(firewall.again)
        mended = theirs(made, their)
        with platform(made.host, pool_size="2") as running:
            assert reach(running, PUBLIC) == "yes"
            assert reach(running, resolver, 53) == "yes"
            assert theirs(made, their) == mended
        assert theirs(made, their) == mended


@pytest.mark.parametrize("name", FIREWALLS)
def test_one_that_begins_while_we_run_costs_no_call_and_does_not_meet_our_table(
    made: Lab, their: Machine, name: str, tmp_path: Path
) -> None:
    firewall = FIREWALLS[name]
    their.shim("iptables-legacy-save", tmp_path)
    with platform(made.host, pool_size="2") as running:
        assert reach(running, PUBLIC) == "yes"
        with firewall.start(their):
            assert reach(running, PUBLIC) != "yes"
            # A new tenant, hence a new sandbox and connection.
            assert running.call("newcomer", "return (cb) => cb(null, 1)").json == 1
            for command in commands(told(running, str(tmp_path))):
                their.type(command)
            assert reach(running, PUBLIC) == "yes"
        assert reach(running, PUBLIC) == "yes"
        assert "was altered" not in running.output()


def ask(made: Lab, address: str) -> bytes:
    """What the host's neighbour gets from a port that a container publishes."""

    def work() -> bytes:
        with socket.create_connection((address, int(SITE)), 3) as sock:
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return b"".join(iter(lambda: sock.recv(4096), b""))

    return made.lan.run(work)


def test_dockers_containers_work_beside_us_before_and_after(made: Lab, their: Machine) -> None:
    def containers_work() -> bool:
        # A packet that came while the host learned to forward is lost; the container asks again.
        out = their.run("docker", "exec", "web", "/bin/sh", "-c", f"echo who | nc -w 1 {PUBLIC} 80", check=False)
        if HOST not in out:
            return False
        assert b"hello from a container" in ask(made, HOST_LAN)
        return True

    with docker(their):
        their.container("web", SITE)
        inside = their.run("docker", "inspect", "-f", "{{.NetworkSettings.IPAddress}}", "web").strip()
        assert containers_work()
        with platform(made.host, pool_size="2") as running:
            assert containers_work()
            for command in commands(told(running)):
                their.type(command)
            assert reach(running, PUBLIC) == "yes"
            assert containers_work()
            # Neither by its own address nor by the port that is published at the host's.
            for address, port in ((inside, 80), (HOST, int(SITE)), (HOST_LAN, int(SITE))):
                assert reach(running, address, port) == "ECONNREFUSED", (address, port)
            sandbox = running.host.slot_addresses(running.records()[0]["slot"])[1]
            for port in (running.host.listen_port, 8000):
                out = their.run(
                    "docker", "exec", "web", "/bin/sh", "-c", f"nc -w 1 {sandbox} {port} && echo reached", check=False
                )
                assert "reached" not in out
        assert containers_work()
        assert made.host.setting("ipv4/ip_forward") == "1"


def test_docker_that_begins_while_we_run_has_its_containers_at_work_within_seconds(made: Lab, their: Machine) -> None:
    with platform(made.host, pool_size="2"), docker(their):
        their.container("web", SITE)
        deadline = time.monotonic() + 15
        while HOST not in their.run(
            "docker", "exec", "web", "/bin/sh", "-c", f"echo who | nc -w 1 {PUBLIC} 80", check=False
        ):
            assert time.monotonic() < deadline
        assert b"hello from a container" in ask(made, HOST_LAN)
    assert made.host.setting("ipv4/ip_forward") == "1"
