"""`sys.stdout` and `sys.stderr` of programs: records with a level and the id of the call that writes.

What one write gives that ends with a line's end is one record, whatever lines are in it; what does not waits for the
rest, for each call apart. Descriptors 1 and 2 stay raw, for children and for `sys.stdout.buffer`.
"""

from __future__ import annotations

import sys
from _thread import RLock
from io import TextIOBase

from . import frames
from .scope import CURRENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from io import TextIOWrapper
    from typing import Any

    from .calls import Call

_PARTIAL = 65536
"""Characters of an unfinished line that wait at most."""


class Stream(TextIOBase):
    """One of the two."""

    encoding = "utf-8"
    errors = "replace"

    def __init__(self, level: int, raw: TextIOWrapper) -> None:
        self._level = level
        self._raw = raw
        self.name = raw.name
        self.mode = "w"
        self._lock = RLock()
        self._nobodys = ""

    @property
    def buffer(self) -> Any:
        """The raw descriptor's file."""
        return self._raw.buffer

    def fileno(self) -> int:
        """Return the raw descriptor."""
        return self._raw.fileno()

    def writable(self) -> bool:
        """It is."""
        return True

    def isatty(self) -> bool:
        """It is none."""
        return False

    def write(self, text: str) -> int:
        """Take text; a record is written once its line ends."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        call = CURRENT.get()
        with self._lock:
            waiting = self._nobodys if call is None else call.partial.get(self._level, "")
            whole = waiting + text if waiting else text
            complete = whole.endswith("\n")
            if complete or len(whole) > _PARTIAL:
                self._keep(call, "")
            else:
                self._keep(call, whole)
                return len(text)
        frames.write(self._level, "" if call is None else call.frame_id, whole[:-1] if complete else whole)
        return len(text)

    def record(self, level: int, text: str) -> None:
        """Write one record at a level of its own."""
        call = CURRENT.get()
        frames.write(level, "" if call is None else call.frame_id, text)

    def end_of(self, call: Call) -> None:
        """Write what the call has left without a line's end."""
        with self._lock:
            rest = call.partial.pop(self._level, "")
        if rest:
            frames.write(self._level, call.frame_id, rest)

    def _keep(self, call: Call | None, text: str) -> None:
        if call is None:
            self._nobodys = text
        elif text:
            call.partial[self._level] = text
        else:
            call.partial.pop(self._level, None)


OUT = Stream(30, sys.__stdout__)  # type: ignore[arg-type]
ERR = Stream(50, sys.__stderr__)  # type: ignore[arg-type]


def install() -> None:
    """Put them in place."""
    sys.stdout = OUT
    sys.stderr = ERR


def end_of(call: Call) -> None:
    """The call is over: what it left without a line's end is a record."""
    if call.partial:
        OUT.end_of(call)
        ERR.end_of(call)
