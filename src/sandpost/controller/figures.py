"""The controller's figures for the metrics listener."""

import os
import time
from bisect import bisect_left
from itertools import accumulate

from sandpost.controller.desk import Desk
from sandpost.controller.room import Memory
from sandpost.model.figures import Figures, Sample

_BOUNDS = (0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0)


class Seconds:
    """A histogram of durations."""

    def __init__(self) -> None:
        self._counts = [0] * (len(_BOUNDS) + 1)
        self._sum = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self._counts[bisect_left(_BOUNDS, seconds)] += 1
        self._sum += seconds

    def sample(self, name: str, text: str) -> Sample:
        """Return it as Prometheus wants it."""
        cumulative = list(accumulate(self._counts))
        return Sample(
            name=name, kind="histogram", help=text, value=self._sum, count=cumulative[-1],
            buckets=[(bound, float(count)) for bound, count in zip(_BOUNDS, cumulative, strict=False)],
        )  # fmt: skip


def figures(desk: Desk, memory: Memory, starts: Seconds, *, proxies: int, lost_usage: int, now: float) -> Figures:
    """Return all of them; no label names a tenant."""
    counts = desk.fleet.counts
    gauges = [
        ("sandpost_pool_sandboxes", "Sandboxes ready in the pool.", counts["pooled"]),
        ("sandpost_pool_target", "Sandboxes that the pool is filled up to.", desk.pool_target(now)),
        ("sandpost_queue_waiting", "Sandboxes that calls wait for.", desk.waiting()),
        ("sandpost_held_back_tenants", "Tenants with fatal ends lately.", len(desk.hold)),
        ("sandpost_memory_used_bytes", "Memory of all sandboxes together.", memory.used),
        ("sandpost_memory_limit_bytes", "Bound of the memory of all sandboxes together.", memory.bound),
        ("sandpost_machine_available_bytes", "Memory available on the machine.", memory.available),
        ("sandpost_controller_proxies", "Proxy workers that may hold routes.", proxies),
    ]
    samples = [Sample(name=name, kind="gauge", help=text, value=value) for name, text, value in gauges]
    samples += [
        Sample(
            name="sandpost_sandboxes", kind="gauge", help="Sandboxes by phase.", value=count, labels={"phase": phase}
        )
        for phase, count in counts.items()
    ]
    samples += [
        Sample(
            name="sandpost_sandbox_ends_total",
            kind="counter",
            help="Ends of sandboxes by word.",
            value=count,
            labels={"word": word},
        )
        for word, count in desk.ends.items()
    ]
    samples += [
        Sample(
            name="sandpost_sandboxes_refused_total",
            kind="counter",
            help="Asks for a sandbox refused, by reason.",
            value=count,
            labels={"reason": reason},
        )
        for reason, count in desk.refused.items()
    ]
    samples += [
        Sample(name="sandpost_sandbox_starts_total", kind="counter", help="Sandboxes started.", value=desk.started),
        Sample(
            name="sandpost_usage_lost_total", kind="counter", help="Tenants' hours of usage given up without an api.",
            value=lost_usage,
        ),
        starts.sample("sandpost_sandbox_start_seconds", "From the decision to start until the warm-up call's answer."),
    ]  # fmt: skip
    return Figures(part="controller", index=0, pid=os.getpid(), at=time.time(), samples=samples)
