"""The operator's wishes, noted from the first moment on.

A SIGTERM that comes while `serve` is still importing, or adopting what an earlier supervisor left, means what it
always means: everything ends. Without this it would end a process that has yet to take over, and leave the rest.
A SIGHUP would do the same, and systemd takes that for a success and starts nothing again.
"""

import contextlib
import signal
from collections.abc import Iterator


class Stopped(BaseException):
    """The wish came during something that may be broken off."""


class Wish:
    """Whether SIGTERM or SIGINT came, and whether SIGHUP. The event loop's handlers take over once it runs."""

    def __init__(self) -> None:
        self.asked = False
        self.asked_reload = False
        self._breaks_off = False

    def listen(self) -> None:
        """Note the signals from now on."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)
        signal.signal(signal.SIGHUP, self._note_reload)

    @contextlib.contextmanager
    def breaking_off(self) -> Iterator[None]:
        """Raise `Stopped` inside as soon as the wish is there."""
        self._breaks_off = True
        try:
            if self.asked:
                raise Stopped
            yield
        finally:
            self._breaks_off = False

    def _note(self, _number: int, _frame: object) -> None:
        self.asked = True
        if self._breaks_off:
            raise Stopped

    def _note_reload(self, _number: int, _frame: object) -> None:
        self.asked_reload = True


WISH = Wish()
"""Signals belong to the process: there is one."""
