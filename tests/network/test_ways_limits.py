"""Connections, their rate and bandwidth, counted for a tenant over all its sandboxes, with packets in a lab."""

import contextlib
import itertools
import socket
import time
from collections.abc import Iterator

import pytest

from sandpost.model.egress import parse_egress
from sandpost.model.host import GATE_PORT
from sandpost.model.limits import Limits
from sandpost.network.firewall import Way, nft, readback
from support.lab import OTHER_PUBLIC, PUBLIC, Place, Server, reaches
from support.walls import Walls

MB = 1_000_000
names = (f"limited-{n}" for n in itertools.count())


def connect(place: Place, many: int, address: str = PUBLIC, port: int = 80) -> list[socket.socket]:
    """Open so many connections as go; what is refused is left out."""

    def work() -> list[socket.socket]:
        made = []
        for _ in range(many):
            sock = socket.socket()
            sock.settimeout(0.3)
            try:
                sock.connect((address, port))
            except OSError:
                sock.close()
            else:
                made.append(sock)
        return made

    return place.run(work)


@contextlib.contextmanager
def closing(socks: list[socket.socket]) -> Iterator[int]:
    try:
        yield len(socks)
    finally:
        for sock in socks:
            sock.close()


def hits(walls: Walls, slot: int) -> dict[str, int]:
    """What the sandbox of a slot met since the last call."""
    found = walls.lab.host.run(walls.writer.hits)
    return {hit.kind: hit.times for hit in found if hit.slot == slot}


def download(place: Place, amount: int, address: str = PUBLIC, port: int = 80) -> float:
    """Return bytes a second."""

    def work() -> float:
        with socket.create_connection((address, port), timeout=30) as sock:
            sock.send(b"send %d\n" % amount)
            began, got = time.monotonic(), 0
            while data := sock.recv(1 << 20):
                got += len(data)
            assert got == amount
            return got / (time.monotonic() - began)

    return place.run(work)


def upload(place: Place, amount: int, address: str = PUBLIC, port: int = 80) -> float:
    def work() -> float:
        with socket.create_connection((address, port), timeout=30) as sock:
            sock.send(b"take\n")
            began = time.monotonic()
            sock.sendall(bytes(amount))
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(100) == b"taken"
            return amount / (time.monotonic() - began)

    return place.run(work)


def test_connections_of_all_sandboxes_of_a_tenant_are_one_budget(walls: Walls) -> None:
    tenant = next(names)
    first, one = walls.sandbox(tenant=tenant, connections=10)
    second, two = walls.sandbox(tenant=tenant, connections=10)
    _, three = walls.sandbox(connections=10)
    hits(walls, first)
    with closing(connect(one, 6)) as six, closing(connect(two, 20)) as rest, closing(connect(three, 8)) as others:
        assert (six, rest, others) == (6, 4, 8)
        assert hits(walls, second) == {"connections": 16}
        assert reaches(one, PUBLIC) == "refused", "told at once"
    time.sleep(0.2)
    with closing(connect(two, 4)) as again:
        assert again == 4


def test_udp_counts_as_connections(walls: Walls) -> None:
    slot, place = walls.sandbox(connections=5)

    def spread() -> None:
        for _ in range(20):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.connect((PUBLIC, 9000))
                sock.send(b"x")

    hits(walls, slot)
    place.run(spread)
    assert hits(walls, slot)["connections"] == 15


def test_connections_begun_a_second_are_bounded(walls: Walls) -> None:
    slot, place = walls.sandbox(connection_rate=10)
    hits(walls, slot)
    with closing(connect(place, 40)) as made:
        # Ten at once, and ten for each second that a busy machine takes.
        assert 10 <= made <= 20
    assert hits(walls, slot)["connection_rate"] == 40 - made
    time.sleep(1.1)
    with closing(connect(place, 40)) as made:
        assert 10 <= made <= 20
    # A packet of one that is open begins nothing.
    with closing(connect(place, 1)) as made, contextlib.suppress(OSError):
        pass


def test_many_packets_of_one_udp_flow_are_one_connection(walls: Walls) -> None:
    slot, place = walls.sandbox(connection_rate=5, connections=5)

    def stream() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            # Nobody answers there: the kernel calls every packet of it new.
            sock.connect((OTHER_PUBLIC, 1234))
            for _ in range(100):
                with contextlib.suppress(OSError):
                    sock.send(b"x")

    hits(walls, slot)
    place.run(stream)
    assert hits(walls, slot) == {}


@pytest.mark.parametrize("way", ["bandwidth_in", "bandwidth_out"])
def test_bandwidth_of_all_sandboxes_of_a_tenant_is_one_budget(walls: Walls, way: str) -> None:
    tenant = next(names)
    limit = 4 * MB
    limits = {"bandwidth_in": 0, "bandwidth_out": 0, way: limit}
    slot, one = walls.slot()
    second, two = walls.slot()
    for each in (slot, second):
        walls.open(each, "public", tenant, **limits)
    move = download if way == "bandwidth_in" else upload
    hits(walls, slot)
    # A second's worth may go at once; what comes after it is at the rate.
    began = time.monotonic()
    for place in (one, two):
        move(place, 2 * limit)
    seconds = time.monotonic() - began
    assert 4 * limit / seconds < 1.45 * limit
    assert 4 * limit / seconds > 0.5 * limit
    assert hits(walls, slot)[way] > 0


