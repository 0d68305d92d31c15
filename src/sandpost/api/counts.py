"""What the api counts of itself."""

import os
import time
from bisect import bisect_left
from collections import Counter

from sandpost.model.figures import Figures, Sample

_BOUNDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Counts:
    """Requests by method, route and status, and how long they took. Routes are patterns, never names."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str, int]] = Counter()
        self._buckets = [0] * (len(_BOUNDS) + 1)
        self._seconds = 0.0

    def add(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answer."""
        self.requests[method, route, status] += 1
        self._buckets[bisect_left(_BOUNDS, seconds)] += 1
        self._seconds += seconds

    def figures(self, *, controller_connected: bool) -> Figures:
        """Return everything as samples."""
        below, buckets = 0, []
        for bound, count in zip(_BOUNDS, self._buckets, strict=False):
            below += count
            buckets.append((bound, float(below)))
        samples = [
            Sample(
                name="sandpost_api_requests_total",
                kind="counter",
                help="Answers to management requests.",
                value=count,
                labels={"method": method, "route": route, "status": str(status)},
            )
            for (method, route, status), count in sorted(self.requests.items())
        ]
        samples.append(
            Sample(
                name="sandpost_api_request_seconds",
                kind="histogram",
                help="From a management request's head to the end of its answer.",
                value=self._seconds,
                buckets=buckets,
                count=sum(self._buckets),
            )
        )
        samples.append(
            Sample(
                name="sandpost_api_controller_connected",
                kind="gauge",
                help="Whether the api reaches the controller.",
                value=int(controller_connected),
            )
        )
        return Figures(part="api", index=0, pid=os.getpid(), at=time.time(), samples=samples)
