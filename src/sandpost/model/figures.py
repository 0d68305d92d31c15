"""The figures of one process, as it leaves them for the metrics listener. Tenant names are never labels."""

from bisect import bisect_left
from itertools import accumulate
from typing import Literal

import msgspec

STALE = 10.0
"""Seconds after which figures, written once a second, are those of a process that hangs."""


class Sample(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One sample of a metric, named and labelled as Prometheus shows it (`sandpost_calls_total`).

    A histogram has `buckets`, pairs of an upper bound and the cumulative count below it, `value` as its sum
    and `count` as its number of observations. Durations are seconds, sizes bytes.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    value: float
    labels: dict[str, str] = {}
    buckets: list[tuple[float, float]] = []
    count: float = 0


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What `<metrics_dir>/<part>-<index>.json` holds."""

    part: str
    index: int
    pid: int
    at: float
    samples: list[Sample]
    problem: str = ""
    """What it cannot do now and why, a sentence; empty if nothing is wrong."""
    problem_out: str = ""
    """Why records do not get out of the installation, a sentence; empty if they do, or need not."""


class Histogram:
    """Durations in seconds, counted below the upper `bounds`, which rise."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, seconds: float) -> None:
        """Count one duration."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def sample(self, name: str, text: str) -> Sample:
        """Return it as Prometheus wants it."""
        below = [float(count) for count in accumulate(self._counts)]
        buckets = list(zip(self._bounds, below, strict=False))
        return Sample(name=name, kind="histogram", help=text, value=self._sum, buckets=buckets, count=below[-1])


def counter(name: str, text: str, value: float, **labels: str) -> Sample:
    """Return what only grows."""
    return Sample(name=name, kind="counter", help=text, value=value, labels=labels)


def gauge(name: str, text: str, value: float, **labels: str) -> Sample:
    """Return what is now."""
    return Sample(name=name, kind="gauge", help=text, value=value, labels=labels)
