"""The few nf_tables and conntrack messages that ways out need (linux/netfilter/nf_tables.h), packed by hand.

Elements of sets, and chains of the one rule that counts connections, change by one transaction, sent and acknowledged
in one piece: a tenth of a millisecond, however many elements there are. All other rules are loaded by `nft`, once.
"""

import errno
import os
import socket
import struct
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Self

_HEADER = struct.Struct("=IHHII")
_GENERIC = struct.Struct("!BBH")
_ATTRIBUTE = struct.Struct("=HH")
_BE32 = struct.Struct("!I")
_BE64 = struct.Struct("!Q")
_INT = struct.Struct("=i")

_NETLINK_NETFILTER = 12
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_NFTABLES, _CTNETLINK = 10, 1
_GROUP_NFTABLES = 7
_ERROR, _DONE, _BATCH_BEGIN, _BATCH_END = 2, 3, 16, 17
_REQUEST, _ACK, _DUMP, _CREATE = 0x1, 0x4, 0x300, 0x400
_NESTED = 0x8000
_INET = 1
"""NFPROTO_INET: the family of our table."""

_NEWCHAIN, _DELCHAIN, _NEWRULE, _DELRULE = 3, 5, 6, 8
_CHAIN_TABLE, _CHAIN_NAME = 1, 3
_RULE_TABLE, _RULE_CHAIN, _RULE_EXPRESSIONS = 1, 2, 4
_META_REGISTER, _META_KEY, _META_MARK = 1, 2, 3
_DYNSET_NAME, _DYNSET_OPERATION, _DYNSET_KEY, _DYNSET_EXPR = 1, 3, 4, 7
_DYNSET_ADD = 0
_CONNLIMIT_COUNT, _CONNLIMIT_FLAGS = 1, 2
_CONNLIMIT_OVER = 1
_IMMEDIATE_REGISTER, _IMMEDIATE_DATA = 1, 2
_VERDICT_REGISTER, _FIRST_REGISTER = 0, 1
_NEWSETELEM, _GETSETELEM, _DELSETELEM = 12, 13, 14
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS, _LIST_ELEM = 1, 2, 3, 1
_ELEM_KEY, _ELEM_DATA, _ELEM_EXPR, _ELEM_KEY_END, _ELEM_EXPRESSIONS = 1, 2, 7, 10, 11
_DATA_VALUE, _DATA_VERDICT, _VERDICT_CODE, _VERDICT_CHAIN = 1, 2, 1, 2
_JUMP, _GOTO = 0xFFFFFFFD, 0xFFFFFFFC
_EXPR_NAME, _EXPR_DATA = 1, 2
_LIMIT_RATE, _LIMIT_UNIT, _LIMIT_BURST, _LIMIT_TYPE, _LIMIT_FLAGS = 1, 2, 3, 4, 5
_OVER = 1
_COUNTER_PACKETS = 2

_CT_GET, _CT_DELETE = 1, 2
_CTA_TUPLE_ORIG, _CTA_ZONE, _CTA_FILTER = 1, 18, 25
_CTA_TUPLE_IP, _CTA_IP_V4_SRC = 1, 1
_CTA_FILTER_ORIG_FLAGS = 1
_FILTER_IP_SRC = 1 << 0

_RECEIVE = 1 << 16
_SO_SNDBUFFORCE = 32
_LARGEST = 16 << 20
_PATIENCE = 5.0


@dataclass(frozen=True, slots=True)
class Element:
    """One element of the set or map `set_name`. `end` closes an interval, `data` is a map's value.

    `expression` is run by the kernel whenever the element is found.
    """

    set_name: str
    key: bytes
    end: bytes = b""
    data: bytes = b""
    expression: bytes = b""


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain of our table with the one rule `rule`, packed."""

    name: str
    rule: bytes


def value(data: bytes) -> bytes:
    """Return the data of a map's element: a plain value."""
    return _attribute(_DATA_VALUE, data)


def goto(chain: str) -> bytes:
    """Return the data of a verdict map's element: go to `chain`, and not come back."""
    return _verdict(_GOTO, chain)


def jump(chain: str) -> bytes:
    """Return the data of a verdict map's element: look into `chain`, and come back if it decides nothing."""
    return _verdict(_JUMP, chain)


