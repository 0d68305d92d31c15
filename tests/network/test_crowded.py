"""A table of connections that is full, or nearly: calls do without it, tenants leave a tenth of it to others."""

import contextlib
import socket
import subprocess
import threading
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpost.model.host import SANDBOX_PORT
from sandpost.network import firewall
from sandpost.network.conntrack import Tracked
from support import tracked
from support.lab import HOST, PUBLIC, Place, Server, reaches
from support.walls import Walls

LISTENER = 8721
ROOM = 1 << 18
COUNTS = st.integers(0, ROOM)


@pytest.fixture
def crowded(walls: Walls) -> Iterator[Walls]:
    """Walls of a host whose table is full to the last connection, which its controller knows."""
    with of_listener(walls):
        tracked.fill(walls.lab.host)
        walls.lab.host.run(lambda: walls.writer.admit(100, crowded=True))
        try:
            yield walls
        finally:
            tracked.empty(walls.lab.host)


def whole(walls: Walls) -> bool:
    count, most = tracked.room(walls.lab.host)
    return count >= most


def connect_as(place: Place, uid: int, address: str, port: int) -> bytes:
    """Connect as a user and ask; `yes` if somebody answers."""
    program = (
        f"import socket; sock = socket.create_connection(('{address}', {port}), 0.5); sock.send(b'who\\n'); "
        "print('yes' if sock.recv(9) else '', end='')"
    )
    command = ["/usr/bin/python3", "-c", program]
    return place.run(lambda: subprocess.run(command, user=uid, capture_output=True, timeout=10, check=False).stdout)


@given(COUNTS, st.integers(0, 1 << 24))
def test_in_any_second_tenants_begin_half_of_what_is_left_of_nine_tenths(count: int, room: int) -> None:
    pace = Tracked(count, room).pace
    assert pace >= 0
    if room >= 64:
        # And never nothing: what ends is not known before it is looked at again.
        assert room // 64 <= pace <= max(room // 64, (0.9 * room - count) / 2)


@given(st.lists(st.integers(0, ROOM), min_size=50, max_size=50))
def test_a_table_that_tenants_fill_as_fast_as_they_may_keeps_its_tenth_but_for_a_second(wanted: list[int]) -> None:
    """A pace allows itself at once and once more in its second; the controller looks every second."""
    count, full = 0, False
    for many in wanted:
        seen = Tracked(count, ROOM)
        full = not seen.roomy if full else seen.full
        count += 0 if full else min(many, 2 * seen.pace)
        assert count <= 0.9 * ROOM + 2 * ROOM // 64


def test_what_all_tenants_begin_is_one_pace(walls: Walls) -> None:
    places = [walls.sandbox(connections=0)[1] for _ in range(2)]
    walls.lab.host.run(lambda: walls.writer.admit(5, crowded=False))

    def connect(place: Place, own: list[socket.socket]) -> int:
        def work() -> int:
            return sum(sock.connect_ex((PUBLIC, 80)) == 0 for sock in own)

        return place.run(work)

    made = [place.run(lambda: [socket.socket() for _ in range(20)]) for place in places]
    try:
        reached = sum(connect(place, own) for place, own in zip(places, made, strict=True))
        assert 5 <= reached < 20
        found = walls.lab.host.run(walls.writer.hits)
        assert {hit.kind for hit in found} == {"room"}
        assert sum(hit.times for hit in found) == 40 - reached
    finally:
        for sock in (*made[0], *made[1]):
            sock.close()
    walls.lab.host.run(lambda: walls.writer.admit(0, crowded=True))
    assert {reaches(places[0], PUBLIC, udp=udp) for udp in (False, True)} == {"refused", "prohibited"}
    walls.lab.host.run(lambda: walls.writer.admit(0, crowded=False))
    assert {reaches(place, PUBLIC, udp=udp) for place in places for udp in (False, True)} == {"yes"}


def test_a_tenant_is_refused_at_once_and_told_and_finds_names_all_the_same(crowded: Walls) -> None:
    slot, place = crowded.sandbox()
    platform = str(crowded.host.platform_address)
    assert whole(crowded)
    assert reaches(place, PUBLIC) == "refused"
    hits = {hit.kind: hit.times for hit in crowded.lab.host.run(crowded.writer.hits) if hit.slot == slot}
    assert hits == {"room": 1}
    # A table that was taken away meanwhile is that of a crowded host again.
    crowded.lab.host.command("nft", "delete", "table", "inet", crowded.host.nft_table)
    crowded.lab.host.run(crowded.writer.repair)
    assert reaches(place, PUBLIC) == "refused"
    with Server(crowded.lab.host, [53], address=platform, uid=crowded.host.users.egress):
        assert reaches(place, platform, 53, udp=True) == "yes"


def test_proxies_and_root_reach_a_sandbox_and_nobody_else_does(crowded: Walls) -> None:
    slot, place = crowded.sandbox()
    users = crowded.host.users
    with Server(place, [SANDBOX_PORT]):
        for uid, seen in ((0, b"yes"), (users.proxy, b"yes"), (users.egress, b""), (1000, b"")):
            assert connect_as(crowded.lab.host, uid, crowded.address(slot), SANDBOX_PORT) == seen
    assert whole(crowded)
    # The next sandbox of its address meets none of it.
    talks = ("nft", "list", "set", "inet", crowded.host.nft_table, "talks")
    assert crowded.address(slot) in crowded.lab.host.command(*talks)
    crowded.lab.host.run(crowded.writer.forget_talks, slot)
    assert crowded.address(slot) not in crowded.lab.host.command(*talks)


