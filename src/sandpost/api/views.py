"""What the management routes take and give, as types; the OpenAPI document is generated from them.

Times are seconds since the epoch, durations seconds, sizes bytes.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from sandpost.auth.keys import Key
from sandpost.model.bounds import BOUNDS
from sandpost.model.ends import End
from sandpost.model.limits import EngineName, Isolation, Limits, TenantState
from sandpost.model.messages import Phase, SandboxInfo, Status, UsageItem
from sandpost.model.modules import ModuleRecord, ModuleState, Registry
from sandpost.model.specs import parse_spec
from sandpost.store import TenantRecord

_WRITTEN = {
    "size": "Bytes, or text such as `64MiB`; null: the default again.",
    "duration": "Seconds, or text such as `5s`; null: the default again.",
    "count": "A whole number; null: the default again.",
    "share": "A number such as 0.5; null: the default again.",
}
MAX_EGRESS = 16384
_EGRESS = (
    "What the tenant's code reaches outside: `public`, `none`, or `allow:` and up to 256 domains, addresses and blocks "
    "such as `allow:api.example.com:443,*.example.org,203.0.113.0/24`."
)
LimitsChange: Any = msgspec.defstruct(
    "LimitsChange",
    [
        (name, Annotated[int | float | str | UnsetType | None, Meta(description=_WRITTEN[bound.kind])], UNSET)
        for name, bound in BOUNDS.items()
    ],
    frozen=True,
    forbid_unknown_fields=True,
)
"""Limits to set; what is left out stays as it is, null puts a limit back to the host's default."""


class TenantChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to set of a tenant; what is left out stays as it is, or is the default of a new tenant."""

    state: TenantState | UnsetType = UNSET
    isolation: Isolation | UnsetType = UNSET
    egress: Annotated[str, Meta(max_length=MAX_EGRESS, description=_EGRESS)] | UnsetType = UNSET
    engine: Annotated[
        EngineName | UnsetType | None,
        Meta(description="What makes its sandboxes; null: the host's `engine.runtime` again."),
    ] = UNSET
    limits: LimitsChange | UnsetType = UNSET


class TenantView(msgspec.Struct, frozen=True, kw_only=True):
    """A registered tenant. `limits` are those in force, `own` names those that were set for this tenant.

    `engine` null: the host's.
    """

    name: str
    state: TenantState
    isolation: Isolation
    egress: str
    engine: EngineName | None
    limits: Limits
    own: list[str]
    created_at: float

    @classmethod
    def of(cls, record: TenantRecord, defaults: Limits) -> "TenantView":
        """Return the view of a record."""
        tenant = record.tenant(defaults)
        own = sorted(record.limits.keys() & BOUNDS.keys())
        return cls(
            name=record.name,
            state=record.state,
            isolation=record.isolation,
            egress=record.egress,
            engine=record.engine,
            limits=tenant.limits,
            own=own,
            created_at=record.created_at,
        )


class TenantPut(TenantView, frozen=True, kw_only=True):
    """A tenant as it is from now on. `applied`: the controller has taken it up; if not, it will when it is back."""

    applied: bool


class Tenants(msgspec.Struct, frozen=True, kw_only=True):
    """A page of tenants by name. `next`: ask again with `after` of this value for more; null: that was all."""

    tenants: list[TenantView]
    next: str | None


class NewKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key to make. The label is for people: 0 to 100 letters."""

    label: Annotated[str, Meta(max_length=100)] = ""


class KeyView(msgspec.Struct, frozen=True, kw_only=True):
    """A key without its secret. `tenant` null: the operator's."""

    id: str
    tenant: str | None
    label: str
    created_at: float

    @classmethod
    def of(cls, key: Key) -> "KeyView":
        """Return what may be shown of a key."""
        return cls(id=key.id, tenant=key.tenant, label=key.label, created_at=key.created_at)


class MadeKey(KeyView, frozen=True, kw_only=True):
    """A key just made; `key` is shown this once."""

    key: str


