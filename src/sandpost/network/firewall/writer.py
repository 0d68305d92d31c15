"""The one writer of the table's sets: opens ways out, closes them, reads what was hit, repairs what was altered."""

import errno
import time
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from sandpost.model.errors import EngineError, HostUnfit
from sandpost.model.host import Host
from sandpost.network import nfnetlink
from sandpost.network.addresses import link, slot_at, slot_of
from sandpost.network.firewall import nft, readback, render
from sandpost.network.firewall.elements import Book, Change, Way, mark_of, resolvers
from sandpost.network.nfnetlink import Chain, Element, Netfilter, Notices

_IPV4, _IPV6 = b"\x02", b"\x0a"
"""Families as `meta nfproto` has them."""
_RESOLVERS = (render.RESOLVERS, f"{render.RESOLVERS}6")
NAMES = 3
"""Refused addresses that are told with a hit."""


@dataclass(frozen=True, slots=True)
class Hit:
    """The sandbox of a slot met a wall `times` since the last look. `addresses`: some that it was refused."""

    slot: int
    kind: str
    times: int
    addresses: tuple[str, ...] = field(default=())


class Writer:
    """See the module. Lives in one thread, but for `look` and `forget_connections`. A change takes 0.1 ms."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._netfilter = Netfilter(host.nft_table)
        self._notices = Notices(host.nft_table)
        self._book = Book(host)
        self._guarded: frozenset[str] = frozenset()
        # What there is room for, whosever connections.
        self._admitted: tuple[Element, ...] = ()
        # Until then the kernel may keep talks that began while it was crowded.
        self._talks_until = 0.0
        self._seen: dict[str, dict[bytes, int]] = {}
        # Limits of connections that have their chain.
        self._counts: set[int] = set()
        # Slots of which the kernel does not know any more whether they opened connections.
        self._unsure: set[int] = set()

    @property
    def notices(self) -> int:
        """A descriptor that is readable when somebody changed nf_tables; `altered` reads it."""
        return self._notices.fileno()

    def close(self) -> None:
        """Let go; what stands in the table stays."""
        self._netfilter.close()
        self._notices.close()

    def begin(self, ways: Mapping[int, Way]) -> None:
        """Make `ways` all that are open, in one transaction; who has one already keeps it. Raises `EngineError`."""
        listing = nft.listed(self._host) or {"nftables": []}
        numbers: dict[str, int] = {}
        for (interface, _), number in readback.tenants(listing).items():
            slot = slot_of(self._host, interface)
            if slot is not None and slot in ways and number not in numbers.values():
                numbers.setdefault(ways[slot].tenant, number)
        self._book = Book(self._host, numbers)
        for slot, way in ways.items():
            self._book.take(self._book.change(slot, way))
        self._counts = readback.counts(listing)
        wanted = self._wanted_counts()
        self._write(
            [],
            [*self._book.elements, *resolvers(self._host)],
            [*render.WRITTEN, render.GUARDED, render.CROWDED, render.PACE, *_RESOLVERS],
            counts=wanted,
            drop=readback.count_chains(listing) - {_chain_of(limit) for limit in wanted},
        )
        self._counts = wanted
        # Who has gone may have left connections, which must not count for the next one of his number.
        limits = {self._book.number(way.tenant): way.limits.connections for way in ways.values()}
        for number, limit in readback.counted(listing).items():
            if limits.get(number) != limit:
                self._count_anew(number)
        self._guarded, self._admitted = frozenset(), ()
        self._talks_until = time.monotonic() + render.KEPT_SECONDS
        self._unsure = set(ways) if not numbers else set()
        self.altered()

    def take_up(self, host: Host) -> None:
        """Let egress ask the resolvers that `host` names, and those it had no longer. Raises `EngineError`."""
        self._host = host
        self._write([], resolvers(host), _RESOLVERS)

    def open(self, slot: int, way: Way) -> None:
        """Open the way of a slot, or change it. Raises `EngineError`: then it is as it was."""
        before, number = self._book.way(slot), self._book.number(way.tenant)
        self._apply(self._book.change(slot, way), {way.limits.connections} - {0})
        if number is not None and before is not None and before.limits.connections != way.limits.connections:
            self._count_anew(number)

    def shut(self, slot: int) -> None:
        """Close the way of a slot, if it has one. Raises `EngineError`."""
        self._apply(self._book.change(slot, None))

    def guard(self, uplinks: frozenset[str]) -> None:
        """Let nothing that comes in by these interfaces be forwarded but answers to sandboxes."""
        if uplinks == self._guarded:
            return
        self._write(
            [_interface(name) for name in self._guarded - uplinks],
            [_interface(name) for name in uplinks - self._guarded],
        )
        self._guarded = uplinks

    def admit(self, pace: int, *, crowded: bool) -> None:
        """Let all sandboxes together begin `pace` connections a second (0: as many as they like).

        While it is `crowded` they begin none, and what proxies and clients begin is kept out of the kernel's table.
        """
        if crowded:
            self._talks_until = time.monotonic() + render.KEPT_SECONDS
        wanted = [Element(render.CROWDED, family) for family in (_IPV4, _IPV6) if crowded]
        if pace:
            wanted.append(Element(render.PACE, _IPV4, expression=nfnetlink.packets_over(pace, pace)))
        if tuple(wanted) != self._admitted:
            self._write(self._admitted, wanted)
            self._admitted = tuple(wanted)

    # --- what was hit ---------------------------------------------------------------------------------------

    def hits(self) -> list[Hit]:
        """Return what was hit since the last call; some 0.1 ms where nothing was."""
        found = []
        named: dict[int, list[str]] | None = None
        for kind in render.KINDS:
            for key, times in self._grown(f"hit_{kind}"):
                slot = slot_at(self._host, IPv4Address(key))
                if slot is None:
                    continue
                if kind.endswith("_refused"):
                    named = self._named() if named is None else named
                    found.append(Hit(slot, kind, times, tuple(named.get(slot, ())[:NAMES])))
                else:
                    found.append(Hit(slot, kind, times))
        return found

    def _named(self) -> dict[int, list[str]]:
        named: dict[int, list[str]] = {}
        for key, _ in self._grown(render.REFUSED):
            slot = slot_at(self._host, IPv4Address(key[:4]))
            if slot is not None:
                named.setdefault(slot, []).append(str(IPv4Address(key[4:])))
        return named

    def _grown(self, set_name: str) -> list[tuple[bytes, int]]:
        counted = self._netfilter.counted(set_name)
        before = self._seen.get(set_name, {})
        self._seen[set_name] = counted
        # One that was forgotten meanwhile has begun to count anew.
        grown = ((key, now - before.get(key, 0) if now >= before.get(key, 0) else now) for key, now in counted.items())
        return [(key, more) for key, more in grown if more]

    # --- connections of who is gone -------------------------------------------------------------------------

    def forget_connections(self, slot: int) -> bool:
        """Delete what the kernel tracks of a slot whose sandbox is gone; say whether there may have been anything.

        For any thread: looking through the kernel's table takes milliseconds. Then `forgotten`.
        """
        address = link(self._host, slot).sandbox_address
        with Netfilter(self._host.nft_table) as own:
            if slot not in self._unsure and not own.has(Element(render.OPENED, address.packed)):
                return False
            own.forget_connections(address)
        return True

    def forgotten(self, slot: int) -> None:
        """The slot has no connections any more."""
        self._unsure.discard(slot)
        opened = Element(render.OPENED, link(self._host, slot).sandbox_address.packed)
        if self._netfilter.has(opened):
            self._write([opened], [])

    def forget_talks(self, slot: int) -> None:
        """Forget what was begun, while it was crowded, with a sandbox that is gone. Raises `EngineError`."""
        if time.monotonic() > self._talks_until:
            return
        address = link(self._host, slot).sandbox_address.packed
        talks = [key for key in self._netfilter.counted(render.TALKS) if key.startswith(address)]
        self._write([Element(render.TALKS, key) for key in talks], [])

    # --- what others do -------------------------------------------------------------------------------------

    def altered(self) -> bool:
        """Whether somebody else changed the table since the last call, as far as notices tell."""
        return self._notices.altered(self._netfilter.port)

    def look(self) -> Callable[[], list[str]]:
        """Read the table (in any thread); what is returned says, in the writer's thread, what is wrong with it."""
        before = self._book.marks()
        listing = nft.listed(self._host)

        def judge() -> list[str]:
            wrong = nft.altered(self._host, listing)
            if listing is None:
                return wrong
            after, found = self._book.marks(), readback.tenants(listing)
            if any(found.get(key) != number for key, number in before.items() if after.get(key) == number):
                wrong.append(f"map {render.TENANTS} lacks sandboxes")
            if any(number not in {before.get(key), after.get(key)} for key, number in found.items()):
                wrong.append(f"map {render.TENANTS} has who is not ours")
            if not self._counts <= readback.counts(listing):
                wrong.append("chains that count connections are changed")
            if readback.resolvers(listing) != {(str(one), port) for one, port in self._host.resolver_addresses}:
                wrong.append(f"set {render.RESOLVERS} is changed")
            if before == after and self._book.sizes() != readback.sizes(listing):
                wrong.append("sets of ways and limits are changed")
            return wrong

        return judge

    def repair(self) -> None:
        """Load the table anew and open every way again. 20 ms, or 80 with 1,000 sandboxes: none has a way out then."""
        try:
            nft.install(self._host)
        except HostUnfit as error:
            raise EngineError(error.message) from error
        self._counts = set()
        self._seen.clear()
        # Also of those whose ways are shut by now, and whose connections are still to be forgotten.
        self._unsure = set(range(self._host.slots))
        guarded, self._guarded = self._guarded, frozenset()
        elements = [*self._book.elements, *self._admitted, *resolvers(self._host)]
        self._write([], elements, counts=self._wanted_counts())
        self.guard(guarded)
        self.altered()

    # --- inside ---------------------------------------------------------------------------------------------

    def _apply(self, change: Change, counts: AbstractSet[int] = frozenset()) -> None:
        self._surely(lambda: self._write(change.remove, change.add, counts=counts))
        self._book.take(change)

    def _wanted_counts(self) -> set[int]:
        """Return the limits of connections of those who have a way, and of those who will most likely have one."""
        return (self._book.counts() | {self._host.defaults.connections}) - {0}

    def _surely(self, work: Callable[[], None]) -> None:
        try:
            work()
        except EngineError:
            # Somebody may have taken the table away, or emptied it, a moment ago.
            self.repair()
            work()

    def _count_anew(self, number: int) -> None:
        """Forget a tenant's count, which the kernel keeps together with the limit that it had."""
        try:
            self._netfilter.change([Element(render.COUNTED, mark_of(number))], [])
        except OSError as error:
            # The kernel forgets it by itself as soon as no connection is open.
            if error.errno != errno.ENOENT:
                raise EngineError(f"connections cannot be counted anew: {error}") from error

    def _write(
        self,
        remove: Iterable[Element],
        add: Iterable[Element],
        flush: Iterable[str] = (),
        *,
        counts: AbstractSet[int] = frozenset(),
        drop: Iterable[str] = (),
    ) -> None:
        """Change the table; limits `counts` have a chain then."""
        missing = counts - self._counts
        chains = [Chain(_chain_of(one), nfnetlink.counting(render.COUNTED, one, render.REFUSING)) for one in missing]
        try:
            self._netfilter.change(list(remove), list(add), list(flush), chains=chains, drop=list(drop))
        except OSError as error:
            raise EngineError(
                f"the firewall's table inet {self._host.nft_table} cannot be written: {error}: see `nft list ruleset`"
            ) from error
        self._counts |= missing


def _chain_of(limit: int) -> str:
    return f"{render.COUNT_CHAIN}{limit}"


def _interface(name: str) -> Element:
    return Element(render.GUARDED, name.encode().ljust(16, b"\0"))
