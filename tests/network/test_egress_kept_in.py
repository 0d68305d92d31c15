"""What egress itself reaches, who speaks to the outside for everybody: its resolvers, the public internet, no more."""

import socket
import subprocess
from collections.abc import Sequence

import msgspec

from sandpost.model.host import Host
from sandpost.network.firewall import nft
from support.lab import (
    ANYWHERE,
    FORBIDDEN,
    HOST,
    HOST_LAN,
    HOST_LOOPBACK,
    HOST_OTHER,
    LAN,
    OTHER_PUBLIC,
    PUBLIC,
    Server,
    reaches,
    until,
)
from support.walls import Walls

_CLIENT = """
import socket, sys
for text in sys.argv[1:]:
    kind, address, port = text.split(",")
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, getattr(socket, kind)) as sock:
        sock.settimeout(0.5)
        try:
            sock.connect((address, int(port)))
            sock.send(b"who\\n")
            if sock.recv(1):
                print(text)
        except OSError:
            pass
"""
STREAM, DATAGRAM = "SOCK_STREAM", "SOCK_DGRAM"
KINDS = (STREAM, DATAGRAM)


def reached(walls: Walls, places: Sequence[tuple[str, int]], uid: int | None = None) -> set[tuple[str, str, int]]:
    """Which of the places answer a process of a user, egress's if none is named, by which protocol."""
    wanted = [f"{kind},{address},{port}" for kind in KINDS for address, port in places]
    user = walls.host.users.egress if uid is None else uid
    said = walls.lab.host.run(
        lambda: subprocess.run(
            ["/usr/bin/python3", "-c", _CLIENT, *wanted],
            user=user,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    )
    found = (line.split(",") for line in said.stdout.split())
    return {(kind, address, int(port)) for kind, address, port in found}


def both(*places: tuple[str, int]) -> set[tuple[str, str, int]]:
    return {(kind, address, port) for kind in KINDS for address, port in places}


def tell(walls: Walls, *resolvers: str) -> Host:
    """Let these be the host's resolvers."""
    host = msgspec.structs.replace(walls.host, resolvers=list(resolvers))
    walls.lab.host.run(walls.writer.take_up, host)
    return host


def wrong(walls: Walls) -> list[str]:
    """What a look at the table finds."""
    return walls.lab.host.run(walls.writer.look)()


def answered(sock: socket.socket, address: str, port: int) -> bool:
    """Whether a datagram from this socket is sent and answered."""
    try:
        sock.sendto(b"who\n", (address, port))
        return bool(sock.recv(100))
    except OSError:
        return False


def test_egress_reaches_the_public_internet_and_no_address_that_sandboxes_must_not(walls: Walls) -> None:
    closed = [(address, 80) for address in (*FORBIDDEN, LAN, HOST, HOST_OTHER, HOST_LAN, HOST_LOOPBACK)]
    # Everything of the host's answers at this port.
    closed += [("127.0.0.1", ANYWHERE), (str(walls.host.platform_address), ANYWHERE)]
    opened = [(PUBLIC, 80), (OTHER_PUBLIC, 443)]
    assert reached(walls, [*closed, *opened]) == both(*opened)
    # It is no matter of the lab: another user reaches all of that.
    assert reached(walls, [*closed, *opened], uid=walls.host.users.api) == both(*closed, *opened)


def test_egress_asks_its_resolvers_wherever_they_are_and_nothing_else_there(walls: Walls) -> None:
    private, looped = (LAN, 53), ("127.0.0.53", 53)
    places = [private, (LAN, 80), looped, ("127.0.0.53", 5353)]
    with Server(walls.lab.host, [53, 5353], address="127.0.0.53"):
        assert reached(walls, places) == set()
        tell(walls, f"{LAN}:53", "127.0.0.53:53")
        assert reached(walls, places) == both(private, looped)
        # Those it has no longer are what they were.
        tell(walls, f"{LAN}:80")
        assert reached(walls, places) == both((LAN, 80))


def test_egress_asks_a_resolver_of_ipv6_and_reaches_nothing_else_of_it(walls: Walls) -> None:
    with Server(walls.lab.host, [5353, 5354], address="::1"):
        places = [("::1", 5353), ("::1", 5354)]
        tell(walls, "[::1]:5353")
        assert reached(walls, places) == both(("::1", 5353))
        assert reached(walls, places, uid=walls.host.users.api) == both(*places)


def test_the_socket_that_egress_inherits_reaches_nobody_but_sandboxes(walls: Walls) -> None:
    """It is root's, who made it, and in the wrong hands it speaks from the platform's address."""
    platform = str(walls.host.platform_address)
    with walls.lab.host.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        sock.bind((platform, 53))
        sock.settimeout(0.5)
        for address, port in ((LAN, 9000), ("127.0.0.1", ANYWHERE), (platform, ANYWHERE), (FORBIDDEN[0], 9000)):
            assert not answered(sock, address, port)
        sock.settimeout(2)
        slot, place = walls.sandbox()
        with place.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as inside:
            inside.bind((walls.address(slot), 4000))
            inside.settimeout(2)
            inside.sendto(b"?", (platform, 53))
            data, peer = sock.recvfrom(10)
            sock.sendto(b"!" + data, peer)
            assert inside.recv(10) == b"!?"


def test_what_the_machines_owner_translates_goes_on_as_it_was(walls: Walls) -> None:
    """Questions that he leads to a cache of his own, by his own table."""
    rules = f"""table ip led {{ chain out {{ type nat hook output priority -100;
        ip daddr {OTHER_PUBLIC} udp dport 53 dnat to 127.0.0.1:5353
    }}; }}"""
    host = walls.lab.host
    host.run(lambda: subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True))
    try:
        tell(walls, f"{OTHER_PUBLIC}:53")
        with Server(host, [5353], address="127.0.0.1") as cache:
            assert (DATAGRAM, OTHER_PUBLIC, 53) in reached(walls, [(OTHER_PUBLIC, 53), ("127.0.0.1", 5353)])
            assert until(lambda: [one["protocol"] for one in cache.seen] == ["udp"])
    finally:
        host.command("nft", "delete", "table", "ip", "led")


