"""Work at the start whose imports and memory the supervisor shall not carry: done by a fork, answered by a pipe."""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

import msgspec

from sandpost.kernel import calls
from sandpost.kernel.descriptors import close_all
from sandpost.model.errors import ConfigError, HostUnfit, SandpostError


class _Answer(msgspec.Struct):
    value: str | None = None
    error: str | None = None
    reason: str = ""


class Aside:
    """A task that runs beside us. `result` waits for it. The caller has one thread and no event loop yet."""

    def __init__(self, task: Callable[[], str | None], close: Sequence[int] = ()) -> None:
        self._reader, writer = os.pipe2(os.O_CLOEXEC)
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._reader)
            # A lock is held as long as any copy of its descriptor is open.
            close_all(close)
            _answer(task, writer)
        os.close(writer)

    def result(self) -> str | None:
        """Return what the task returned; its `SandpostError` is raised here, as `ConfigError` or `HostUnfit`."""
        with open(self._reader, "rb") as pipe:
            raw = pipe.read()
        os.waitpid(self._pid, 0)
        if not raw:
            raise HostUnfit("a step of the start was ended from outside: start again, it goes on where it was")
        answer = msgspec.json.decode(raw, type=_Answer)
        if answer.error is not None:
            raise (ConfigError if answer.reason == ConfigError.reason else HostUnfit)(answer.error)
        return answer.value


def _answer(task: Callable[[], str | None], writer: int) -> NoReturn:
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
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
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(0)