class Keys(msgspec.Struct, frozen=True, kw_only=True):
    """A page of keys by id, with `next` as of tenants."""

    keys: list[KeyView]
    next: str | None


class UsageHour(msgspec.Struct, frozen=True, kw_only=True):
    """What a tenant used in the hour that began at `hour`. `memory_seconds` are byte-seconds."""

    hour: int
    calls: int
    cpu_seconds: float
    memory_seconds: float
    bytes_in: int
    bytes_out: int
    ends: dict[str, int]

    @classmethod
    def of(cls, item: UsageItem) -> "UsageHour":
        """Return the view of one stored hour."""
        return cls(
            hour=item.hour * 3600,
            calls=item.calls,
            cpu_seconds=item.cpu_seconds,
            memory_seconds=item.memory_seconds,
            bytes_in=item.bytes_in,
            bytes_out=item.bytes_out,
            ends=item.ends,
        )


class UsageTotal(msgspec.Struct, frozen=True, kw_only=True):
    """The sum of the hours."""

    calls: int
    cpu_seconds: float
    memory_seconds: float
    bytes_in: int
    bytes_out: int
    ends: dict[str, int]


class UsageView(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant's usage by hour, oldest first; hours without any are left out."""

    tenant: str
    since: int
    hours: list[UsageHour]
    total: UsageTotal

    @classmethod
    def of(cls, tenant: str, since_hour: int, items: list[UsageItem]) -> "UsageView":
        """Return the view of stored hours with their sum."""
        ends: dict[str, int] = {}
        for item in items:
            for word, count in item.ends.items():
                ends[word] = ends.get(word, 0) + count
        total = UsageTotal(
            calls=sum(item.calls for item in items),
            cpu_seconds=sum(item.cpu_seconds for item in items),
            memory_seconds=sum(item.memory_seconds for item in items),
            bytes_in=sum(item.bytes_in for item in items),
            bytes_out=sum(item.bytes_out for item in items),
            ends=ends,
        )
        return cls(tenant=tenant, since=since_hour * 3600, hours=[UsageHour.of(item) for item in items], total=total)


class SandboxView(msgspec.Struct, frozen=True, kw_only=True):
    """One sandbox. `tenant` null: in the pool."""

    sandbox_id: str
    phase: Phase
    tenant: str | None
    runtime: str
    modules: str
    """The set of modules that its programs have, where all of them have the same."""
    engine: EngineName
    started_at: float
    assigned_at: float | None
    last_call_at: float | None
    calls: int
    in_flight: int
    memory: int
    cpu_seconds: float
    pids: int

    @classmethod
    def of(cls, info: SandboxInfo) -> "SandboxView":
        """Return the view of what the controller says."""
        return cls(**{name: getattr(info, name) for name in cls.__struct_fields__})


class SandboxesView(msgspec.Struct, frozen=True, kw_only=True):
    """Sandboxes, oldest first."""

    sandboxes: list[SandboxView]


class RuntimeView(msgspec.Struct, frozen=True, kw_only=True):
    """Sandboxes of one runtime: ready, kept ready, serving a tenant."""

    pool: int
    pool_target: int
    assigned: int


class ControllerView(msgspec.Struct, frozen=True, kw_only=True):
    """How the controller is. `ends` counts by word since it started."""

    pool: int
    pool_target: int
    starting: int
    assigned: int
    draining: int
    waiting: int
    memory_used: int
    memory_limit: int
    starts: int
    ends: dict[End, int]
    proxies: int
    uptime: float
    runtimes: dict[str, RuntimeView]

    @classmethod
    def of(cls, status: Status) -> "ControllerView":
        """Return the view of what the controller says."""
        own = {name: getattr(status, name) for name in cls.__struct_fields__ if name != "runtimes"}
        runtimes = {
            name: RuntimeView(pool=one.pool, pool_target=one.pool_target, assigned=one.assigned)
            for name, one in status.runtimes.items()
        }
        return cls(**own, runtimes=runtimes)


class StatusView(msgspec.Struct, frozen=True, kw_only=True):
    """How this installation is. `controller` null: it does not answer. `problems` say what to do, [] is well."""

    version: str
    instance: int
    state_dir: str
    listen: str
    tenants: int
    keys: int
    controller: ControllerView | None
    problems: list[str]


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Every error: `code` is the status, `reason` one word, `fault` whose it is, `message` says what to do.

    `limit` is what a limit allows (bytes, seconds, calls) and `setting` the limit's name; `allow` are a path's methods;
    `component` is the part that is away. Only the errors that they say something of have them.
    """

    code: int
    reason: str
    fault: Literal["caller", "code", "platform"]
    retryable: bool
    message: str
    req_id: str
    limit: float | UnsetType = UNSET
    setting: str | UnsetType = UNSET
    allow: list[str] | UnsetType = UNSET
    component: str | UnsetType = UNSET


class ModulesAsked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Modules to make available: `npm:lodash@4.17.21`, `pypi:httpx==0.28.1`.

    `scripts`: run their own install scripts (npm), or build them from their source where there is no wheel (PyPI).
    """

    modules: Annotated[list[Annotated[str, Meta(max_length=512)]], Meta(min_length=1, max_length=100)]
    scripts: bool = False


class Collection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What stays besides all that is neither failed nor an older version.

    `keep`: that many of the newest versions of each package; `older_than`: what is available for less long. Without
    either, what failed is removed alone.
    """

    keep: Annotated[int, Meta(ge=0, le=1000)] | None = None
    older_than: Annotated[
        float | str | None, Meta(description="Seconds, or text such as `90d`; null: whatever its age.")
    ] = None


class ModuleView(msgspec.Struct, frozen=True, kw_only=True):
    """A module. `reason` says why it failed or what it waits for; `size` and `files` count all that it depends on.

    `digest` is the SHA-256 of what was unpacked; `integrity`, by `name@version`, are the hashes by which the registry's
    archives were checked. It is left out of lists.
    """

    spec: str
    registry: Registry
    name: str
    version: str
    state: ModuleState
    reason: str
    scripts: bool
    asked_at: float
    done_at: float | None
    size: int
    files: int
    digest: str
    integrity: dict[str, str] | UnsetType = UNSET

    @classmethod
    def of(cls, record: ModuleRecord, *, whole: bool = False) -> "ModuleView":
        """Return the view of a record; `whole`: with the hashes of all packages in it."""
        spec = parse_spec(record.spec)
        own = {name: getattr(record, name) for name in record.__struct_fields__ if name != "integrity"}
        integrity = record.integrity if whole else UNSET
        return cls(**own, registry=spec.registry, name=spec.name, version=spec.version, integrity=integrity)


class Modules(msgspec.Struct, frozen=True, kw_only=True):
    """A page of modules by their specs, with `next` as of tenants."""

    modules: list[ModuleView]
    next: str | None = None


LOG_END = "x-sandpost-log-end"
"""Header of a stream of records: an offset behind the last one that was there when it was opened."""


class LogRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One record of a stream, in bunyan's form; there may be further fields. docs/logs.md has each.

    `offset` grows strictly within a stream; what the platform says of the stream itself may be without. `end` is why a
    stream ends, in its last record; `missing` how many records are not there any more (at most), `next` from where it
    goes on instead of from the offset that was asked for.
    """

    name: str
    hostname: str
    pid: int
    level: int
    time: str
    msg: str
    v: int
    offset: int | UnsetType = UNSET
    container: str | UnsetType = UNSET
    req_id: str | UnsetType = UNSET
    sandbox: bool | UnsetType = UNSET
    sandbox_id: str | UnsetType = UNSET
    end: str | UnsetType = UNSET
    missing: int | UnsetType = UNSET
    next: int | UnsetType = UNSET
