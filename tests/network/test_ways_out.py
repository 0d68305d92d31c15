"""What a sandbox reaches and who reaches it, with packets, in a lab where everything listens everywhere."""

import contextlib
import socket
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest

from sandpost.model.egress import parse_egress
from sandpost.model.host import GATE_PORT
from sandpost.model.limits import Limits
from sandpost.network import addresses, firewall, forwarding
from sandpost.network.firewall import nft, readback
from support.lab import (
    ANYWHERE,
    FORBIDDEN,
    GATEWAY,
    HOST,
    HOST_LAN,
    HOST_LOOPBACK,
    HOST_OTHER,
    LAN,
    OTHER_PUBLIC,
    PUBLIC,
    UPLINK,
    Place,
    Server,
    ask,
    destinations,
    every_packet,
    reaches,
    until,
)
from support.walls import Walls


@contextlib.contextmanager
def unseen(walls: Walls) -> Iterator[None]:
    """Nobody in the lab hears anything meanwhile: what is not answered may have been sent."""

    def heard() -> dict[str, int]:
        return {name: len(server.seen) for name, server in walls.lab.servers.items()}

    def still() -> bool:
        before = heard()
        time.sleep(0.1)
        return heard() == before

    assert until(still), "what was sent before is heard first"
    before = heard()
    yield
    time.sleep(0.1)
    assert heard() == before


DENIED = {"refused", "prohibited", "silent", "no route"}


def test_a_tenants_sandbox_reaches_the_public_internet_with_the_hosts_address(walls: Walls) -> None:
    _, place = walls.sandbox()
    for address in (PUBLIC, OTHER_PUBLIC):
        assert place.run(ask, address)["peer"] == HOST
        assert place.run(lambda: ask(PUBLIC, 9000, udp=True))["peer"] == HOST


def test_of_other_protocols_an_echo_alone_goes_out(walls: Walls) -> None:
    _, place = walls.sandbox()

    def echo() -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
            sock.settimeout(1)
            sock.sendto(bytes([8, 0, 0xF7, 0xFD, 0, 1, 0, 1]), (PUBLIC, 0))
            with contextlib.suppress(TimeoutError):
                # Type 0: an answer to an echo; behind the head of 20 bytes.
                return sock.recv(100)[20] == 0
            return False

    assert place.run(echo)
    unassigned = 253
    with walls.lab.internet.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, unassigned)) as heard:
        heard.settimeout(0.3)
        # To another address: without ports the two could not be told apart, and the second would be dropped for that.
        walls.lab.host.run(lambda: _send_raw(OTHER_PUBLIC, unassigned))
        assert heard.recv(100), "the host's own goes"
        place.run(lambda: _send_raw(PUBLIC, unassigned))
        with pytest.raises(TimeoutError):
            heard.recv(100)


def test_ports_that_leave_are_drawn_from_those_where_nothing_listens(walls: Walls) -> None:
    """A program that chose the host's port of some service would get what others send to that service."""
    _, place = walls.sandbox()
    seen = set()
    for _ in range(20):

        def fixed() -> int:
            with socket.socket() as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                sock.bind(("", 500))
                sock.settimeout(2)
                sock.connect((PUBLIC, 80))
                sock.send(b"who\n")
                import json

                return int(json.loads(sock.recv(9999))["port"])

        seen.add(place.run(fixed))
    assert min(seen) >= 32768
    assert len(seen) > 10


def test_a_pooled_sandbox_reaches_nothing(walls: Walls) -> None:
    _, place = walls.slot()
    platform = str(walls.host.platform_address)
    with unseen(walls):
        for address in (PUBLIC, HOST, LAN, FORBIDDEN[0], platform):
            assert reaches(place, address, 53, patience=0.3) in DENIED
            assert reaches(place, address, 53, udp=True, patience=0.3) in DENIED


