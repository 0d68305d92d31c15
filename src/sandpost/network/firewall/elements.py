"""What stands in the table's sets for each sandbox and tenant, and what changes when one comes or goes. Pure."""

import itertools
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, collapse_addresses

from sandpost.model.egress import Egress
from sandpost.model.host import Host
from sandpost.model.limits import Limits
from sandpost.network import nfnetlink
from sandpost.network.addresses import link
from sandpost.network.firewall import render
from sandpost.network.nfnetlink import Element

BANDWIDTH_BURST = 1 << 17
"""Bytes that a bucket holds besides a second's worth: the kernel hands on up to 64 KiB as one packet."""
_IFNAMSIZ = 16
_LARGEST = (1 << 31) - 1
"""The largest number of a tenant."""
_CHAINS = {"public": "public", "allow": "listed"}


@dataclass(frozen=True, slots=True)
class Way:
    """One sandbox's way out: whose it is and what its tenant may. All ways of a tenant share one budget."""

    tenant: str
    egress: Egress
    limits: Limits


@dataclass(frozen=True, slots=True)
class Change:
    """What one transaction removes and then adds, so that `slot` has `way`, or none."""

    slot: int
    way: Way | None
    remove: tuple[Element, ...]
    add: tuple[Element, ...]


@dataclass(slots=True)
class _Tenant:
    number: int
    elements: tuple[Element, ...] = ()
    slots: set[int] = field(default_factory=set)


class Book:
    """What the kernel has been told: who has a way, and the number of each tenant. `numbers`: those that stand."""

    def __init__(self, host: Host, numbers: Mapping[str, int] | None = None) -> None:
        self._host = host
        self._numbers = dict(numbers or {})
        # Numbers go round: the kernel may still count what the tenant who had one before has left open.
        self._next = max(self._numbers.values(), default=0) + 1
        self._tenants: dict[str, _Tenant] = {}
        self._ways: dict[int, tuple[Way, tuple[Element, ...]]] = {}

    @property
    def elements(self) -> list[Element]:
        """Everything that must stand in the table."""
        own = itertools.chain.from_iterable(elements for _, elements in self._ways.values())
        shared = itertools.chain.from_iterable(tenant.elements for tenant in self._tenants.values())
        return [*own, *shared]

    def change(self, slot: int, way: Way | None) -> Change:
        """Return what makes `way` the way of `slot`; None: it has none any more. Nothing is taken up yet."""
        old = self._ways.get(slot)
        leaves = old is not None and (way is None or way.tenant != old[0].tenant)
        remove = list(old[1]) if old is not None else []
        if old is not None and leaves and self._tenants[old[0].tenant].slots == {slot}:
            remove += self._tenants[old[0].tenant].elements
        add: list[Element] = []
        if way is not None:
            tenant = self._tenants.get(way.tenant)
            number = tenant.number if tenant is not None else self._number(way.tenant)
            add = [*_of_slot(self._host, slot, way, number), *_of_tenant(way, number)]
            remove += tenant.elements if tenant is not None else ()
        kept = set(remove) & set(add)
        return Change(
            slot, way, tuple(one for one in remove if one not in kept), tuple(one for one in add if one not in kept)
        )

    def take(self, change: Change) -> None:
        """The kernel has taken `change`."""
        slot, way = change.slot, change.way
        old = self._ways.pop(slot, None)
        if old is not None and (way is None or way.tenant != old[0].tenant):
            left = self._tenants[old[0].tenant]
            left.slots.discard(slot)
            if not left.slots:
                del self._tenants[old[0].tenant]
                self._numbers.pop(old[0].tenant, None)
        if way is None:
            return
        tenant = self._tenants.get(way.tenant)
        if tenant is None:
            tenant = self._tenants[way.tenant] = _Tenant(self._number(way.tenant))
            self._numbers[way.tenant] = tenant.number
            self._next = tenant.number % _LARGEST + 1
        tenant.slots.add(slot)
        tenant.elements = tuple(_of_tenant(way, tenant.number))
        self._ways[slot] = (way, tuple(_of_slot(self._host, slot, way, tenant.number)))

    def way(self, slot: int) -> Way | None:
        """Return the way of a slot."""
        found = self._ways.get(slot)
        return found[0] if found is not None else None

    @property
    def slots(self) -> frozenset[int]:
        """Slots that have a way, or are known to have none by policy."""
        return frozenset(self._ways)

    def number(self, tenant: str) -> int | None:
        """Return the number of a tenant that has a way."""
        found = self._tenants.get(tenant)
        return found.number if found is not None else None

    def counts(self) -> set[int]:
        """Return every limit of connections that some tenant has."""
        return {way.limits.connections for way, elements in self._ways.values() if elements} - {0}

    def marks(self) -> dict[tuple[str, str], int]:
        """Return interface, address and tenant's number of everybody who has a way."""
        found = {}
        for slot, (way, elements) in self._ways.items():
            if elements:
                one = link(self._host, slot)
                found[one.interface, str(one.sandbox_address)] = self._tenants[way.tenant].number
        return found

    def sizes(self) -> dict[str, int]:
        """Return how many elements each set has."""
        counts = Counter(one.set_name for one in self.elements)
        return {name: counts[name] for name in render.WRITTEN}

    def _number(self, tenant: str) -> int:
        known = self._numbers.get(tenant)
        if known is not None:
            return known
        taken = set(self._numbers.values())
        number = self._next
        while number in taken:
            number = number % _LARGEST + 1
        return number


