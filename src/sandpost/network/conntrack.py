"""The kernel's table of connections, which all of the machine shares: how full it is."""

import contextlib
from dataclasses import dataclass

HELP = "raise it: `sysctl -w net.netfilter.nf_conntrack_max=1048576`, or lower `limits.connections`"

_COUNT = "/proc/sys/net/netfilter/nf_conntrack_count"
_MAX = "/proc/sys/net/netfilter/nf_conntrack_max"
_FULL = 0.9


@dataclass(frozen=True, slots=True)
class Tracked:
    """How many connections are in the table, and how many have room; both 0 where the kernel does not say."""

    count: int
    room: int

    @property
    def full(self) -> bool:
        """Whether it fills up: when it is full the kernel drops new connections, whosever they are."""
        return self.room > 0 and self.count >= _FULL * self.room


def read() -> Tracked:
    """Read it now."""
    with contextlib.suppress(OSError), open(_COUNT, "rb") as count, open(_MAX, "rb") as room:
        return Tracked(int(count.read()), int(room.read()))
    return Tracked(0, 0)