@pytest.mark.parametrize("address", FORBIDDEN)
def test_no_forbidden_address_is_reached_though_it_answers(walls: Walls, address: str) -> None:
    assert walls.lab.host.run(ask, address)["local"] == address, "the lab has it"
    _, listed = walls.sandbox(egress="allow:0.0.0.0/0")
    _, public = walls.sandbox()
    with unseen(walls):
        for place in (listed, public):
            assert reaches(place, address) in {"refused", "prohibited"}
            assert reaches(place, address, 443, udp=True, patience=0.2) in DENIED


def test_no_address_of_the_host_is_reached_public_ones_neither(walls: Walls) -> None:
    slot, place = walls.sandbox()
    ours = str(walls.host.slot_addresses(slot)[0])
    before = len(walls.lab.servers["host"].seen)
    for address in (HOST, HOST_OTHER, HOST_LAN, HOST_LOOPBACK, ours, "203.0.113.255"):
        for port in (80, 8443, ANYWHERE):
            assert reaches(place, address, port, patience=0.2) in DENIED
            assert reaches(place, address, port, udp=True, patience=0.2) in DENIED
    for port in (80, 443, GATE_PORT, ANYWHERE):
        assert reaches(place, str(walls.host.platform_address), port, patience=0.2) in DENIED
        assert reaches(place, str(walls.host.platform_address), port, udp=True, patience=0.2) in DENIED
    assert len(walls.lab.servers["host"].seen) == before
    assert reaches(place, LAN, patience=0.2) in DENIED


def test_what_the_host_publishes_by_translation_is_not_reached_by_its_addresses(walls: Walls) -> None:
    """As Docker publishes ports: an address of the host's, or a forbidden one, becomes one that may be reached."""
    rules = f"""table ip published {{ chain pre {{ type nat hook prerouting priority dstnat - 5;
        ip daddr {HOST} tcp dport 8088 dnat to {PUBLIC}:80
        ip daddr 10.0.0.99 tcp dport 80 dnat to {PUBLIC}:80
        ip daddr {OTHER_PUBLIC} tcp dport 8088 dnat to {LAN}:80
    }}; }}"""
    host = walls.lab.host
    host.run(lambda: subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True))
    try:
        _, place = walls.sandbox()
        for address, port in ((HOST, 8088), ("10.0.0.99", 80), (OTHER_PUBLIC, 8088)):
            assert reaches(place, address, port, patience=0.3) in DENIED
        assert reaches(place, PUBLIC) == "yes"
    finally:
        host.command("nft", "delete", "table", "ip", "published")


def test_the_resolver_is_reached_by_udp_and_tcp(walls: Walls) -> None:
    _, place = walls.sandbox()
    with _listening(walls, 53):
        assert reaches(place, str(walls.host.platform_address), 53) == "yes"
        assert reaches(place, str(walls.host.platform_address), 53, udp=True) == "yes"


def test_questions_take_no_room_in_the_table_of_connections(walls: Walls) -> None:
    _, place = walls.sandbox()
    platform = str(walls.host.platform_address)

    def many() -> None:
        for _ in range(300):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.connect((platform, 53))
                sock.send(b"who\n")

    before = int(walls.lab.host.setting("netfilter/nf_conntrack_count"))
    with _listening(walls, 53):
        place.run(many)
        assert int(walls.lab.host.setting("netfilter/nf_conntrack_count")) < before + 10


def test_a_sandbox_reaches_no_other_one_of_its_own_tenant_neither(walls: Walls) -> None:
    _, place = walls.sandbox(tenant="same")
    second, other = walls.sandbox(tenant="same")
    with Server(other, [8000, 9000]):
        for port in (8000, 9000):
            assert reaches(place, walls.address(second), port, patience=0.2) in DENIED
            assert reaches(place, walls.address(second), port, udp=True, patience=0.2) in DENIED


