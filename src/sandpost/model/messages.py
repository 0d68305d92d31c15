"""What the processes of one host say to each other, as typed values.

Two unix sockets carry them, one value a packet (`sandpost.ipc`): the controller's, where proxies, api and
collector are clients, and the supervisor's, where every child and the operator's command line are clients.
The first packet of a client is always `Hello`. `seq` pairs an answer with its question on one connection.
Bump `VERSION` when a message changes its meaning; processes of neighbouring releases meet during a restart.
"""

from typing import Literal, NamedTuple

import msgspec

from sandpost.model.ends import End
from sandpost.model.errors import Fault
from sandpost.model.limits import EngineName, Tenant
from sandpost.model.runtimes import DEFAULT

VERSION = 3

Part = Literal["supervisor", "controller", "proxy", "api", "collector", "egress", "cli"]
Phase = Literal["starting", "pooled", "assigned", "draining", "gone"]


class _Message(msgspec.Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """Base: a tag names the type on the wire, defaults are left out."""


class Hello(_Message, frozen=True, kw_only=True):
    """First packet of every client."""

    part: Part
    index: int = 0
    pid: int
    version: int = VERSION


class Refusal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A typed error on its way to a caller (fields as in `SandpostError`)."""

    reason: str
    status: int
    message: str
    fault: Fault = "platform"
    retryable: bool = False
    retry_after: int | None = None


class RouteKey(NamedTuple):
    """Which calls a sandbox takes: its tenant's, of programs that run on its runtime and choose its set of modules."""

    tenant: str
    runtime: str
    modules: str
    """Empty: none."""


class Route(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where one sandbox of a tenant answers. `exclusive`: for one call alone (isolation `per_request`).

    `leaving`: takes no new calls. `output`: bytes a second of its tenant's output that are kept, 0: all, None: what the
    host says.
    """

    sandbox_id: str
    tenant: str
    runtime: str = DEFAULT
    modules: str = ""
    """The set of modules that it is of (`model.choices`); empty: of none."""
    host: str
    port: int
    exclusive: bool = False
    leaving: bool = False
    output: int | None = None

    @property
    def key(self) -> RouteKey:
        """What it is found by."""
        return RouteKey(self.tenant, self.runtime, self.modules)


# --- proxy, collector -> controller ---------------------------------------------------------------------


class Ask(_Message, frozen=True, kw_only=True):
    """A proxy needs a sandbox for a tenant; answered by `Granted` or `Refused` with the same `seq`."""

    seq: int
    tenant: Tenant
    runtime: str = DEFAULT
    modules: str = ""
    """The set of modules that its programs choose, where those of one sandbox must have the same."""
    exclusive: bool = False
    req_id: str = ""
    """Of the call that could not go on without; others wait with it."""
    trace_id: str = ""
    """Of the same call, if it belongs to a trace."""

    @property
    def key(self) -> RouteKey:
        """What a route that answers it is found by."""
        return RouteKey(self.tenant.name, self.runtime, self.modules)


class Ack(_Message, frozen=True, kw_only=True):
    """This proxy holds no route to, and no connection with, the sandbox of `Gone(seq)` any more."""

    seq: int


class Activity(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one proxy saw of one sandbox since its last report; `in_flight` is the present value."""

    sandbox_id: str
    in_flight: int = 0
    calls: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


class Report(_Message, frozen=True, kw_only=True):
    """Activities since the last report, sent once a second where there are any."""

    activities: list[Activity]


class Suspect(_Message, frozen=True, kw_only=True):
    """A sandbox does not answer its probe, or broke the wire.

    `deadline`: silent for a second after a call's deadline, to be ended now. `loop`: silent for
    `blocked_after`; ended if its CPU time grew. `broken`: its framing or wire version is not ours.
    `cpu`: a call has run for `silent_for`, longer than its CPU seconds take at full speed; ended if it and those beside
    it (`calls` in all) used theirs.
    """

    sandbox_id: str
    kind: Literal["deadline", "loop", "broken", "cpu"]
    silent_for: float
    detail: str = ""
    calls: int = 1


class Finished(_Message, frozen=True, kw_only=True):
    """The one call of an exclusive sandbox is over: end it as `done`."""

    sandbox_id: str


class Named(_Message, frozen=True, kw_only=True):
    """The runtime said which call ends this sandbox now: the calls of every other worker are its neighbours."""

    sandbox_id: str


class Replace(_Message, frozen=True, kw_only=True):
    """The runtime asks for a successor (memory of unloaded programs not freed): make it, then drain this."""

    sandbox_id: str


# --- controller -> proxy, collector ----------------------------------------------------------------------


class Table(_Message, frozen=True, kw_only=True):
    """Part of the whole route table, sent after `Hello`; `last` ends it. Routes not in it are gone."""

    routes: list[Route]
    last: bool


class Assigned(_Message, frozen=True, kw_only=True):
    """A route begins. A tenant's earlier route of the same runtime and modules is superseded for new calls."""

    route: Route


class Granted(_Message, frozen=True, kw_only=True):
    """Answer to `Ask`; `Assigned` for the same route has been sent before."""

    seq: int
    route: Route


class Refused(_Message, frozen=True, kw_only=True):
    """Answer to `Ask`: no sandbox, and why."""

    seq: int
    refusal: Refusal


class Leaving(_Message, frozen=True, kw_only=True):
    """The sandbox takes no new calls; those in flight finish."""

    sandbox_id: str


class Hit(_Message, frozen=True, kw_only=True):
    """A limit was met that ends nothing; calls of this sandbox that fail now are told so."""

    sandbox_id: str
    text: str


class Gone(_Message, frozen=True, kw_only=True):
    """The sandbox has ended; `message` says which limit and how much. Proxies answer `Ack(seq)`.

    `setting` and `limit`: which limit of the tenant's it met and what that was, where the end has one. `named`: as
    `Named` says.
    """

    seq: int
    sandbox_id: str
    tenant: str
    word: End
    message: str
    setting: str = ""
    limit: int | float = 0
    named: bool = False


# --- controller <-> egress -------------------------------------------------------------------------------


class Way(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One sandbox's way out. `address` is its own inside address; `egress` its tenant's policy (`model.egress`)."""

    sandbox_id: str
    tenant: str
    address: str
    egress: str


class Ways(_Message, frozen=True, kw_only=True):
    """Part of all ways, sent after `Hello`; `last` ends it. Sandboxes not in it are gone."""

    ways: list[Way]
    last: bool


class WayOpened(_Message, frozen=True, kw_only=True):
    """A way begins, or its policy has changed. It ends by `Gone`, which egress answers by `Ack` like a proxy."""

    way: Way


class Noted(_Message, frozen=True, kw_only=True):
    """Egress to controller: something for the tenant's own log.

    `kind` is one word for figures (such as `name_refused`); `times` how often it happened since the last such note.
    """

    sandbox_id: str
    kind: str
    text: str
    times: int = 1


# --- api <-> controller ----------------------------------------------------------------------------------


class ListSandboxes(_Message, frozen=True, kw_only=True):
    """Ask for all sandboxes, or a tenant's; answered by `Sandboxes`."""

    seq: int
    tenant: str | None = None


class SandboxInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One sandbox as `sandpost ps` shows it. Times are seconds since the epoch, sizes bytes."""

    sandbox_id: str
    phase: Phase
    tenant: str | None = None
    runtime: str = DEFAULT
    modules: str = ""
    engine: EngineName = "runc"
    started_at: float
    assigned_at: float | None = None
    last_call_at: float | None = None
    calls: int = 0
    in_flight: int = 0
    memory: int = 0
    cpu_seconds: float = 0.0
    pids: int = 0


class Sandboxes(_Message, frozen=True, kw_only=True):
    """Answer to `ListSandboxes`, in parts; `last` ends it."""

    seq: int
    items: list[SandboxInfo]
    last: bool


class AskStatus(_Message, frozen=True, kw_only=True):
    """Ask how the controller is; answered by `Status`."""

    seq: int


class RuntimeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Sandboxes of one runtime."""

    pool: int
    pool_target: int
    assigned: int


class Status(_Message, frozen=True, kw_only=True):
    """Figures of a host. Memory in bytes; `ends` counts by word since the controller started."""

    seq: int
    pool: int
    pool_target: int
    starting: int
    assigned: int
    draining: int
    waiting: int
    memory_used: int
    memory_limit: int
    starts: int
    ends: dict[str, int]
    proxies: int
    uptime: float
    runtimes: dict[str, RuntimeStatus] = {}
    """Those that have a pool or a sandbox."""


class TenantChanged(_Message, frozen=True, kw_only=True):
    """The store has a new version of this tenant: take up its limits; a suspended one's sandboxes end."""

    seq: int
    tenant: Tenant


class TenantRemoved(_Message, frozen=True, kw_only=True):
    """The tenant's rows are gone: end its sandboxes."""

    seq: int
    name: str


class Engines(_Message, frozen=True, kw_only=True):
    """The engines that registered tenants are set to: each gets a pool of its own, like the host's."""

    engines: list[EngineName]
    alone: list[EngineName | None] = []
    """Those of `per_request` tenants; None: the host's."""


class Done(_Message, frozen=True, kw_only=True):
    """Answer to `TenantChanged` and `TenantRemoved`."""

    seq: int


class UsageItem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a tenant used in one hour's part. `memory_seconds` are byte-seconds."""

    tenant: str
    hour: int
    calls: int = 0
    cpu_seconds: float = 0.0
    memory_seconds: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0
    ends: dict[str, int] = {}


class Usage(_Message, frozen=True, kw_only=True):
    """Usage since the last acknowledged one; the api adds it to the store and answers `UsageTaken`."""

    batch: str
    items: list[UsageItem]


class UsageTaken(_Message, frozen=True, kw_only=True):
    """The batch is durable. A batch seen before is acknowledged again and not added twice."""

    batch: str


# --- children <-> supervisor -------------------------------------------------------------------------------


class Ready(_Message, frozen=True, kw_only=True):
    """The child does its job from now on (a proxy: it accepts)."""


class Hold(_Message, frozen=True, kw_only=True):
    """Controller: hold these three FIFOs (stdout, stderr, frames: read ends attached) from now on."""

    sandbox_id: str
    held_at: float


class Held(_Message, frozen=True, kw_only=True):
    """Supervisor: the FIFOs of `Hold` are held, a reader's death reaches no writer."""

    sandbox_id: str


class Release(_Message, frozen=True, kw_only=True):
    """Controller: the sandbox is gone; read what is left and close. Passed on to the collector."""

    sandbox_id: str


class Streams(_Message, frozen=True, kw_only=True):
    """Supervisor to collector: three read ends attached, in the order of `Hold`."""

    sandbox_id: str


class RecordsSocket(_Message, frozen=True, kw_only=True):
    """Supervisor to collector: attached is the socket to which all parts send `Records`."""


class Exited(_Message, frozen=True, kw_only=True):
    """Supervisor to controller: a process that we reaped and did not start (a sandbox's) has ended."""

    pid: int
    status: int


class Listen(_Message, frozen=True, kw_only=True):
    """Supervisor to proxy: accept on the attached listening socket of worker `index` too, until `Unlisten`."""

    index: int


class Unlisten(_Message, frozen=True, kw_only=True):
    """Supervisor to proxy: worker `index` accepts again; stop accepting on its socket, close our copy."""

    index: int


class GiveListeners(_Message, frozen=True, kw_only=True):
    """Supervisor (restarted) to proxy: send your listening sockets, `Listeners` with them attached."""


class Listeners(_Message, frozen=True, kw_only=True):
    """Proxy to supervisor: the indices of the attached listening sockets."""

    indices: list[int]


class Retire(_Message, frozen=True, kw_only=True):
    """Supervisor to child: finish what is under way within `timeout` seconds and exit."""

    timeout: float


class Reload(_Message, frozen=True, kw_only=True):
    """Supervisor to child: read the host file again and take up what can change."""


class Stop(_Message, frozen=True, kw_only=True):
    """Command line to supervisor: stop everything; answered by `Stopped`."""


class Restart(_Message, frozen=True, kw_only=True):
    """Command line to supervisor: renew every process one after another; answered by `Restarted`."""


class Restarted(_Message, frozen=True, kw_only=True):
    """All processes have been renewed; `streams_cut` counts streams that met `drain_timeout`."""

    pids: dict[str, int]
    error: str = ""


class Stopped(_Message, frozen=True, kw_only=True):
    """Supervisor's last word to the command line: nothing is left, or why something is (`error`).

    An end of the connection without it proves nothing: the supervisor was killed, or sent the peer away.
    """

    error: str = ""


# --- every part -> collector, as datagrams -------------------------------------------------------------------


class Records(msgspec.Struct, frozen=True, kw_only=True):
    """Records of one stream in their order: `count` lines of JSON, each with its line end. `at`: time of the last."""

    stream: str
    count: int
    at: float
    lines: bytes


ToController = (
    Hello | Ask | Ack | Report | Suspect | Finished | Named | Replace
    | ListSandboxes | AskStatus | TenantChanged | TenantRemoved | Engines | UsageTaken | Noted
)  # fmt: skip
FromController = (
    Table | Assigned | Granted | Refused | Leaving | Gone | Hit | Ways | WayOpened
    | Sandboxes | Status | Done | Usage
)  # fmt: skip
ToSupervisor = Hello | Ready | Hold | Release | Listeners | Stop | Restart
FromSupervisor = (
    Held | Release | Streams | RecordsSocket | Exited | Listen | Unlisten | GiveListeners | Retire | Reload | Restarted
    | Stopped
)  # fmt: skip
