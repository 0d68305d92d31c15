"""Connections that are none, put into a place's table of connections, so that it is as full as a test wants it."""

import errno
import itertools
import socket
import struct

from support.lab import Place

_NETLINK_NETFILTER, _NEW, _ERROR = 12, 1 << 8, 2
_REQUEST, _CREATE, _EXCLUSIVE = 0x1, 0x400, 0x200
_ORIGINAL, _REPLY, _STATUS, _TIMEOUT = 1, 2, 3, 7
_SEEN_REPLY, _ASSURED, _CONFIRMED = 2, 4, 8
_SECONDS = 3600
_AT_ONCE = 500
_NESTED = 0x8000
_UDP = 17


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def _tuple(kind: int, source: bytes, target: bytes, ports: tuple[int, int]) -> bytes:
    addresses = _attribute(1 | _NESTED, _attribute(1, source) + _attribute(2, target))
    source_port, target_port = (struct.pack("!H", port) for port in ports)
    numbers = _attribute(1, bytes([_UDP])) + _attribute(2, source_port) + _attribute(3, target_port)
    return _attribute(kind | _NESTED, addresses + _attribute(2 | _NESTED, numbers))


def _entry(number: int) -> bytes:
    """A flow of UDP between two addresses that are nobody's, of which the kernel gives none up for another."""
    source, target, ports = struct.pack("!I", 0x0B000000 + number), b"\x0b\xff\xff\xff", (1024, 1024)
    payload = struct.pack("!BBH", socket.AF_INET, 0, 0)
    payload += _tuple(_ORIGINAL, source, target, ports) + _tuple(_REPLY, target, source, ports)
    payload += _attribute(_STATUS, struct.pack("!I", _SEEN_REPLY | _ASSURED | _CONFIRMED))
    payload += _attribute(_TIMEOUT, struct.pack("!I", _SECONDS))
    flags = _REQUEST | _CREATE | _EXCLUSIVE
    return struct.pack("=IHHII", 16 + len(payload), _NEW, flags, number, 0) + payload


_numbers = itertools.count(1)


def room(place: Place) -> tuple[int, int]:
    """How many connections a place tracks, and how many it has room for."""
    return int(place.setting("netfilter/nf_conntrack_count")), int(place.setting("netfilter/nf_conntrack_max"))


def fill(place: Place, leave: int = 0) -> None:
    """Fill a place's table but for `leave` connections."""
    place.run(lambda: _fill(*room(place), leave))


def empty(place: Place) -> None:
    """Forget every connection of a place."""
    place.run(_flush)


def _fill(count: int, most: int, leave: int) -> None:
    with _open() as sock:
        missing = most - leave - count
        while missing > 0:
            part = min(missing, _AT_ONCE)
            sock.send(b"".join(_entry(next(_numbers)) for _ in range(part)))
            missing -= part
            if _refused(sock):
                break


def _flush() -> None:
    with _open() as sock:
        payload = struct.pack("!BBH", socket.AF_INET, 0, 0)
        sock.send(struct.pack("=IHHII", 16 + len(payload), _NEW | 2, _REQUEST, 1, 0) + payload)


def _open() -> socket.socket:
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
    made.bind((0, 0))
    made.setsockopt(socket.SOL_SOCKET, 32, 1 << 22)  # SO_SNDBUFFORCE
    return made


def _refused(sock: socket.socket) -> bool:
    """Whether the kernel had no room for one. It answers nothing else to what it has done."""
    refused = False
    while True:
        try:
            data = sock.recv(1 << 16, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return refused
        kind, error = struct.unpack_from("=H", data, 4)[0], -struct.unpack_from("=i", data, 16)[0]
        assert (kind, error) == (_ERROR, errno.ENOMEM), (kind, error)
        refused = True
