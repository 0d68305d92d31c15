"""What the api counts of itself."""

import os
import time
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType

from sandpost.model.figures import Figures, Histogram, counter, gauge

_BOUNDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)

_NONE: Mapping[str, int] = MappingProxyType({})


class Counts:
    """Requests by method, route and status, and how long they took. Routes are patterns, never names."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str, int]] = Counter()
        self._seconds = Histogram(_BOUNDS)

    def add(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answer."""
        self.requests[method, route, status] += 1
        self._seconds.add(seconds)

    def figures(self, *, controller_connected: bool, streams: int = 0, ends: Mapping[str, int] = _NONE) -> Figures:
        """Return everything as samples; `streams` of logs are open, others ended (`ends`, by why)."""
        samples = [
            counter(
                "sandpost_api_requests_total", "Answers to management requests.", count,
                method=method, route=route, status=str(status),
            )
            for (method, route, status), count in sorted(self.requests.items())
        ]  # fmt: skip
        samples += [
            self._seconds.sample(
                "sandpost_api_request_seconds", "From a management request's head to the end of its answer."
            ),
            gauge("sandpost_api_log_streams", "Streams of logs that are open.", streams),
            gauge("sandpost_api_controller_connected", "Whether the api reaches the controller.", controller_connected),
        ]
        samples += [
            counter("sandpost_api_log_stream_ends_total", "Streams of logs that ended, by why.", count, end=word)
            for word, count in sorted(ends.items())
        ]
        return Figures(part="api", index=0, pid=os.getpid(), at=time.time(), samples=samples)
