"""The firewall of an installation in a lab, and slots as sandboxes have them, without anything running in them."""

import contextlib
import itertools
import os

from sandpost.model.egress import parse_egress
from sandpost.model.host import Host
from sandpost.model.limits import Limits
from sandpost.network import addresses, firewall, namespaces
from support.installation import host_in
from support.lab import Lab, Place, until


class Walls:
    """The firewall of an installation in a lab. `slot` makes the inside of a sandbox, `open` opens its way."""

    slots = itertools.count(1)
    """None is used twice in a run: the kernel takes its time to remove one, and remembers what it refused it."""

    def __init__(self, made: Lab, host: Host) -> None:
        self.lab = made
        self.host = host
        self.writer = made.host.run(firewall.Writer, host)
        self._stack = contextlib.ExitStack()
        self._stack.callback(self.writer.close)

    def slot(self) -> tuple[int, Place]:
        """Return a slot of its own, and its inside."""
        slot = next(self.slots)
        fd = self.lab.host.run(namespaces.make, addresses.link(self.host, slot))
        self._stack.callback(os.close, fd)
        place = Place(fd)
        self._stack.callback(place.close)
        # The kernel takes a moment to see that both ends are up; what is sent before is lost.
        interface = addresses.link(self.host, slot).interface
        for where, name in ((place, "eth0"), (self.lab.host, interface)):
            assert until(lambda where=where, name=name: "state UP" in where.command("ip", "link", "show", name))  # type: ignore[misc]
        return slot, place

    def open(self, slot: int, egress: str = "public", tenant: str = "", **limits: int) -> None:
        """Open the way of a slot; its tenant is its own unless one is named."""
        wanted = {"connection_rate": 0, **limits}
        way = firewall.Way(tenant or f"tenant-{slot}", parse_egress(egress), Limits(**wanted))
        self.lab.host.run(self.writer.open, slot, way)

    def sandbox(self, egress: str = "public", tenant: str = "", **limits: int) -> tuple[int, Place]:
        """Return a slot with a way, and its inside."""
        slot, place = self.slot()
        self.open(slot, egress, tenant, **limits)
        return slot, place

    def address(self, slot: int) -> str:
        """Return a sandbox's address."""
        return str(self.host.slot_addresses(slot)[1])

    def close(self) -> None:
        """Remove all slots."""
        self._stack.close()


def host(instance: int = 15) -> Host:
    """An installation of which nothing is there, for what is pure."""
    return host_in("/nowhere", instance=instance, sandbox_network=f"198.{18 + instance // 8}.{instance % 8 * 32}.0/19")
