"""The figures of one process, as it leaves them for the metrics listener. Tenant names are never labels."""

from typing import Literal

import msgspec


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