def test_nothing_outside_reaches_a_sandbox(walls: Walls) -> None:
    slot, place = walls.sandbox()
    with Server(place, [8000]) as server:
        for outside in (walls.lab.internet, walls.lab.lan):
            assert reaches(outside, walls.address(slot), 8000, patience=0.3) in DENIED
            assert reaches(outside, walls.address(slot), 8000, udp=True, patience=0.3) in DENIED
        assert server.seen == []


def test_only_root_and_the_proxies_user_begin_anything_with_a_sandbox(walls: Walls) -> None:
    slot, place = walls.sandbox()
    users = walls.host.users
    with Server(place, [53, 8000]):
        for uid, seen in ((0, b"yes"), (users.proxy, b"yes"), (users.egress, b""), (users.api, b""), (1000, b"")):
            assert _as(walls.lab.host, uid, walls.address(slot), 8000) == seen


def test_what_is_meant_for_a_sandbox_that_has_gone_does_not_leave_the_host(walls: Walls) -> None:
    """Its interface goes with it, and then its address would be looked for where everybody's is: a tenant's program
    and data would go to whoever answers there."""
    slot, place = walls.slot()
    address = walls.address(slot)
    with Server(place, [8000]):
        kept = walls.lab.host.run(lambda: socket.create_connection((address, 8000), 5))
        walls.lab.host.ip(f"link del {addresses.link(walls.host, slot).interface}")
    with kept, walls.lab.internet.run(every_packet) as outside:
        assert walls.lab.host.command("ip", "route", "get", address).split()[2] == GATEWAY
        kept.send(b"what a tenant wrote")
        assert reaches(walls.lab.host, address, 8000) == "refused", "told at once"
        assert reaches(walls.lab.host, address, 8000, udp=True) != "yes"
        # The kernel has tried again by then.
        time.sleep(0.5)
        assert destinations(outside).count(address) == 0
        # The platform's own address is in the same block.
        assert reaches(walls.lab.host, str(walls.host.platform_address), ANYWHERE) == "yes"


def test_a_forged_source_goes_nowhere(walls: Walls) -> None:
    slot, place = walls.sandbox()
    neighbour, _ = walls.sandbox()
    before = _outside(walls)
    for forged in (walls.address(neighbour), PUBLIC, HOST, LAN, "127.0.0.1", "10.0.0.5"):
        place.run(lambda forged=forged: _send_as(forged, OTHER_PUBLIC))
        place.run(lambda forged=forged: _send_as(forged, str(walls.host.platform_address), 53))
    place.run(lambda: _send_as(walls.address(slot), OTHER_PUBLIC))
    assert until(lambda: len(_outside(walls)) > len(before)), "an honest one goes"
    time.sleep(0.2)
    assert len(_outside(walls)) == len(before) + 1


def test_a_forged_source_of_an_answer_goes_nowhere(walls: Walls) -> None:
    """What looks like a neighbour's answer to a proxy does not reach the proxy's connection."""
    _, place = walls.sandbox()
    neighbour, other = walls.sandbox()
    gate = threading.Event()
    heard: list[bytes] = []

    def proxy() -> int:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.connect((walls.address(neighbour), 7000))
        sock.send(b"hello")
        sock.settimeout(0.5)
        port = int(sock.getsockname()[1])

        def wait() -> None:
            with contextlib.suppress(OSError), sock:
                heard.append(sock.recv(100))
            gate.set()

        threading.Thread(target=wait).start()
        return port

    listener = other.run(lambda: _bound(7000))
    with listener:
        port = walls.lab.host.run(proxy)
        ours = str(walls.host.slot_addresses(neighbour)[0])
        place.run(lambda: _send_as(walls.address(neighbour), ours, port, source_port=7000))
        gate.wait(2)
    assert heard == []