def packets_over(rate: int, burst: int) -> bytes:
    """Return the expression that is true for packets beyond `rate` a second, after `burst`."""
    return _limit(rate, burst, kind=0)


def bytes_over(rate: int, burst: int) -> bytes:
    """Return the expression that is true for packets beyond `rate` bytes a second.

    The kernel's bucket holds a second's worth and `burst` bytes.
    """
    return _limit(rate, burst, kind=1)


def counting(set_name: str, most: int, refuse: str) -> bytes:
    """Return the rule `add @SET_NAME { meta mark ct count over MOST } goto REFUSE`: a count for each mark."""
    count = _number(_CONNLIMIT_COUNT, most) + _number(_CONNLIMIT_FLAGS, _CONNLIMIT_OVER)
    add = b"".join(
        (
            _text(_DYNSET_NAME, set_name),
            _number(_DYNSET_OPERATION, _DYNSET_ADD),
            _number(_DYNSET_KEY, _FIRST_REGISTER),
            _nested(_DYNSET_EXPR, _expression("connlimit", count)),
        )
    )
    mark = _number(_META_REGISTER, _FIRST_REGISTER) + _number(_META_KEY, _META_MARK)
    then = _number(_IMMEDIATE_REGISTER, _VERDICT_REGISTER) + _nested(_IMMEDIATE_DATA, goto(refuse))
    expressions = (_expression("meta", mark), _expression("dynset", add), _expression("immediate", then))
    return b"".join(_nested(_LIST_ELEM, one) for one in expressions)


def _verdict(code: int, chain: str) -> bytes:
    return _nested(_DATA_VERDICT, _attribute(_VERDICT_CODE, _BE32.pack(code)) + _text(_VERDICT_CHAIN, chain))


def _limit(rate: int, burst: int, *, kind: int) -> bytes:
    data = b"".join(
        (
            _attribute(_LIMIT_RATE, _BE64.pack(rate)),
            _attribute(_LIMIT_UNIT, _BE64.pack(1)),
            _attribute(_LIMIT_BURST, _BE32.pack(burst)),
            _attribute(_LIMIT_TYPE, _BE32.pack(kind)),
            _attribute(_LIMIT_FLAGS, _BE32.pack(_OVER)),
        )
    )
    return _expression("limit", data)


def _expression(name: str, data: bytes) -> bytes:
    return _text(_EXPR_NAME, name) + _nested(_EXPR_DATA, data)


def pack(
    table: str,
    remove: Sequence[Element],
    add: Sequence[Element],
    flush: Sequence[str] = (),
    *,
    chains: Sequence[Chain] = (),
    drop: Sequence[str] = (),
) -> tuple[bytes, int]:
    """Return one transaction and the number of its last message, which alone is acknowledged (errors always are).

    It empties the sets `flush`, drops the chains `drop`, to which nothing else leads, makes `chains` or makes them
    anew, then removes and then adds elements.
    """
    asked = [(_DELSETELEM, 0, _text(_LIST_TABLE, table) + _text(_LIST_SET, name)) for name in flush]
    asked += [(_DELCHAIN, 0, _text(_CHAIN_TABLE, table) + _text(_CHAIN_NAME, name)) for name in drop]
    for chain in chains:
        asked.append((_NEWCHAIN, _CREATE, _text(_CHAIN_TABLE, table) + _text(_CHAIN_NAME, chain.name)))
        rules = _text(_RULE_TABLE, table) + _text(_RULE_CHAIN, chain.name)
        asked.append((_DELRULE, 0, rules))
        asked.append((_NEWRULE, _CREATE, rules + _nested(_RULE_EXPRESSIONS, chain.rule)))
    for kind, flags, elements in ((_DELSETELEM, 0, remove), (_NEWSETELEM, _CREATE, add)):
        for one in elements:
            payload = _text(_LIST_TABLE, table) + _text(_LIST_SET, one.set_name)
            payload += _nested(_LIST_ELEMENTS, _nested(_LIST_ELEM, _element(one, whole=kind == _NEWSETELEM)))
            asked.append((kind, flags, payload))
    parts = [_message(_BATCH_BEGIN, 0, 0, b"", family=0, resource=_NFTABLES)]
    for number, (kind, flags, payload) in enumerate(asked, 1):
        acknowledge = _ACK if number == len(asked) else 0
        parts.append(_message(_NFTABLES << 8 | kind, flags | acknowledge, number, payload))
    parts.append(_message(_BATCH_END, 0, len(asked) + 1, b"", family=0, resource=_NFTABLES))
    return b"".join(parts), len(asked)


