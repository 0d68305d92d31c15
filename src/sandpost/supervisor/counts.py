"""The supervisor's own figures, left for the metrics listener once a second."""

import contextlib
import os
import time
from collections import Counter

from sandpost.logs import figures
from sandpost.model.figures import Figures, counter, gauge

EVERY = 1.0
_PARTS = ("api", "collector", "controller", "egress", "proxy")


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
            counter("sandpost_part_ends_total", "Unexpected ends of parts.", self.ends[part], ended_part=part)
            # All of them from the start: the first end is an increase too.
            for part in _PARTS
        ]
        samples += [
            counter("sandpost_covers_total", "Times a worker accepted for another.", self.covers),
            counter("sandpost_renewals_total", "Renewals asked for or due to a release.", self.renewals),
            gauge("sandpost_parts", "Processes of the platform that run.", children),
            gauge("sandpost_held_outputs", "Sandboxes whose output is held open.", fifos),
        ]
        made = Figures(part="supervisor", index=0, pid=os.getpid(), at=time.time(), samples=samples)
        with contextlib.suppress(OSError):
            figures.write(folder, made)