def test_ipv6_goes_nowhere(walls: Walls) -> None:
    lab = walls.lab
    slot, place = walls.sandbox()
    interface = f"{walls.host.interface_prefix}{slot:x}"
    for one in (lab.host, place):
        one.setting("ipv6/conf/all/disable_ipv6", "0")
    place.setting("ipv6/conf/eth0/disable_ipv6", "0")
    lab.host.ip(f"addr add fd00:1::1/64 dev {interface} nodad", "addr add fd00:2::1/128 dev lo")
    place.ip("addr add fd00:1::2/64 dev eth0 nodad", "route add default via fd00:1::1")

    def answers(address: str) -> bool:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            sock.settimeout(0.3)
            return sock.connect_ex((address, 82)) == 0

    with lab.host.run(lambda: socket.create_server(("::", 82), family=socket.AF_INET6)):
        assert until(lambda: lab.host.run(answers, "fd00:1::1"))
        assert not place.run(answers, "fd00:1::1")
        assert not place.run(answers, "fd00:2::1")
        lab.host.run(firewall.remove, walls.host)
        try:
            assert until(lambda: place.run(answers, "fd00:2::1")), "without the wall it goes"
        finally:
            lab.host.run(walls.writer.repair)


def test_a_refusal_is_told_at_once_and_a_flood_of_them_is_not(walls: Walls) -> None:
    _, place = walls.sandbox()

    def flood() -> tuple[int, int]:
        refused = silent = 0
        for _ in range(600):
            with socket.socket() as sock:
                sock.setblocking(False)
                sock.connect_ex(("10.0.0.5", 80))
                time.sleep(0.0005)
                error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                refused, silent = refused + bool(error), silent + (not error)
        return refused, silent

    began = time.monotonic()
    assert reaches(place, "10.0.0.5") == "refused"
    # One that is not answered at all is sent again after a second.
    assert time.monotonic() - began < 0.9
    refused, silent = place.run(flood)
    assert refused >= 150
    assert silent >= 100


def test_none_reaches_nothing_and_resolves_nothing(walls: Walls) -> None:
    _, place = walls.sandbox("none")
    with _listening(walls, 53) as resolver, unseen(walls):
        for udp in (False, True):
            assert reaches(place, PUBLIC, udp=udp, patience=0.2) in DENIED
            assert reaches(place, str(walls.host.platform_address), 53, udp=udp, patience=0.2) in DENIED
        assert resolver.seen == []


def test_an_allow_list_opens_its_blocks_and_ports_and_leads_all_else_of_tcp_to_the_gate(walls: Walls) -> None:
    policy = f"allow:api.example.com,{PUBLIC}:443,{PUBLIC}:5000-6000,{OTHER_PUBLIC}/32:9000"
    slot, place = walls.sandbox(policy)
    platform = str(walls.host.platform_address)
    with _listening(walls, 53, GATE_PORT):
        assert place.run(ask, PUBLIC, 443)["local"] == PUBLIC
        assert place.run(ask, PUBLIC, 5432)["local"] == PUBLIC
        assert reaches(place, PUBLIC, 443, udp=True) == "yes"
        assert place.run(ask, OTHER_PUBLIC, 9000)["local"] == OTHER_PUBLIC
        # All else of TCP meets the gate, which lets it pass or not.
        for address, port in ((PUBLIC, 80), (OTHER_PUBLIC, 443)):
            said = place.run(ask, address, port)
            assert (said["local"], said["at"], said["peer"]) == (platform, GATE_PORT, walls.address(slot))
        assert reaches(place, OTHER_PUBLIC, 443, udp=True, patience=0.2) in DENIED
        assert reaches(place, platform, 53, udp=True) == "yes"
        # The gate by its own name would not know whither.
        assert reaches(place, platform, GATE_PORT, patience=0.2) in DENIED
        for address in (*FORBIDDEN[:3], HOST, LAN):
            assert reaches(place, address, 80, patience=0.2) in DENIED
    _, public = walls.sandbox()
    assert public.run(ask, OTHER_PUBLIC, 443)["local"] == OTHER_PUBLIC