def _element(one: Element, *, whole: bool) -> bytes:
    packed = _nested(_ELEM_KEY, _attribute(_DATA_VALUE, one.key))
    if one.end:
        packed += _nested(_ELEM_KEY_END, _attribute(_DATA_VALUE, one.end))
    if whole and one.data:
        packed += _nested(_ELEM_DATA, one.data)
    if whole and one.expression:
        packed += _nested(_ELEM_EXPR, one.expression)
    return packed


class Netfilter:
    """A netlink socket of the calling thread's network namespace. One thread at a time."""

    def __init__(self, table: str) -> None:
        self._table = table
        self._socket = _open()
        self._socket.settimeout(_PATIENCE)
        # A transaction is one packet: that of a new table has the elements of all sandboxes.
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _LARGEST)

    @property
    def port(self) -> int:
        """Who we are to the kernel: notices of our own changes carry it."""
        port: int = self._socket.getsockname()[0]
        return port

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def change(
        self,
        remove: Sequence[Element],
        add: Sequence[Element],
        flush: Sequence[str] = (),
        *,
        chains: Sequence[Chain] = (),
        drop: Sequence[str] = (),
    ) -> None:
        """Do what `pack` says in one transaction; `OSError` if nothing of it was done."""
        data, last = pack(self._table, remove, add, flush, chains=chains, drop=drop)
        if not last:
            return
        self._socket.send(data)
        first, done = 0, False
        while not done:
            for kind, number, _, payload in messages(self._socket.recv(_RECEIVE)):
                if kind == _ERROR:
                    first = first or -_INT.unpack_from(payload)[0]
                    done |= number == last
        if first:
            raise OSError(first, f"{os.strerror(first)} (elements or chains of table {self._table})")

    def counted(self, set_name: str) -> dict[bytes, int]:
        """Return the elements of a set whose elements count packets: key to packets."""
        payload = _text(_LIST_TABLE, self._table) + _text(_LIST_SET, set_name)
        found: dict[bytes, int] = {}
        for part in self._dump(_NFTABLES << 8 | _GETSETELEM, payload, _INET):
            for element in _attributes(dict(_attributes(part)).get(_LIST_ELEMENTS, b"")):
                fields = dict(_attributes(element[1]))
                found[dict(_attributes(fields[_ELEM_KEY]))[_DATA_VALUE]] = _packets(fields)
        return found

    def has(self, one: Element) -> bool:
        """Whether the element is there."""
        payload = _text(_LIST_TABLE, self._table) + _text(_LIST_SET, one.set_name)
        payload += _nested(_LIST_ELEMENTS, _nested(_LIST_ELEM, _element(one, whole=False)))
        self._socket.send(_message(_NFTABLES << 8 | _GETSETELEM, _ACK, 1, payload))
        number = self._answer()
        if number not in {0, errno.ENOENT}:
            raise OSError(number, f"{os.strerror(number)} (set {one.set_name} of table {self._table})")
        return number == 0

    def forget_connections(self, source: IPv4Address) -> None:
        """Delete every tracked connection that `source` began. 5 ms, or 50 before Linux 6.6, of a large empty table."""
        address = _nested(_CTA_TUPLE_IP, _attribute(_CTA_IP_V4_SRC, source.packed))
        flags = _attribute(_CTA_FILTER_ORIG_FLAGS, struct.pack("=I", _FILTER_IP_SRC))
        wanted = _nested(_CTA_TUPLE_ORIG, address) + _nested(_CTA_FILTER, flags)
        if self._delete_connections(wanted, {errno.EINVAL}):
            return
        # Before 6.6 the kernel lists by address, but deletes one tuple or everything.
        found = [dict(_attributes(one)) for one in self._dump(_CTNETLINK << 8 | _CT_GET, wanted, socket.AF_INET)]
        for one in found:
            named = _nested(_CTA_TUPLE_ORIG, one[_CTA_TUPLE_ORIG])
            if _CTA_ZONE in one:
                named += _attribute(_CTA_ZONE, one[_CTA_ZONE])
            self._delete_connections(named)

    def _delete_connections(self, which: bytes, cannot: Container[int] = ()) -> bool:
        """Delete; False for an error of `cannot`. What is not there, or has ended meanwhile, is well."""
        self._socket.send(_message(_CTNETLINK << 8 | _CT_DELETE, _ACK, 1, which, family=socket.AF_INET))
        number = self._answer()
        if number in {0, errno.ENOENT}:
            return True
        if number in cannot:
            return False
        raise OSError(number, f"{os.strerror(number)} (tracked connections)")

    def _answer(self) -> int:
        """Read up to the acknowledgement of one message; return its error."""
        while True:
            for kind, _, _, answer in messages(self._socket.recv(_RECEIVE)):
                if kind == _ERROR:
                    return -int(_INT.unpack_from(answer)[0])

    def _dump(self, kind: int, payload: bytes, family: int) -> Iterator[bytes]:
        self._socket.send(_message(kind, _DUMP, 1, payload, family=family))
        while True:
            for found, _, _, answer in messages(self._socket.recv(_RECEIVE)):
                if found == _DONE:
                    return
                if found == _ERROR:
                    number = -_INT.unpack_from(answer)[0]
                    raise OSError(number, f"{os.strerror(number)} (listing of table {self._table})")
                yield answer[_GENERIC.size :]


