"""Routes that show what runs now and what was used."""

import asyncio
import os
import time

from sandpost import __version__
from sandpost.api import requests
from sandpost.api.metrics import read
from sandpost.api.route import Answer, Asked, Route
from sandpost.api.service import Service
from sandpost.api.views import ControllerView, SandboxesView, SandboxView, StatusView, UsageView
from sandpost.logs import figures
from sandpost.logs.text import safe_text
from sandpost.model.errors import SandpostError
from sandpost.model.figures import STALE

_LOW_DISK = 64 << 20
"""Free bytes of the state folder's disk below which a start is refused, and a running installation complains."""


_MOST_SAID = 1000
_RENEWAL = 3.0
"""Seconds that a part may be away while it is renewed."""
_RESTARTED = {
    "collector": "it hangs or has ended: output of sandboxes is not kept; its log lines say why",
    "egress": "it hangs or has ended: programs find no names, and allow-lists let nothing pass; its log lines say why",
    "supervisor": "it has ended, and what ends after it stays away: start `sandpost serve` again, it adopts what runs",
}


async def list_sandboxes(service: Service, asked: Asked) -> Answer:
    """List all sandboxes, or one tenant's."""
    infos = await service.controller.sandboxes(asked.path.get("tenant"))
    infos.sort(key=lambda info: (info.started_at, info.sandbox_id))
    return Answer(200, SandboxesView(sandboxes=[SandboxView.of(info) for info in infos]))


async def get_usage(service: Service, asked: Asked) -> Answer:
    """Show a tenant's usage by hour."""
    since_hour = requests.since(asked.query.get("since", "24h"))
    tenant = asked.path["tenant"]
    items = await service.store(lambda writer: writer.usage(tenant, since_hour))
    return Answer(200, UsageView.of(tenant, since_hour, items))


async def get_status(service: Service, _asked: Asked) -> Answer:
    """Show how the installation is; parts that do not answer are problems, not failures."""
    problems, tenants, keys, controller = [], 0, 0, None
    try:
        tenants, keys = await service.store(lambda writer: (len(writer.tenants()), len(writer.keys())))
    except SandpostError as error:
        problems.append(f"store: {error.message}")
    try:
        controller = ControllerView.of(await service.controller.status())
    except SandpostError as error:
        problems.append(f"controller: {error.message}")
    host = service.host
    if controller is not None and controller.proxies < host.workers:
        problems.append(f"proxy: {controller.proxies} of {host.workers} workers serve: their log lines say why")
    problems += await asyncio.to_thread(lambda: _silent_parts(host.metrics_dir) + _logs(host.metrics_dir))
    # Of the state folder the api sees the store alone.
    disk = os.statvfs(os.path.dirname(host.store_path))
    free = disk.f_bavail * disk.f_frsize
    if free < _LOW_DISK:
        problems.append(
            f"disk: {host.state_dir} has {free >> 20} MiB free: make room; once it is full, calls go on, but programs, "
            "settings, usage and logs are not kept"
        )
    listen = f"[{host.listen_host}]" if ":" in host.listen_host else host.listen_host
    return Answer(
        200,
        StatusView(
            version=__version__,
            instance=host.instance,
            state_dir=host.state_dir,
            listen=f"{listen}:{host.listen_port}",
            tenants=tenants,
            keys=keys,
            controller=controller,
            problems=problems,
        ),
    )


def _silent_parts(metrics_dir: str) -> list[str]:
    """Return a sentence for each process that has left no figures lately; one that never did is not asked for."""
    now = time.time()
    silent = {
        source.figures.part
        for source in read(metrics_dir, now)[0]
        if not source.up and now - source.figures.at > _RENEWAL and source.figures.part in _RESTARTED
    }
    return [f"{part}: {_RESTARTED[part]}" for part in sorted(silent)]


def _logs(metrics_dir: str) -> list[str]:
    """Return what is wrong with the log bus; a collector that is silent is told by `_silent_parts`."""
    left = figures.read(metrics_dir, "collector")
    if left is None or time.time() - left.at > STALE:
        return []
    found = []
    if left.problem:
        found.append(f"logs: {_shown(left.problem)}; records wait in memory (logs.spool), then the oldest are lost")
    if left.problem_out:
        found.append(
            f"logs.otlp: {_shown(left.problem_out)}; records wait for it within a bound, and are kept all the same"
        )
    return found


def _shown(problem: str) -> str:
    """Return what another process wrote as it can be read at a terminal."""
    return safe_text(problem[:_MOST_SAID].encode())


ROUTES = (
    Route(
        method="GET",
        path="/api/tenants/{tenant}/usage",
        name="getUsage",
        summary="Show what a tenant used, by hour; measured outside of its sandboxes.",
        work=get_usage,
        gives={200: UsageView},
        query={"since": "`24h` or `7d` ago, a date, a time in ISO 8601, or epoch seconds; `24h` if left out."},
        tenant_may=True,
    ),
    Route(
        method="GET",
        path="/api/tenants/{tenant}/sandboxes",
        name="listTenantSandboxes",
        summary="List a tenant's sandboxes.",
        work=list_sandboxes,
        gives={200: SandboxesView},
        tenant_may=True,
    ),
    Route(
        method="GET",
        path="/api/sandboxes",
        name="listSandboxes",
        summary="List all sandboxes, those of the pool among them.",
        work=list_sandboxes,
        gives={200: SandboxesView},
    ),
    Route(
        method="GET",
        path="/api/status",
        name="getStatus",
        summary="Show how this installation is.",
        work=get_status,
        gives={200: StatusView},
    ),
)
