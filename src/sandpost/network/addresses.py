"""Which slot has which names and addresses, and the ring that slots are dealt from. Pure."""

from collections import deque
from dataclasses import dataclass
from ipaddress import IPv4Address

from sandpost.model.errors import NoRoom
from sandpost.model.host import Host


@dataclass(frozen=True, slots=True)
class Link:
    """The pair of interfaces of one slot: `interface` on the host, `eth0` in the sandbox, a /31 between them."""

    interface: str
    host_address: IPv4Address
    host_mac: bytes
    sandbox_address: IPv4Address
    sandbox_mac: bytes


def link(host: Host, slot: int) -> Link:
    """Return the names and addresses of `slot`."""
    ours, theirs = host.slot_addresses(slot)
    # Locally administered; the last four bytes are the address, so that no two sandboxes share one.
    return Link(
        interface=f"{host.interface_prefix}{slot:x}",
        host_address=ours,
        host_mac=b"\x02\x53" + ours.packed,
        sandbox_address=theirs,
        sandbox_mac=b"\x02\x53" + theirs.packed,
    )


def slot_of(host: Host, interface: str) -> int | None:
    """Return the slot whose interface on the host has this name; None for anybody else's."""
    prefix, tail = interface[: len(host.interface_prefix)], interface[len(host.interface_prefix) :]
    if prefix != host.interface_prefix:
        return None
    try:
        slot = int(tail, 16)
    except ValueError:
        return None
    return slot if f"{slot:x}" == tail and 0 <= slot < host.slots else None


def slot_at(host: Host, address: IPv4Address) -> int | None:
    """Return the slot whose sandbox has this address; None for any other address."""
    slot, side = divmod(int(address) - int(host.slot_addresses(0)[0]), 2)
    return slot if side == 1 and 0 <= slot < host.slots else None


class SlotRing:
    """Deals slots in a circle: one that came back is dealt again only after all others that are free.

    `first` is where the circle begins, so that a new process can go on where the last one stood.
    """

    def __init__(self, slots: int, *, first: int = 0) -> None:
        self._dealt: set[int] = set()
        self._free = deque((first + n) % slots for n in range(slots))

    @property
    def free(self) -> int:
        """How many slots could be dealt now."""
        return len(self._free)

    def deal(self) -> int:
        """Return a slot that nobody has; `NoRoom` if there is none."""
        if not self._free:
            raise NoRoom("all addresses are in use: set a larger `network.block`", retry_after=1)
        slot = self._free.popleft()
        self._dealt.add(slot)
        return slot

    def claim(self, slot: int) -> None:
        """Take a slot that a sandbox found at the start has already; `ValueError` if it is not free."""
        self._free.remove(slot)
        self._dealt.add(slot)

    def give_back(self, slot: int) -> None:
        """Take back a slot whose sandbox is gone and whose route every proxy has forgotten."""
        self._dealt.remove(slot)
        self._free.append(slot)
