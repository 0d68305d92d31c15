"""Puts the parts together and runs them."""

from __future__ import annotations

import gc
import os

from . import guard, hooks, settings, streams
from .frames import FRAMES
from .reactor import REACTOR
from .server import Listener

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_RETRY = 0.02
"""Seconds until a full log is tried again."""


def run() -> NoReturn:
    """Serve until the process ends."""
    streams.install()
    guard.install()
    hooks.install()
    FRAMES.when_full = lambda: REACTOR.post(REACTOR.call_later, _RETRY, FRAMES.drain)
    listener = Listener(settings.PORT)
    if settings.READY >= 0:
        _tell_ready(settings.READY)
    if settings.PORT_FILE:
        with open(settings.PORT_FILE, "w", encoding="ascii") as file:
            file.write(str(listener.port))
    gc.freeze()
    REACTOR.on_error = guard.on_loop_error
    REACTOR.run(guard.on_loop_exit)


def _tell_ready(fd: int) -> None:
    """So that whoever waits need not try again and again. Before any program runs."""
    try:
        os.write(fd, b"1")
        os.close(fd)
    except OSError:
        pass  # nobody waits any more
