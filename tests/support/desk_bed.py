"""A controller's desk and fleet without a host: what they would do is noted, and starts end when the test says so."""

from dataclasses import dataclass, field

import msgspec

from sandpost.controller.desk import Desk, Policy
from sandpost.controller.lifecycle import Fleet, Sandbox
from sandpost.controller.record import ProxyKey, Record
from sandpost.model.errors import EngineError, MemoryInUse
from sandpost.model.limits import EngineName, Limits, Tenant
from sandpost.model.messages import Ask

PROXY = ProxyKey(1, 0, 1)


@dataclass
class Host:
    """What a controller would do, noted."""

    to_start: list[Sandbox] = field(default_factory=list)
    told: list[msgspec.Struct] = field(default_factory=list)
    limits: list[tuple[str, Limits]] = field(default_factory=list)
    """What was put in force on which group."""
    limits_fail: bool = False
    in_use: int = 0
    """Bytes that no group can be limited below."""
    ways: list[tuple[str, str, Limits]] = field(default_factory=list)
    """Whose ways were opened or changed, with policy and limits."""
    has_room: bool = True
    slots: int = 0

    def deal(self) -> int:
        self.slots += 1
        return self.slots

    def claim(self, slot: int) -> None: ...
    def give_back(self, slot: int) -> None: ...
    def write(self, record: Record) -> None: ...
    def erase(self, sandbox_id: str) -> None: ...
    def write_roster(self, proxies: object) -> None: ...
    def close_way(self, sandbox: Sandbox) -> None: ...
    def remove(self, sandbox: Sandbox) -> None: ...

    def open_way(self, sandbox: Sandbox) -> None:
        self.ways.append((sandbox.sandbox_id, sandbox.record.egress, sandbox.record.limits))

    def set_limits(self, group_id: str, limits: Limits, engine: EngineName) -> None:
        if self.limits_fail:
            raise EngineError("more is in use")
        self.limits.append((group_id, limits))
        if limits.memory < self.in_use:
            raise MemoryInUse("more is in use")

    def tell(self, proxy: ProxyKey | None, message: msgspec.Struct) -> None:
        self.told.append(message)

    def start(self, sandbox: Sandbox) -> None:
        self.to_start.append(sandbox)

    def fits(self, engine: EngineName, starting: list[EngineName]) -> bool:
        return self.has_room


class Bench:
    def __init__(self, pool: int = 1) -> None:
        self.host = Host()
        self.fleet = Fleet(self.host, self.host, host_port=lambda slot: (str(slot), 8000))
        policy = Policy(image="i", engine="runc", defaults=Limits(), pool_size=pool, parallel_starts=2, queue=9)
        self.desk = Desk(self.fleet, self.host, policy)
        self.seq = 0

    def ask(self, tenant: str, runtime: str, now: float = 1.0, *, exclusive: bool = False) -> None:
        self.seq += 1
        ask = Ask(seq=self.seq, tenant=Tenant(name=tenant), runtime=runtime, exclusive=exclusive)
        self.desk.ask(PROXY, ask, now)
        self.desk.pump(now)

    def finish(self, now: float = 1.0) -> None:
        while self.host.to_start:
            self.desk.ready(self.host.to_start.pop(0), 0.1, now)

    def groups(self, tenant: str) -> list[str]:
        return [one.record.group_id for one in self.fleet.tenants.get(tenant, {}).values()]