def test_the_other_way_and_other_tenants_are_not_slowed(walls: Walls) -> None:
    _, place = walls.sandbox(bandwidth_in=1 * MB, bandwidth_out=0)
    _, other = walls.sandbox(bandwidth_in=0, bandwidth_out=0)
    assert upload(place, 40 * MB) > 20 * MB
    assert download(other, 100 * MB) > 50 * MB


def test_zero_switches_every_one_off(walls: Walls) -> None:
    slot, place = walls.sandbox(bandwidth_in=0, bandwidth_out=0, connections=0, connection_rate=0)
    hits(walls, slot)
    with closing(connect(place, 300)) as made:
        assert made == 300
    assert hits(walls, slot) == {}


def test_what_goes_through_the_gate_is_counted_too(walls: Walls) -> None:
    platform = str(walls.host.platform_address)
    slot, place = walls.sandbox("allow:api.example.com", connections=3, bandwidth_in=2 * MB)
    hits(walls, slot)
    with Server(walls.lab.host, [GATE_PORT], address=platform, uid=walls.host.users.egress):
        with closing(connect(place, 10, PUBLIC, 443)) as made:
            assert made == 3
        assert hits(walls, slot)["connections"] == 7
        time.sleep(0.2)
        assert download(place, 8 * MB, PUBLIC, 443) < 3.5 * MB
        assert hits(walls, slot)["bandwidth_in"] > 0


def test_what_the_proxies_exchange_with_a_sandbox_is_not_counted(walls: Walls) -> None:
    slot, place = walls.sandbox(connections=2, connection_rate=2, bandwidth_in=1 * MB, bandwidth_out=1 * MB)
    hits(walls, slot)
    with Server(place, [8000]):
        assert download(walls.lab.host, 50 * MB, walls.address(slot), 8000) > 20 * MB
        with closing(connect(walls.lab.host, 50, walls.address(slot), 8000)) as made:
            assert made == 50
    assert hits(walls, slot) == {}


def test_a_changed_limit_holds_for_the_next_connection(walls: Walls) -> None:
    slot, place = walls.sandbox(connections=2)
    with closing(connect(place, 5)) as made:
        assert made == 2
    time.sleep(0.2)
    walls.open(slot, connections=4)
    with closing(connect(place, 9)) as made:
        assert made == 4


def test_a_limit_that_nobody_had_takes_no_program_and_less_than_a_millisecond(
    walls: Walls, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, writer = walls.lab.host, walls.writer
    slots = range(2000, 2300)

    def work() -> list[float]:
        seconds = []
        with monkeypatch.context() as patched:
            patched.delattr("subprocess.run")
            for slot in slots:
                way = Way(f"t{slot}", parse_egress("public"), Limits(connections=slot))
                began = time.perf_counter()
                writer.open(slot, way)
                seconds.append(time.perf_counter() - began)
        assert writer.look()() == []
        for slot in slots:
            writer.shut(slot)
        return seconds

    taken = sorted(host.run(work))
    assert taken[len(taken) // 2] < 0.001
    # Those that nobody has go at the next start.
    kept = Way("t2000", parse_egress("public"), Limits(connections=2000))
    host.run(writer.begin, {2000: kept})
    listing = host.run(nft.listed, walls.host)
    assert listing is not None
    assert readback.count_chains(listing) == {"count_2000", f"count_{walls.host.defaults.connections}"}
    assert host.run(writer.look)() == []
    host.run(writer.begin, {})


def test_churn_does_not_fill_the_table_that_the_machine_shares(walls: Walls) -> None:
    """What has ended is forgotten within seconds, not after the kernel's two minutes."""
    slot, place = walls.sandbox()
    with closing(connect(place, 50)):
        pass
    shown = walls.lab.host.command("cat", "/proc/net/nf_conntrack").splitlines()
    left = [line.split() for line in shown if f" src={walls.address(slot)} " in line]
    assert left
    assert all(int(fields[4]) <= 20 for fields in left)


def test_a_way_is_opened_within_a_millisecond_beside_a_thousand(walls: Walls) -> None:
    def open_many() -> list[float]:
        seconds = []
        for slot in range(2000, 3100):
            way = Way(f"t{slot}", parse_egress("public"), Limits())
            began = time.perf_counter()
            walls.writer.open(slot, way)
            seconds.append(time.perf_counter() - began)
        for slot in range(2000, 3100):
            walls.writer.shut(slot)
        return seconds

    beside = sorted(walls.lab.host.run(open_many)[1000:])
    assert beside[len(beside) // 2] < 0.001
