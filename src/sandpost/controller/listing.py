"""What the api shows of sandboxes and of the host."""

import time
from collections.abc import Iterator

from sandpost.controller.desk import Desk
from sandpost.controller.lifecycle import Fleet, Sandbox
from sandpost.controller.meter import Meter
from sandpost.controller.room import Memory
from sandpost.model.messages import ListSandboxes, Sandboxes, SandboxInfo, Status

_PART = 300
"""Sandboxes in one message; each takes at most 400 bytes."""
_FRESH = 100
"""So many sandboxes are measured for an answer; of more, the last round's measure is shown."""


def infos(fleet: Fleet, meter: Meter, asked: ListSandboxes, now: float) -> Iterator[Sandboxes]:
    """Return the answer to `asked`, in parts. A monotonic `now` is related to the wall clock here."""
    if asked.tenant is None:
        chosen = [one for one in fleet.sandboxes.values() if one.phase != "gone"]
    else:
        chosen = list(fleet.tenants.get(asked.tenant, {}).values())
    if len(chosen) <= _FRESH:
        for sandbox in chosen:
            meter.read(sandbox, now)
    epoch = time.time() - now
    for start in range(0, max(1, len(chosen)), _PART):
        part = [_info(sandbox, epoch, now) for sandbox in chosen[start : start + _PART]]
        yield Sandboxes(seq=asked.seq, items=part, last=start + _PART >= len(chosen))


def status(desk: Desk, memory: Memory, seq: int, *, proxies: int, uptime: float, now: float) -> Status:
    """Return the figures of the host."""
    counts = desk.fleet.counts
    return Status(
        seq=seq,
        pool=counts["pooled"],
        pool_target=desk.pool_target(now),
        starting=counts["starting"],
        assigned=counts["assigned"],
        draining=counts["draining"],
        waiting=desk.waiting(),
        memory_used=memory.used,
        memory_limit=memory.bound,
        starts=desk.started,
        ends=dict(desk.ends),
        proxies=proxies,
        uptime=uptime,
        runtimes=desk.runtimes(now),
    )


def _info(sandbox: Sandbox, epoch: float, now: float) -> SandboxInfo:
    record = sandbox.record
    last_call = now if sandbox.calls_in_flight else sandbox.last_call_at
    return SandboxInfo(
        sandbox_id=record.sandbox_id,
        phase=record.phase,
        tenant=record.tenant,
        runtime=record.runtime,
        modules=record.modules,
        engine=record.engine,
        started_at=epoch + record.started_at,
        assigned_at=None if record.assigned_at is None else epoch + record.assigned_at,
        last_call_at=epoch + last_call if record.tenant is not None else None,
        calls=sandbox.calls,
        in_flight=sandbox.calls_in_flight,
        memory=sandbox.memory,
        cpu_seconds=sandbox.cpu_seconds,
        pids=sandbox.pids,
    )
