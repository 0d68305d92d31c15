"""What a tenant may use, and how it is set up. Values only; who enforces each is said beside it."""

from typing import Literal

import msgspec

Isolation = Literal["per_tenant", "per_request"]
TenantState = Literal["active", "suspended"]
EngineName = Literal["runc", "runsc"]
"""`runc`: programs call the host's kernel. `runsc`: gVisor's own kernel, a process a sandbox, stands between."""

MiB = 1 << 20


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one tenant. Sizes are bytes, durations seconds; 0 switches a limit off where it says so."""

    memory: int = 128 * MiB
    """Memory of all the tenant's sandboxes, without swap (cgroup)."""
    memory_guaranteed: int = 32 * MiB
    """Below this a sandbox is never evicted for memory (controller)."""
    cpu: float = 1.0
    """Cores (cgroup quota)."""
    pids: int = 64
    """Processes and threads (cgroup)."""
    tmp: int = 64 * MiB
    """Bytes of `/tmp` (tmpfs)."""
    tmp_inodes: int = 16384
    """Inodes of `/tmp` (tmpfs)."""
    files: int = 1024
    """Open files of a process (rlimit)."""
    code: int = 1 * MiB
    """Bytes of a program (proxy)."""
    body: int = 100 * MiB
    """Bytes of a request's body; 0 is off (proxy)."""
    calls: int = 100
    """Calls at once (proxy)."""
    rate: int = 0
    """Calls begun a second; 0 is off (proxy)."""
    deadline: float = 30.0
    """From the first byte handed to the sandbox to the end of the answer, 1 s to 1 h (proxy)."""
    blocked_after: float = 15.0
    """A loop that does not answer its probe for so long while it burns CPU is ended (proxy and controller)."""
    cpu_seconds: float = 0.0
    """CPU time that a call may use, children and work after earlier answers included; 0 is off (controller)."""
    upgrade_idle: float = 60.0
    """An upgraded connection without a byte for so long is ended (proxy)."""
    idle: float = 300.0
    """A sandbox without a call for so long is ended; 0 is off (controller)."""
    age: float = 86400.0
    """A sandbox this old is replaced; 0 is off (controller)."""
    count: int = 0
    """A sandbox that served so many calls is replaced; 0 is off (controller)."""
    output: int = 1 * MiB
    """Bytes a second of output that are kept; the rest is dropped and counted; 0 is off (collector)."""
    bandwidth_in: int = 12_500_000
    """Bytes a second from the internet, over all the tenant's sandboxes: 100 Mbit/s; 0 is off (firewall)."""
    bandwidth_out: int = 12_500_000
    """Bytes a second to the internet; 0 is off (firewall)."""
    connections: int = 256
    """Connections to the internet at once, UDP and ICMP counted as the kernel tracks them; 0 is off (firewall)."""
    connection_rate: int = 50
    """Connections to the internet begun a second; 0 is off (firewall)."""
    programs: int = 256
    """Programs that stay loaded in a sandbox (runtime)."""
    stored_code: int = 64 * MiB
    """Bytes of programs kept by hash (proxy)."""
    per_request_at_once: int = 2
    """Sandboxes at once of a `per_request` tenant; each has the tenant's limits divided by it (controller)."""


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant as the store knows it; an unregistered one is `Tenant(name=..)` with the host's defaults."""

    name: str
    state: TenantState = "active"
    isolation: Isolation = "per_tenant"
    limits: Limits = Limits()
    egress: str = "public"
    """What it may reach outside, as `model.egress` reads it."""
    engine: EngineName | None = None
    """Which OCI runtime makes its sandboxes; None: the host's (`engine.runtime`)."""
    registered: bool = False
