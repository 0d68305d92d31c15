"""What the controller writes down of one sandbox: enough for the next controller to take it over."""

import msgspec

from sandpost.model.ends import End
from sandpost.model.limits import EngineName, Limits
from sandpost.model.messages import Phase
from sandpost.model.runtimes import DEFAULT
from sandpost.model.wire import VERSION as WIRE

VERSION = 1
"""Bump when a field changes its meaning. Readers take over every version up to theirs."""


EGRESS = -1
"""The worker number of egress, of which there is one."""


class ProxyKey(msgspec.Struct, frozen=True, order=True, array_like=True):
    """Which process that hears of ends: a proxy, or egress.

    Its pid as the kernel says, its worker number (egress: `EGRESS`), and field 22 of /proc/<pid>/stat.
    """

    pid: int
    index: int
    start_time: int = 0


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """`<run_dir>/records/<sandbox_id>.json`. Times are seconds of CLOCK_MONOTONIC, which all processes of a boot share.

    `phase` `pooled` means: never offered to anybody. `limits` are those in force on the group.
    """

    version: int = VERSION
    sandbox_id: str
    group_id: str
    slot: int
    phase: Phase
    runtime: str = DEFAULT
    modules: str = ""
    """The set of modules of its tenant's programs that it runs; empty: of none, or nobody's yet."""
    engine: EngineName = "runc"
    """What made it."""
    image: str
    limits: Limits
    started_at: float
    wire: int = WIRE
    pid: int = 0
    start_time: int = 0
    tenant: str | None = None
    egress: str = "none"
    """What its tenant may reach outside (`model.egress`)."""
    exclusive: bool = False
    owner: ProxyKey | None = None
    """The proxy whose one call an exclusive sandbox serves."""
    assigned_at: float | None = None
    calls: int = 0
    word: End | None = None
    message: str = ""
    named: bool = False
    """The runtime said which call ended it."""