def test_a_changed_policy_holds_for_connections_that_are_open(walls: Walls) -> None:
    slot, place = walls.sandbox()
    sock = place.run(lambda: socket.create_connection((PUBLIC, 80), timeout=2))
    with sock:
        walls.open(slot, "none")
        sock.settimeout(1)
        sock.send(b"who\n")
        with pytest.raises(OSError):
            assert sock.recv(100) != b""
    walls.open(slot, "public")
    assert reaches(place, PUBLIC) == "yes"


@pytest.mark.parametrize("repaired", [False, True])
def test_a_closed_way_is_closed_and_its_connections_are_nobodys(walls: Walls, repaired: bool) -> None:
    """Answers to what the former sandbox of an address began must not reach the next one."""
    slot, place = walls.sandbox()
    port = 7777

    def begin() -> None:
        with _bound(port) as sock:
            sock.connect((PUBLIC, 9000))
            sock.send(b"x")
            sock.recv(999)

    place.run(begin)
    walls.lab.host.run(walls.writer.shut, slot)
    assert reaches(place, PUBLIC, patience=0.2) in DENIED
    if repaired:
        # The table knows nothing any more of who has opened connections.
        walls.lab.host.run(walls.writer.repair)
    assert walls.lab.host.run(walls.writer.forget_connections, slot)
    walls.lab.host.run(walls.writer.forgotten, slot)
    walls.open(slot, tenant="next")
    (said,) = [one for one in walls.lab.servers["internet"].seen if one["protocol"] == "udp" and one["at"] == 9000][-1:]

    def late() -> bool:
        with _bound(port) as sock:
            sock.settimeout(0.4)
            walls.lab.internet.run(lambda: _send_as(PUBLIC, HOST, said["port"], source_port=9000))
            with contextlib.suppress(TimeoutError):
                return bool(sock.recv(100))
            return False

    assert not place.run(late)
    # One that opened nothing costs no look through the kernel's table.
    assert repaired or not walls.lab.host.run(walls.writer.forget_connections, next(walls.slots))


@pytest.mark.parametrize("how", ["delete table inet T", "flush chain inet T outward", "flush map inet T policies"])
def test_a_table_that_a_thousand_are_in_is_repaired_whole(walls: Walls, how: str) -> None:
    _, place = walls.sandbox()
    host, writer, table = walls.lab.host, walls.writer, walls.host.nft_table
    listed = parse_egress(f"allow:{OTHER_PUBLIC}:443,example.com")

    def work() -> None:
        for other in range(3000, 4000):
            egress = listed if other % 4 == 0 else parse_egress("public")
            writer.open(other, firewall.Way(f"t{other}", egress, Limits(connections=200 + other % 4)))
        before = nft.listed(walls.host)
        writer.altered()
        subprocess.run(["nft", how.replace("T", table)], check=True)
        assert writer.altered()
        assert writer.look()()
        writer.repair()
        assert writer.look()() == []
        after = nft.listed(walls.host)
        assert before is not None
        assert after is not None
        for read in (readback.tenants, readback.connections, readback.sizes, readback.counts):
            assert read(after) == read(before)
        assert len(readback.tenants(after)) == 1001
        for other in range(3000, 4000):
            writer.shut(other)

    host.run(work)
    assert reaches(place, PUBLIC) == "yes"
    assert reaches(place, FORBIDDEN[0]) in DENIED


def test_what_somebody_changed_is_noticed_though_a_limit_that_nobody_had_comes_next(walls: Walls) -> None:
    host, writer, table = walls.lab.host, walls.writer, walls.host.nft_table

    def work() -> None:
        writer.open(2999, firewall.Way("t2999", parse_egress("public"), Limits()))
        writer.altered()
        subprocess.run(["nft", f"flush map inet {table} policies"], check=True)
        writer.open(3000, firewall.Way("t3000", parse_egress("public"), Limits(connections=777)))
        assert writer.altered()
        writer.repair()
        writer.open(3001, firewall.Way("t3001", parse_egress("public"), Limits(connections=778)))
        assert not writer.altered()
        for other in (2999, 3000, 3001):
            writer.shut(other)

    host.run(work)


