"""Limits that were met without an end: told once when it begins, and again only with how often since. Pure."""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

from sandpost.model.limits import Limits
from sandpost.model.units import show_size
from sandpost.walls.pressure import Pressure

Kind = Literal["pids", "disk", "files"]
KINDS: tuple[Kind, ...] = get_args(Kind)
AGAIN = 10.0
"""Seconds between two notes of one kind about one sandbox."""


class Hit(NamedTuple):
    """A limit that was met: one word for figures, a sentence for the tenant's log, how often since the last one."""

    kind: Kind
    text: str
    times: int


@dataclass(slots=True)
class Hits:
    """What has been seen and told of one sandbox. Times are a monotonic clock's seconds."""

    refused: int = 0
    _full: set[str] = field(default_factory=set)
    _told_at: dict[Kind, float] = field(default_factory=dict)
    _untold: dict[str, tuple[Kind, int]] = field(default_factory=dict)

    def look(self, seen: Pressure, limits: Limits, now: float) -> list[Hit]:
        """Take in what was seen now; return what is to be told of it."""
        if seen.refused > self.refused:
            text = f"pids: {limits.pids} processes and threads reached (`limits.pids`)"
            self._meet(text, "pids", seen.refused - self.refused)
            self.refused = seen.refused
        self._state("disk", f"disk: {show_size(limits.tmp)} in /tmp reached (`limits.tmp`)", seen.tmp_full)
        self._state(
            "disk", f"disk: {limits.tmp_inodes:,} files in /tmp reached (`limits.tmp_inodes`)", seen.inodes_full
        )
        self._state("files", f"files: {limits.files:,} open files reached (`limits.files`)", seen.files_full)
        due = [
            Hit(kind, text, times)
            for text, (kind, times) in self._untold.items()
            if now - self._told_at.get(kind, now - AGAIN) >= AGAIN
        ]
        for hit in due:
            del self._untold[hit.text]
            self._told_at[hit.kind] = now
        return due

    def _state(self, kind: Kind, text: str, full: bool) -> None:
        """A state counts when it begins."""
        if full and text not in self._full:
            self._full.add(text)
            self._meet(text, kind, 1)
        elif not full:
            self._full.discard(text)

    def _meet(self, text: str, kind: Kind, times: int) -> None:
        self._untold[text] = (kind, self._untold.get(text, (kind, 0))[1] + times)