def key_of(host: Host, slot: int) -> bytes:
    """Return interface and address of a slot as the kernel keeps them in one key."""
    one = link(host, slot)
    return one.interface.encode().ljust(_IFNAMSIZ, b"\0") + one.sandbox_address.packed


def mark_of(number: int) -> bytes:
    """Return a tenant's number as the kernel keeps a mark."""
    return struct.pack("=I", number)


def resolvers(host: Host) -> set[Element]:
    """Return what lets egress reach this host's resolvers, wherever they are."""
    return {
        Element(render.RESOLVERS + ("" if address.version == 4 else "6"), address.packed + struct.pack("!HH", port, 0))
        for address, port in host.resolver_addresses
    }


def _of_slot(host: Host, slot: int, way: Way, number: int) -> Iterator[Element]:
    if way.egress.kind == "none":
        return
    key = key_of(host, slot)
    yield Element(render.TENANTS, key, data=nfnetlink.value(mark_of(number)))
    if way.egress.kind == "allow":
        yield Element(render.GATED, key)
        address = link(host, slot).sandbox_address
        for first, last in _blocks(way.egress):
            yield Element(render.BLOCKS, address.packed + first, end=address.packed + last)


def _of_tenant(way: Way, number: int) -> Iterator[Element]:
    chain = _CHAINS.get(way.egress.kind)
    if chain is None:
        return
    mark, limits = mark_of(number), way.limits
    yield Element(render.POLICIES, mark, data=nfnetlink.goto(chain))
    if limits.connection_rate:
        expression = nfnetlink.packets_over(limits.connection_rate, limits.connection_rate)
        yield Element(render.RATES, mark, expression=expression)
    if limits.connections:
        yield Element(render.CONNECTIONS, mark, data=nfnetlink.jump(f"{render.COUNT_CHAIN}{limits.connections}"))
    for name, rate in ((render.BANDWIDTH_IN, limits.bandwidth_in), (render.BANDWIDTH_OUT, limits.bandwidth_out)):
        if rate:
            yield Element(name, mark, expression=nfnetlink.bytes_over(rate, BANDWIDTH_BURST))


def _blocks(egress: Egress) -> Iterator[tuple[bytes, bytes]]:
    """Yield first and last key (address, port) of what an allow-list names by address, none overlapping another.

    The kernel takes no interval that lies in another one or across it: where entries meet, they are cut and joined.
    """
    edges = sorted({edge for block in egress.blocks for first, last in block.ports for edge in (first, last + 1)})
    spans: dict[IPv4Network, list[list[int]]] = {}
    for first, after in itertools.pairwise(edges):
        meant = (block.network for block in egress.blocks if any(low <= first <= high for low, high in block.ports))
        for network in collapse_addresses(meant):
            known = spans.setdefault(network, [])
            if known and known[-1][1] == first - 1:
                known[-1][1] = after - 1
            else:
                known.append([first, after - 1])
    for network, ports in spans.items():
        for low, high in ports:
            first_key, last_key = (
                address.packed + struct.pack("!HH", port, 0)
                for address, port in ((network.network_address, low), (network.broadcast_address, high))
            )
            yield first_key, last_key
