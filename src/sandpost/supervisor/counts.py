"""The supervisor's own figures, left for the metrics listener once a second."""

import contextlib
import os
import time
from collections import Counter
from typing import Literal

from sandpost.logs import figures
from sandpost.model.figures import Figures, Sample

EVERY = 1.0


class Counts:
    """What is counted of a supervisor since it started."""

    def __init__(self) -> None:
        self.ends: Counter[str] = Counter()
        """Unexpected ends, by part."""
        self.covers = 0
        self.renewals = 0

    def write(self, folder: str, *, children: int, fifos: int) -> None:
        """Leave the figures in `folder`. That this fails is told by their age."""
        samples = [
            _sample("counter", "sandpost_part_ends_total", "Unexpected ends of parts.", count, ended_part=part)
            for part, count in sorted(self.ends.items())
        ]
        samples += [
            _sample("counter", "sandpost_covers_total", "Times a worker accepted for another.", self.covers),
            _sample("counter", "sandpost_renewals_total", "Renewals asked for or due to a release.", self.renewals),
            _sample("gauge", "sandpost_parts", "Processes of the platform that run.", children),
            _sample("gauge", "sandpost_held_outputs", "Sandboxes whose output is held open.", fifos),
        ]
        made = Figures(part="supervisor", index=0, pid=os.getpid(), at=time.time(), samples=samples)
        with contextlib.suppress(OSError):
            figures.write(folder, made)


def _sample(kind: Literal["counter", "gauge"], name: str, text: str, value: float, **labels: str) -> Sample:
    return Sample(name=name, kind=kind, help=text, value=value, labels=labels)
