"""The controller's figures for the metrics listener."""

import os
import time
from collections.abc import Mapping

from sandpost.controller.desk import Desk
from sandpost.controller.hits import KINDS as LIMITS
from sandpost.controller.room import Memory
from sandpost.controller.ways import Ways
from sandpost.model import ends
from sandpost.model.figures import Figures, Histogram, counter, gauge
from sandpost.network.firewall.render import KINDS as WALLS

START_BOUNDS = (0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Seconds that the starts of sandboxes are sorted by."""


def figures(
    desk: Desk,
    memory: Memory,
    starts: Histogram,
    ways: Ways,
    *,
    proxies: int,
    lost_usage: int,
    hits: Mapping[str, int],
    now: float,
) -> Figures:
    """Return all of them; no label names a tenant."""
    samples = [
        gauge("sandpost_pool_sandboxes", "Sandboxes ready in the pool.", desk.fleet.counts["pooled"]),
        gauge("sandpost_pool_target", "Sandboxes that the pool is filled up to.", desk.pool_target(now)),
        gauge("sandpost_queue_waiting", "Sandboxes that calls wait for.", desk.waiting()),
        gauge("sandpost_held_back_tenants", "Tenants with fatal ends lately.", len(desk.hold)),
        gauge("sandpost_memory_used_bytes", "Memory of all sandboxes together.", memory.used),
        gauge("sandpost_memory_limit_bytes", "Bound of the memory of all sandboxes together.", memory.bound),
        gauge("sandpost_machine_available_bytes", "Memory available on the machine.", memory.available),
        gauge("sandpost_controller_proxies", "Proxy workers that may hold routes.", proxies),
        counter("sandpost_sandbox_starts_total", "Sandboxes started.", desk.started),
        counter("sandpost_usage_lost_total", "Tenants' hours of usage given up without an api.", lost_usage),
        gauge(
            "sandpost_tracked_connections", "Connections in the kernel's table, all of the machine.", ways.tracked.count
        ),
        gauge(
            "sandpost_tracked_connections_limit", "Connections that the kernel's table has room for.", ways.tracked.room
        ),
        counter("sandpost_firewall_repairs_total", "Times that the altered firewall was repaired.", ways.repairs),
        counter(
            "sandpost_notes_dropped_total", "Egress's notes for tenants' logs beyond the rate.", ways.notes.dropped
        ),
        starts.sample("sandpost_sandbox_start_seconds", "From the decision to start until the warm-up call's answer."),
    ]
    samples += [
        gauge("sandpost_sandboxes", "Sandboxes by phase.", count, phase=phase)
        for phase, count in desk.fleet.counts.items()
    ]
    for name, one in desk.runtimes(now).items():
        samples += [
            gauge(
                "sandpost_runtime_assigned", "Sandboxes that serve a tenant, by runtime.", one.assigned, runtime=name
            ),
            gauge("sandpost_runtime_pool", "Sandboxes ready in the pool, by runtime.", one.pool, runtime=name),
            gauge(
                "sandpost_runtime_pool_target", "What the pool is filled to, by runtime.", one.pool_target, runtime=name
            ),
        ]
    samples += [
        # All words from the start: the first of a kind is an increase too.
        counter("sandpost_sandbox_ends_total", "Ends of sandboxes by word.", desk.ends.get(word, 0), word=word)
        for word in ends.ALL
    ]
    samples += [
        counter("sandpost_limits_hit_total", "Limits met that end nothing, by kind.", hits.get(kind, 0), kind=kind)
        for kind in LIMITS
    ]
    samples += [
        counter("sandpost_sandboxes_refused_total", "Asks for a sandbox refused, by reason.", count, reason=reason)
        for reason, count in desk.refused.items()
    ]
    samples += [
        counter("sandpost_walls_met_total", "What sandboxes were refused on their way out, by kind.", count, kind=kind)
        for kind, count in sorted({**dict.fromkeys(WALLS, 0), **ways.notes.counts}.items())
    ]
    return Figures(part="controller", index=0, pid=os.getpid(), at=time.time(), samples=samples)
