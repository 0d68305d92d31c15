"""Work at the start whose imports and memory the supervisor shall not carry: done by a fork, answered by a pipe."""

import os
import select
import signal
import sys
from collections.abc import Callable, Collection, Sequence
from typing import NoReturn

import msgspec

from sandpost.kernel import calls
from sandpost.kernel.descriptors import close_all
from sandpost.model.errors import ConfigError, HostUnfit, SandpostError
from sandpost.supervisor.wish import Stopped

_ENDS = (signal.SIGINT, signal.SIGTERM)
_GRACE = 20.0
"""A task that is broken off has so long to take away what it made: a half-built root is many files."""


class _Answer(msgspec.Struct):
    value: str | None = None
    error: str | None = None
    reason: str = ""


class Aside:
    """A task that runs beside us. `result` waits for it, `end` breaks it off: `Stopped` is raised in it.

    It is broken off too when we end. The caller has one thread and no event loop yet.
    """

    def __init__(self, task: Callable[[], str | None], close: Sequence[int] = ()) -> None:
        self._reader, writer = os.pipe2(os.O_CLOEXEC)
        # Until the fork has handlers of its own an end would be noted by ours, and lost.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)
        try:
            self._pid = os.fork()
            if self._pid == 0:
                os.close(self._reader)
                # A lock is held as long as any copy of its descriptor is open.
                close_all(close)
                _answer(task, writer, mask)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(writer)

    def result(self) -> str | None:
        """Return what the task returned; its `SandpostError` is raised here, as `ConfigError` or `HostUnfit`."""
        with open(self._reader, "rb") as pipe:
            raw = pipe.read()
        os.waitpid(self._pid, 0)
        self._pid = 0
        if not raw:
            raise HostUnfit("a step of the start was ended from outside: start again, it goes on where it was")
        answer = msgspec.json.decode(raw, type=_Answer)
        if answer.error is not None:
            raise (ConfigError if answer.reason == ConfigError.reason else HostUnfit)(answer.error)
        return answer.value

    def end(self) -> None:
        """Have it end, and wait until it has; nothing if its result is there."""
        if not self._pid:
            return
        os.kill(self._pid, signal.SIGTERM)
        pidfd = os.pidfd_open(self._pid)
        if not select.select([pidfd], [], [], _GRACE)[0]:
            os.kill(self._pid, signal.SIGKILL)
        os.close(pidfd)
        os.waitpid(self._pid, 0)
        self._pid = 0


def _break_off(_number: int, _frame: object) -> NoReturn:
    for number in _ENDS:
        # What it does from now on is to take away what it made.
        signal.signal(number, signal.SIG_IGN)
    raise Stopped


def _answer(task: Callable[[], str | None], writer: int, mask: Collection[int]) -> NoReturn:
    try:
        for number in _ENDS:
            signal.signal(number, _break_off)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        calls.die_with_parent(signal.SIGTERM)
        try:
            answer = _Answer(value=task())
        except SandpostError as error:
            answer = _Answer(error=error.message, reason=error.reason)
        except OSError as error:
            answer = _Answer(error=f"{error.filename or 'the start'}: {error.strerror or error}")
        with open(writer, "wb") as pipe:
            pipe.write(msgspec.json.encode(answer))
        sys.stdout.flush()
    except Stopped:
        pass
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(0)