def test_a_limit_that_nobody_had_is_counted_though_the_table_was_taken_away(walls: Walls) -> None:
    host, writer, table = walls.lab.host, walls.writer, walls.host.nft_table

    def work() -> None:
        writer.altered()
        subprocess.run(["nft", f"delete table inet {table}"], check=True)
        writer.open(3000, firewall.Way("t3000", parse_egress("public"), Limits(connections=779)))
        assert writer.look()() == []
        writer.shut(3000)

    host.run(work)


def test_the_host_becomes_a_router_for_nobody(walls: Walls) -> None:
    lab = walls.lab
    assert lab.host.setting("ipv4/ip_forward") == "0"
    assert lab.host.setting(f"ipv4/conf/{UPLINK}/forwarding") == "1"
    lab.internet.ip(f"route replace {LAN}/32 via {HOST}")
    # The way back is not forwarded in any case: what counts is that nothing arrives.
    with unseen(walls):
        assert reaches(lab.internet, LAN, patience=0.3) in DENIED
        assert reaches(lab.internet, LAN, udp=True, patience=0.3) in DENIED
        assert reaches(lab.lan, PUBLIC, patience=0.3) in DENIED
    # Whoever makes it a router himself is not stopped.
    lab.host.setting("ipv4/ip_forward", "1")
    try:
        lab.host.run(lambda: walls.writer.guard(forwarding.open_uplinks(walls.host)))
        assert reaches(lab.internet, LAN, patience=0.3) == "yes"
    finally:
        lab.host.setting("ipv4/ip_forward", "0")
    # That switched sandboxes' interfaces off as well.
    _, place = walls.sandbox()
    lab.host.run(lambda: walls.writer.guard(forwarding.open_uplinks(walls.host)))
    assert reaches(place, PUBLIC) == "yes"
    with unseen(walls):
        assert reaches(lab.internet, LAN, patience=0.3) in DENIED


def test_the_last_installation_switches_forwarding_off_again(walls: Walls) -> None:
    lab = walls.lab
    lab.host.run(forwarding.close_uplinks, walls.host)
    assert lab.host.setting(f"ipv4/conf/{UPLINK}/forwarding") == "0"
    assert lab.host.run(forwarding.open_uplinks, walls.host) == {UPLINK}


def _outside(walls: Walls) -> list[object]:
    return list(walls.lab.servers["internet"].seen)


def _listening(walls: Walls, *ports: int) -> Server:
    """What egress does: answer at the platform's address, as its user."""
    return Server(walls.lab.host, ports, address=str(walls.host.platform_address), uid=walls.host.users.egress)


def _send_raw(address: str, protocol: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol) as sock, contextlib.suppress(OSError):
        sock.sendto(bytes(16), (address, 0))


def _bound(port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("", port))
    sock.settimeout(1)
    return sock


def _send_as(source: str, address: str, port: int = 9000, *, source_port: int = 4000) -> None:
    """Send one UDP packet with a source of our choice."""
    import struct

    data = b"who\n"
    udp = struct.pack("!HHHH", source_port, port, 8 + len(data), 0) + data
    head = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, socket.inet_aton(source), socket.inet_aton(address)
    )
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        sock.sendto(head + udp, (address, 0))


def _as(place: Place, uid: int, address: str, port: int) -> bytes:
    """Connect as a user; `yes` if that works."""
    program = f"import socket; socket.create_connection(('{address}', {port}), 0.5); print('yes', end='')"
    return place.run(
        lambda: (
            subprocess.run(
                ["/usr/bin/python3", "-c", program], user=uid, capture_output=True, timeout=10, check=False
            ).stdout
        )
    )
