"""Measured figures as typed values, and the arithmetic on samples. Pure."""

import math
from collections.abc import Sequence
from typing import Literal

import msgspec


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One measured figure. `reference` is what was measured beside it in the same run, named by `beside`."""

    name: str
    value: float
    unit: str
    goal: float | None = None
    better: Literal["less", "more"] = "less"
    reference: float | None = None
    beside: str = ""
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times the reference it is."""
        if self.reference is None or not self.reference:
            return None
        return self.value / self.reference

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None without a goal."""
        if self.goal is None:
            return None
        return self.value <= self.goal if self.better == "less" else self.value >= self.goal


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One load: calls a second that were answered at so many connections, and how long they took (ms)."""

    connections: int
    rate: float
    p50: float
    p99: float


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """Latency against load of one server."""

    name: str
    points: list[Point]


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What one measurement found."""

    figures: list[Figure]
    curves: list[Curve] = []


def percentile(samples: Sequence[float], share: float) -> float:
    """Return the smallest sample that `share` (0 to 1) of all are not above; there must be one."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def median(samples: Sequence[float]) -> float:
    """Return the middle sample, the lower of two."""
    return percentile(samples, 0.5)


def milliseconds(seconds: float) -> float:
    """Return seconds as milliseconds."""
    return seconds * 1000