class Notices:
    """Hears of every change to nf_tables in this network namespace, whoever makes it."""

    def __init__(self, table: str) -> None:
        self._table = table.encode() + b"\0"
        self._socket = _open()
        self._socket.setblocking(False)
        self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP_NFTABLES)

    def fileno(self) -> int:
        """Return the descriptor, readable when there is news."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def altered(self, ours: int) -> bool:
        """Read all news; say whether somebody but port `ours` changed the table, or news were lost."""
        found = False
        while True:
            try:
                datagram = self._socket.recv(_RECEIVE)
            except BlockingIOError:
                return found
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                found = True
                continue
            for kind, _, port, payload in messages(datagram):
                if kind >> 8 != _NFTABLES or port == ours:
                    continue
                # The table's name is the first attribute of all that has one (of a table itself, too).
                first = next(_attributes(payload[_GENERIC.size :]), (0, b""))
                found |= first == (_LIST_TABLE, self._table)


def messages(datagram: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield type, number, port and payload of every message in a datagram; what is cut short ends it."""
    offset = 0
    while offset + _HEADER.size <= len(datagram):
        length, kind, _, number, port = _HEADER.unpack_from(datagram, offset)
        if length < _HEADER.size or offset + length > len(datagram):
            return
        yield kind, number, port, datagram[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            return
        yield kind & ~_NESTED, data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3


def _packets(element: dict[int, bytes]) -> int:
    """Return what the counter of an element says; with several expressions the kernel lists them."""
    expressions = [element[_ELEM_EXPR]] if _ELEM_EXPR in element else []
    expressions += [one for _, one in _attributes(element.get(_ELEM_EXPRESSIONS, b""))]
    for expression in expressions:
        fields = dict(_attributes(expression))
        if fields.get(_EXPR_NAME) == b"counter\0":
            packets: int = _BE64.unpack(dict(_attributes(fields[_EXPR_DATA]))[_COUNTER_PACKETS])[0]
            return packets
    return 0


def _open() -> socket.socket:
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
    made.bind((0, 0))
    return made


def _message(kind: int, flags: int, number: int, payload: bytes, *, family: int = _INET, resource: int = 0) -> bytes:
    length = _HEADER.size + _GENERIC.size + len(payload)
    return _HEADER.pack(length, kind, _REQUEST | flags, number, 0) + _GENERIC.pack(family, 0, resource) + payload


def _attribute(kind: int, data: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(data)
    return _ATTRIBUTE.pack(length, kind) + data + bytes(-length % 4)


def _nested(kind: int, data: bytes) -> bytes:
    return _attribute(kind | _NESTED, data)


def _number(kind: int, number: int) -> bytes:
    return _attribute(kind, _BE32.pack(number))


def _text(kind: int, text: str) -> bytes:
    return _attribute(kind, text.encode() + b"\0")
