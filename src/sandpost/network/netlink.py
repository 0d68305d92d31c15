"""The few rtnetlink messages that a slot needs (rtnetlink(7), linux/if_link.h), packed by hand.

Several messages go out in one `sendmsg` and each is acknowledged: a slot costs a millisecond, where a
general library takes sixteen.
"""

import errno
import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Self

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_IFINFO = struct.Struct("=BxHiII")
_IFADDR = struct.Struct("=BBBBI")
_RTMSG = struct.Struct("=BBBBBBBBI")
_NDMSG = struct.Struct("=BxxxiHBB")
_INT = struct.Struct("=i")

_NLMSG_ERROR = 2
_RTM_NEWLINK, _RTM_DELLINK, _RTM_NEWADDR, _RTM_DELADDR, _RTM_NEWROUTE, _RTM_NEWNEIGH = 16, 17, 20, 21, 24, 28
_REQUEST, _ACK, _EXCL, _CREATE = 0x1, 0x4, 0x200, 0x400
_NESTED = 0x8000
_IFF_UP = 0x1
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_LINKINFO, _IFLA_AF_SPEC = 1, 3, 18, 26
_IFLA_NET_NS_FD, _IFLA_NUM_TX_QUEUES, _IFLA_NUM_RX_QUEUES = 28, 31, 32
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _VETH_INFO_PEER = 1, 2, 1
_IFLA_INET6_ADDR_GEN_MODE, _ADDR_GEN_NONE = 8, 1
_IFLA_INET_CONF, _IPV4_DEVCONF_FORWARDING = 1, 1
_RTA_OIF, _RTA_GATEWAY = 4, 5
_TABLE_MAIN, _PROTOCOL_BOOT, _SCOPE_UNIVERSE, _UNICAST = 254, 3, 0, 1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_NDA_DST, _NDA_LLADDR = 1, 2
_NUD_PERMANENT = 0x80
_LOOPBACK = 1
_RECEIVE = 65536


@dataclass(frozen=True, slots=True)
class Message:
    """One request: its type, its flags besides REQUEST and ACK, and its payload."""

    kind: int
    flags: int
    payload: bytes


def veth(name: str, mac: bytes, peer: str, peer_mac: bytes, peer_namespace: int) -> Message:
    """Make a pair: `name` here, `peer` in the namespace of descriptor `peer_namespace`. Neither makes IPv6 addresses.

    One queue each: veth would make one a processor, which costs memory and nothing else here.
    """
    inner = _IFINFO.pack(0, 0, 0, 0, 0) + b"".join(
        (
            _attribute(_IFLA_IFNAME, peer.encode() + b"\0"),
            _attribute(_IFLA_ADDRESS, peer_mac),
            _attribute(_IFLA_NET_NS_FD, _INT.pack(peer_namespace)),
            _attribute(_IFLA_NUM_TX_QUEUES, _INT.pack(1)),
            _attribute(_IFLA_NUM_RX_QUEUES, _INT.pack(1)),
        )
    )
    info = _attribute(_IFLA_INFO_KIND, b"veth\0") + _attribute(
        _IFLA_INFO_DATA | _NESTED, _attribute(_VETH_INFO_PEER | _NESTED, inner)
    )
    payload = _IFINFO.pack(0, 0, 0, 0, 0) + b"".join(
        (
            _attribute(_IFLA_IFNAME, name.encode() + b"\0"),
            _attribute(_IFLA_ADDRESS, mac),
            _attribute(_IFLA_NUM_TX_QUEUES, _INT.pack(1)),
            _attribute(_IFLA_NUM_RX_QUEUES, _INT.pack(1)),
            _attribute(_IFLA_LINKINFO | _NESTED, info),
        )
    )
    return Message(_RTM_NEWLINK, _CREATE | _EXCL, payload)


def no_ipv6_addresses(index: int) -> Message:
    """Keep the kernel from giving the interface a link-local address; before it is up."""
    mode = _attribute(_IFLA_INET6_ADDR_GEN_MODE, bytes([_ADDR_GEN_NONE]))
    spec = _attribute(_IFLA_AF_SPEC | _NESTED, _attribute(socket.AF_INET6 | _NESTED, mode))
    return Message(_RTM_NEWLINK, 0, _IFINFO.pack(0, 0, index, 0, 0) + spec)


def forwarding(index: int) -> Message:
    """Forward what comes in by this interface, whatever the machine does with others' packets."""
    setting = _attribute(_IFLA_INET_CONF | _NESTED, _attribute(_IPV4_DEVCONF_FORWARDING, _INT.pack(1)))
    spec = _attribute(_IFLA_AF_SPEC | _NESTED, _attribute(socket.AF_INET | _NESTED, setting))
    return Message(_RTM_NEWLINK, 0, _IFINFO.pack(0, 0, index, 0, 0) + spec)