def test_clients_reach_the_listener_from_everywhere(crowded: Walls) -> None:
    host, lan = crowded.lab.host, crowded.lab.lan
    host.ip("addr add 2001:db8::1/64 dev lan0 nodad")
    lan.ip("addr add 2001:db8::2/64 dev eth0 nodad")
    try:
        with answering(host, LISTENER), answering(host, LISTENER + 1):
            for place, address in (
                (host, "127.0.0.1"), (lan, HOST), (crowded.lab.internet, HOST), (host, "::1"), (lan, "2001:db8::1")
            ):  # fmt: skip
                assert hears(place, address, LISTENER) == "here", address
                # Other services are what they were.
                assert hears(place, address, LISTENER + 1) == "timed out", address
        assert whole(crowded)
    finally:
        host.ip("addr del 2001:db8::1/64 dev lan0")
        lan.ip("addr del 2001:db8::2/64 dev eth0")


@pytest.mark.parametrize("hook", ["prerouting", "output"])
def test_a_listener_behind_a_translated_port_keeps_its_callers(walls: Walls, hook: str) -> None:
    """As `iptables -t nat -j REDIRECT` leads one port to another: what was there before it was crowded goes on."""
    host = walls.lab.host
    client, address = (walls.lab.internet, HOST) if hook == "prerouting" else (host, "127.0.0.1")
    rule = f"type nat hook {hook} priority -100; tcp dport 4430 redirect to :{LISTENER};"
    with of_listener(walls), answering(host, LISTENER):
        host.run(
            lambda: subprocess.run(["nft", "-f", "-"], input=f"table ip led {{ chain in {{ {rule} }}; }}", text=True, check=True)
        )  # fmt: skip
        try:
            with client.run(socket.create_connection, (address, 4430), 2) as sock:
                assert sock.recv(10) == b"here"
                # One more comes while there is room, and is not taken for one of ours.
                host.run(lambda: walls.writer.admit(0, crowded=True))
                assert hears(client, address, 4430) == "here"
                tracked.fill(host)
                sock.sendall(b"again")
                assert sock.recv(10) == b"again"
        finally:
            host.command("nft", "delete", "table", "ip", "led")
            tracked.empty(host)


@pytest.mark.parametrize("begun", ["before", "meanwhile"])
def test_a_call_lives_through_it(walls: Walls, begun: str) -> None:
    """Whatever the table is like when it begins, when it goes on, and whoever speaks first then."""
    host = walls.lab.host
    slot, place = walls.sandbox()

    def state(full: bool) -> None:
        (tracked.fill if full else tracked.empty)(host)
        host.run(lambda: walls.writer.admit(0, crowded=full))

    with place.run(socket.create_server, (walls.address(slot), SANDBOX_PORT)) as listener:
        if begun == "meanwhile":
            state(full=True)
        with host.run(socket.create_connection, (walls.address(slot), SANDBOX_PORT), 3) as ours:
            theirs, _ = listener.accept()
            with theirs:
                theirs.settimeout(3)
                try:
                    for full in (False, True, False) if begun == "meanwhile" else (True, False, True):
                        if begun == "before" and full:
                            # What the table has stays in it.
                            fill_up(host)
                            host.run(lambda: walls.writer.admit(0, crowded=True))
                        elif begun == "before":
                            host.run(lambda: walls.writer.admit(0, crowded=False))
                        else:
                            state(full)
                        theirs.sendall(b"answer")
                        assert ours.recv(100) == b"answer"
                        ours.sendall(b"call")
                        assert theirs.recv(100) == b"call"
                finally:
                    state(full=False)


def fill_up(host: Place) -> None:
    count, most = tracked.room(host)
    if count < most:
        tracked.fill(host)


def test_a_sandbox_begins_nothing_with_the_host_though_it_speaks_from_the_runtimes_port(crowded: Walls) -> None:
    slot, place = crowded.sandbox()
    own, ours = crowded.address(slot), str(crowded.host.slot_addresses(slot)[0])
    # A proxy has talked from a port that a service of the host listens on now.
    element = f"{{ {own} . 45000 }}"
    crowded.lab.host.command("nft", "add", "element", "inet", crowded.host.nft_table, "talks", element)
    with answering(crowded.lab.host, LISTENER), answering(crowded.lab.host, 45000):
        for port in (LISTENER, 45000, 80):
            assert hears(place, ours, port, source=(own, SANDBOX_PORT)) in {"refused", "timed out"}


@contextlib.contextmanager
def of_listener(walls: Walls) -> Iterator[None]:
    """The table of an installation that listens."""
    host = walls.lab.host
    host.run(firewall.install, msgspec.structs.replace(walls.host, listen_port=LISTENER))
    host.run(walls.writer.begin, {})
    try:
        yield
    finally:
        host.run(firewall.install, walls.host)


@contextlib.contextmanager
def answering(place: Place, port: int) -> Iterator[None]:
    """A service at every address that says `here` and repeats what it is told."""
    sock = place.run(lambda: socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True))

    def repeat(made: socket.socket) -> None:
        with contextlib.suppress(OSError), made:
            made.sendall(b"here")
            while data := made.recv(100):
                made.sendall(data)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=repeat, args=(sock.accept()[0],), daemon=True).start()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        sock.shutdown(socket.SHUT_RDWR)
        sock.close()
        thread.join()


def hears(place: Place, address: str, port: int, source: tuple[str, int] | None = None) -> str:
    """What a service says first, or why nothing."""

    def work() -> str:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as sock:
            sock.settimeout(0.5)
            if source:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind(source)
            try:
                sock.connect((address, port))
                return sock.recv(4).decode()
            except ConnectionRefusedError:
                return "refused"
            except OSError as error:
                return str(error)

    return place.run(work)
