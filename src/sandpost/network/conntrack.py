"""The kernel's table of connections, which all of the machine shares: how full it is, and what tenants get of it.

Nine tenths are tenants'. In a second all of them together may begin half of the connections that are left of those,
so that they never fill the rest. When the table is that full, whosever connections they are, it is crowded: tenants
begin none, and calls do without it (`firewall.render`).
"""

import contextlib
from dataclasses import dataclass

HELP = "raise it: `sysctl -w net.netfilter.nf_conntrack_max=1048576`, or lower `limits.connections`"

_COUNT = "/proc/sys/net/netfilter/nf_conntrack_count"
_MAX = "/proc/sys/net/netfilter/nf_conntrack_max"
_FULL, _ROOMY = 0.9, 0.85
_STEPS = 64
"""Paces differ by a part of the table so large, so that they do not change with every connection."""


@dataclass(frozen=True, slots=True)
class Tracked:
    """How many connections are in the table, and how many have room; both 0 where the kernel does not say."""

    count: int
    room: int

    @property
    def full(self) -> bool:
        """Whether it fills up: when it is full the kernel drops new connections, whosever they are."""
        return self.room > 0 and self.count >= _FULL * self.room

    @property
    def roomy(self) -> bool:
        """Whether one that was full is so no more."""
        return self.count < _ROOMY * self.room

    @property
    def pace(self) -> int:
        """How many connections tenants together may begin a second; 0: the kernel does not say what there is."""
        step = self.room // _STEPS
        return max(step, int(_FULL * self.room - self.count) // 2 // step * step) if step else 0


def read() -> Tracked:
    """Read it now."""
    with contextlib.suppress(OSError), open(_COUNT, "rb") as count, open(_MAX, "rb") as room:
        return Tracked(int(count.read()), int(room.read()))
    return Tracked(0, 0)