def up(index: int) -> Message:
    """Set the interface up."""
    return Message(_RTM_NEWLINK, 0, _IFINFO.pack(0, 0, index, _IFF_UP, _IFF_UP))


def delete(name: str) -> Message:
    """Delete the interface with this name, and its peer."""
    return Message(_RTM_DELLINK, 0, _IFINFO.pack(0, 0, 0, 0, 0) + _attribute(_IFLA_IFNAME, name.encode() + b"\0"))


def address(index: int, ours: IPv4Address) -> Message:
    """Give the interface its address in a /31 (RFC 3021); the route to the other end comes with it."""
    payload = _IFADDR.pack(socket.AF_INET, 31, 0, 0, index)
    payload += _attribute(_IFA_LOCAL, ours.packed) + _attribute(_IFA_ADDRESS, ours.packed)
    return Message(_RTM_NEWADDR, _CREATE | _EXCL, payload)


def loopback_address(ours: IPv4Address, *, remove: bool = False) -> Message:
    """Give the loopback interface an address of its own, or take it away."""
    payload = _IFADDR.pack(socket.AF_INET, 32, 0, 0, _LOOPBACK) + _attribute(_IFA_LOCAL, ours.packed)
    return Message(_RTM_DELADDR, 0, payload) if remove else Message(_RTM_NEWADDR, _CREATE | _EXCL, payload)


def default_route(index: int, gateway: IPv4Address) -> Message:
    """Send whatever has no route of its own to `gateway`."""
    payload = _RTMSG.pack(
        socket.AF_INET, 0, 0, 0, _TABLE_MAIN, _PROTOCOL_BOOT, _SCOPE_UNIVERSE, _UNICAST, 0
    )  # fmt: skip
    payload += _attribute(_RTA_GATEWAY, gateway.packed) + _attribute(_RTA_OIF, _INT.pack(index))
    return Message(_RTM_NEWROUTE, _CREATE | _EXCL, payload)


def neighbour(index: int, theirs: IPv4Address, mac: bytes) -> Message:
    """Know the other end for ever, so that thousands of sandboxes do not fill the neighbour table's limits."""
    payload = _NDMSG.pack(socket.AF_INET, index, _NUD_PERMANENT, 0, 0)
    payload += _attribute(_NDA_DST, theirs.packed) + _attribute(_NDA_LLADDR, mac)
    return Message(_RTM_NEWNEIGH, _CREATE | _EXCL, payload)


def pack(messages: Sequence[Message]) -> bytes:
    """Return the bytes of a batch, numbered from 1."""
    parts = []
    for number, message in enumerate(messages, 1):
        flags = _REQUEST | _ACK | message.flags
        parts.append(_HEADER.pack(_HEADER.size + len(message.payload), message.kind, flags, number, 0))
        parts.append(message.payload)
    return b"".join(parts)


def errors(datagram: bytes) -> list[tuple[int, int]]:
    """Return the number and error (0: done) of every acknowledgement in a datagram."""
    found = []
    offset = 0
    while offset + _HEADER.size <= len(datagram):
        length, kind, _, number, _ = _HEADER.unpack_from(datagram, offset)
        if length < _HEADER.size:
            break
        if kind == _NLMSG_ERROR:
            found.append((number, -_INT.unpack_from(datagram, offset + _HEADER.size)[0]))
        offset += (length + 3) & ~3
    return found


class Netlink:
    """A netlink socket of the calling thread's network namespace."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.settimeout(5)
        self._socket.bind((0, 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def run(self, *messages: Message) -> None:
        """Run a batch in order; the first error is raised as `OSError`, after all have been answered."""
        self._socket.send(pack(messages))
        waiting = len(messages)
        first: tuple[int, int] | None = None
        while waiting:
            for number, error in errors(self._socket.recv(_RECEIVE)):
                waiting -= 1
                if error and (first is None or number < first[0]):
                    first = (number, error)
        if first is not None:
            raise OSError(first[1], f"{os.strerror(first[1])} (netlink message {first[0]} of {len(messages)})")

    def remove(self, name: str) -> bool:
        """Delete an interface; False if there was none."""
        try:
            self.run(delete(name))
        except OSError as error:
            if error.errno == errno.ENODEV:
                return False
            raise
        return True


def _attribute(kind: int, value: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + bytes(-length % 4)
