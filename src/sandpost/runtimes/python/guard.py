"""Ends of the process, charged to the call that caused them: it is answered before, and named."""

from __future__ import annotations

import atexit
import os
import sys
from _signal import SIG_DFL, SIGINT, getsignal, signal  # type: ignore[import-not-found]
from posix import _exit, abort, kill

from . import failures, frames, streams
from .calls import lines_of
from .exchange import Notice
from .scope import CURRENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from .calls import Call
    from .failures import Kind

_HARMLESS = frozenset({0, 17, 18, 19, 20, 21, 22, 23, 28})
"""Signals that end no process that does not listen to them."""
_PID = os.getpid()
_CODE: Any = SystemExit.code


def _blame(kind: Kind, call: Call | None, message: str) -> None:
    """Answer the call that ends the process: the write reaches the kernel at once. From any thread."""
    if call is not None:
        streams.end_of(call)
    frames.write(50, "" if call is None else call.frame_id, message)
    if call is not None and not call.settled and not call.exchange.started and not call.exchange.finished:
        failure = failures.plain(kind, call.req_id, message)
        exchange = call.exchange
        exchange.close = True
        exchange.connection.write_last(exchange.whole(failure.status, lines_of(failure), failure.body))
    frames.FRAMES.drain()


def leave(call: Call | None, error: BaseException) -> NoReturn:
    """A `SystemExit` that nobody caught: exit as Python would."""
    code = _CODE.__get__(error)
    shown = "" if code is None else str(code)
    if code is not None and not isinstance(code, int):
        frames.write(50, "" if call is None else call.frame_id, shown)
    _blame(failures.EXIT, call, f"SystemExit({shown}) ended the process.")
    try:
        atexit._run_exitfuncs()
    finally:
        _exit(0 if code is None else code & 255 if isinstance(code, int) else 1)


def _leave_at_once(status: int) -> NoReturn:
    """Stands for `os._exit`."""
    if os.getpid() == _PID:
        _blame(failures.EXIT, CURRENT.get(), f"os._exit({status}) ended the process.")
    _exit(status)


def _abort() -> NoReturn:
    """Stands for `os.abort`."""
    if os.getpid() == _PID:
        _blame(failures.CRASH, CURRENT.get(), "os.abort ended the process.")
    abort()


def _kill(pid: int, number: int, /) -> None:
    """Stands for `os.kill`."""
    if pid in {0, _PID, -_PID} and os.getpid() == _PID and number not in _HARMLESS and _is_fatal(number):
        _blame(failures.CRASH, CURRENT.get(), f"os.kill({pid}, {int(number)}) ended the process.")
    kill(pid, number)


def _is_fatal(number: int) -> bool:
    try:
        return bool(getsignal(number) == SIG_DFL)
    except ValueError:
        return False


def on_loop_exit(error: SystemExit) -> None:
    """A `SystemExit` came up through asyncio's loop: a task or a callback of a program raised it."""
    leave(None, error)


def on_loop_error(error: BaseException) -> None:
    """Something of the runtime's own has failed in a turn: those of programs are caught where they are run."""
    Notice.ask()
    record = failures.stack_of(error, "", "")
    frames.write(50, "", f"{failures.INTERNAL}\n{record}")


def install() -> None:
    """Put them in place."""
    os._exit = _leave_at_once
    os.abort = _abort
    os.kill = _kill
    # Python would raise in the loop's thread, in whatever is done there.
    signal(SIGINT, SIG_DFL)
    sys.setswitchinterval(0.001)
