"""Renders the processes' figures for Prometheus. Reads `<metrics_dir>/*.json`, trusts nothing in it but numbers."""

import contextlib
import os
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from sandpost.model.figures import STALE, Figures, Sample

MAX_FILE = 1 << 20
MAX_FILES = 256
FORGOTTEN = 600.0
"""Seconds after which figures of a dead process are left out altogether."""

_NAME = re.compile(r"sandpost_[a-z0-9_]{1,100}", re.ASCII)
_LABEL = re.compile(r"[a-z][a-z0-9_]{0,40}", re.ASCII)
_OURS = frozenset({"tenant", "part", "worker", "le"})
"""Labels that no process may bring: tenants are never labels, the others are ours."""
_decode = msgspec.json.Decoder(Figures).decode


@dataclass(frozen=True, slots=True)
class Source:
    """Figures and whether the process that left them is alive and well."""

    figures: Figures
    up: bool


def read(folder: str, now: float | None = None) -> tuple[list[Source], int]:
    """Return what is in `folder`, and how many files could not be read."""
    now = time.time() if now is None else now
    sources, unreadable = [], 0
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(".json"))[:MAX_FILES]
    except OSError:
        return [], 1
    for name in names:
        try:
            with open(os.path.join(folder, name), "rb") as file:
                # What is longer than any of ours is cut, and then is no JSON.
                figures = _decode(file.read(MAX_FILE))
        except FileNotFoundError:
            continue
        except (OSError, ValueError):
            unreadable += 1
            continue
        age = now - figures.at
        up = age <= STALE and _lives(figures.pid)
        if up or age <= FORGOTTEN:
            sources.append(Source(figures, up))
    return sources, unreadable


class Figured(Collector):
    """Collector over `sources`.

    Of a process that is gone, counters and histograms stay: what they counted did happen. Its gauges are left
    out: nothing of the kind is there now. `sandpost_process_up` tells the two apart.
    """

    def __init__(self, sources: Sequence[Source], unreadable: int) -> None:
        self._sources = sources
        self._unreadable = unreadable

    def collect(self) -> Iterable[Metric]:
        """Yield every metric once, with the samples of all processes."""
        families: dict[str, tuple[Sample, list[tuple[Sample, dict[str, str]]]]] = {}
        for source in self._sources:
            origin = {"part": source.figures.part, "worker": str(source.figures.index)}
            for sample in source.figures.samples:
                if (sample.kind == "gauge" and not source.up) or not _is_sound(sample):
                    continue
                first, members = families.setdefault(sample.name, (sample, []))
                if first.kind == sample.kind and first.labels.keys() == sample.labels.keys():
                    members.append((sample, {**origin, **sample.labels}))
        for first, members in families.values():
            yield _family(first, members)
        yield from self._about_processes()

    def _about_processes(self) -> Iterator[Metric]:
        up = GaugeMetricFamily(
            "sandpost_process_up", "Whether the process writes its figures.", labels=("part", "worker")
        )
        for source in self._sources:
            up.add_metric((source.figures.part, str(source.figures.index)), float(source.up))
        yield up
        yield GaugeMetricFamily(
            "sandpost_figures_unreadable", "Files of figures that cannot be read.", value=self._unreadable
        )


def _family(first: Sample, members: list[tuple[Sample, dict[str, str]]]) -> Metric:
    names = ("part", "worker", *first.labels)
    if first.kind == "histogram":
        histogram = HistogramMetricFamily(first.name, first.help, labels=names)
        for sample, labels in members:
            buckets = [(f"{bound:g}", count) for bound, count in sample.buckets]
            histogram.add_metric(
                [labels[name] for name in names], [*buckets, ("+Inf", sample.count)], sum_value=sample.value
            )
        return histogram
    family = CounterMetricFamily if first.kind == "counter" else GaugeMetricFamily
    metric: CounterMetricFamily | GaugeMetricFamily = family(first.name, first.help, labels=names)
    for sample, labels in members:
        metric.add_metric([labels[name] for name in names], sample.value)
    return metric


def _is_sound(sample: Sample) -> bool:
    return (
        _NAME.fullmatch(sample.name) is not None
        and not _OURS & sample.labels.keys()
        and all(_LABEL.fullmatch(label) for label in sample.labels)
    )


def _lives(pid: int) -> bool:
    if pid <= 0:
        return False
    with contextlib.suppress(PermissionError):
        try:
            os.kill(pid, 0)
        except (ProcessLookupError, OverflowError):
            return False
    return True
