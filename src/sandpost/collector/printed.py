"""Records on the installation's standard output, a line each, for journald or Docker: in a thread of their own.

Whoever reads there may rest: what waits is bounded, and beyond the bound the oldest lines are lost, and counted.
"""

import os
import threading
from collections.abc import Sequence

from sandpost.bus.contract import Batch
from sandpost.collector.backlog import Backlog

MOST = 4 << 20
"""Bytes of records that wait for the reader."""
_LINES = 1000
_LAST = 1.0
"""Seconds for what waits when the collector ends."""


class Printed:
    """Owns one thread, from `start` to `close`, that writes to descriptor 1. A reader that goes ends it for good."""

    def __init__(self) -> None:
        self._backlog = Backlog(MOST)
        self._unread = 0
        self._thread = threading.Thread(target=self._run, name="stdout", daemon=True)

    @property
    def lost(self) -> int:
        """Records that were not printed and never will be."""
        return self._unread + self._backlog.lost

    def start(self) -> None:
        """Begin to print."""
        self._thread.start()

    def take(self, batches: Sequence[Batch]) -> None:
        """Take what the bus was given; never waits."""
        self._backlog.add(batches)

    def close(self) -> None:
        """Print what waits, for a second."""
        self._backlog.close()
        self._thread.join(_LAST)

    def _run(self) -> None:
        gone = False
        while (found := self._backlog.take(_LINES))[1]:
            lines, count = found
            gone = gone or not _write(lines)
            self._unread += count if gone else 0


def _write(data: bytes) -> bool:
    """Write all of `data` however long it takes; False if nobody reads it any more."""
    at = 0
    while at < len(data):
        try:
            at += os.write(1, data[at:])
        except OSError:
            return False
    return True