def test_a_lost_resolver_is_found_and_repaired_with_the_table(walls: Walls) -> None:
    tell(walls, f"{LAN}:53")
    place, table = walls.lab.host, walls.host.nft_table
    assert wrong(walls) == []
    place.command("nft", "delete", "element", "inet", table, "resolvers", f"{{ {LAN} . 53 }}")
    assert reached(walls, [(LAN, 53)]) == set()
    assert wrong(walls) == ["set resolvers is changed"]
    place.run(walls.writer.repair)
    assert reached(walls, [(LAN, 53), (LAN, 80)]) == both((LAN, 53))
    place.command("nft", "add", "element", "inet", table, "resolvers", f"{{ {LAN} . 80 }}")
    assert wrong(walls) == ["set resolvers is changed"]
    # A table that is flushed altogether, as others do it.
    place.command("nft", "flush", "table", "inet", table)
    assert "chain of_egress is changed" in wrong(walls)
    place.run(walls.writer.repair)
    assert reached(walls, [(LAN, 53), (LAN, 80), (PUBLIC, 80)]) == both((LAN, 53), (PUBLIC, 80))
    assert place.run(lambda: nft.altered(walls.host, nft.listed(walls.host))) == []


def test_who_reaches_the_platforms_address_on_the_host_is_answered(walls: Walls) -> None:
    """What has begun elsewhere is answered, also by a socket of egress's own."""
    platform = str(walls.host.platform_address)
    with Server(walls.lab.host, [5300], address=platform, uid=walls.host.users.egress):
        assert reaches(walls.lab.host, platform, 5300) == "yes"
        assert reached(walls, [(platform, 5300)]) == set()
