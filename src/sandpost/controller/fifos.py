"""The three FIFOs of a sandbox: made here, handed to the supervisor, which holds them from before the first write."""

import asyncio
import contextlib
import os
import shutil
from collections.abc import Callable
from typing import Protocol

from sandpost.kernel.descriptors import close_all
from sandpost.model.host import FIFOS
from sandpost.model.messages import Hold, Release

_HELD_WITHIN = 1.0


class ToSupervisor(Protocol):
    """Sends to the supervisor; False while it is away."""

    def __call__(self, message: Hold | Release, fds: tuple[int, ...] = ()) -> bool:
        """Send `message` with copies of `fds`."""


class Fifos:
    """Makes and removes FIFOs; holds their read ends itself while there is no supervisor."""

    def __init__(self, folder: str, send: ToSupervisor, clock: Callable[[], float]) -> None:
        self._folder = folder
        self._send = send
        self._clock = clock
        self._ours: dict[str, tuple[int, ...]] = {}
        self._answers: dict[str, asyncio.Future[None]] = {}

    def open(self) -> None:
        """Make the folder."""
        os.makedirs(self._folder, mode=0o700, exist_ok=True)

    def close(self) -> None:
        """Let go of what we still hold."""
        for fds in self._ours.values():
            close_all(fds)
        self._ours.clear()

    async def make(self, sandbox_id: str) -> tuple[int, int, int]:
        """Make a sandbox's FIFOs and have them held; return the write ends, which the caller closes.

        stdout and stderr block their writer, frames do not.
        """
        folder = os.path.join(self._folder, sandbox_id)
        os.mkdir(folder, 0o700)
        reading: list[int] = []
        writing: list[int] = []
        try:
            for name in FIFOS:
                path = os.path.join(folder, name)
                os.mkfifo(path, 0o600)
                reading.append(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
                mode = os.O_NONBLOCK if name == FIFOS[2] else 0
                writing.append(os.open(path, os.O_WRONLY | os.O_CLOEXEC | mode))
        except OSError:
            close_all(reading + writing)
            raise
        self._ours[sandbox_id] = tuple(reading)
        try:
            await self._hand_over(sandbox_id)
        except BaseException:
            close_all(writing)
            raise
        return writing[0], writing[1], writing[2]

    def held(self, sandbox_id: str) -> None:
        """The supervisor holds them: ours can go."""
        close_all(self._ours.pop(sandbox_id, ()))
        answer = self._answers.get(sandbox_id)
        if answer is not None and not answer.done():
            answer.set_result(None)

    def offer(self) -> None:
        """The supervisor is there (again): offer it all that we hold ourselves."""
        for sandbox_id, fds in self._ours.items():
            self._send(Hold(sandbox_id=sandbox_id, held_at=self._clock()), fds)

    def remove(self, sandbox_id: str) -> None:
        """The sandbox is gone: whoever reads reads the rest and closes."""
        self._send(Release(sandbox_id=sandbox_id))
        close_all(self._ours.pop(sandbox_id, ()))
        shutil.rmtree(os.path.join(self._folder, sandbox_id), ignore_errors=True)

    async def _hand_over(self, sandbox_id: str) -> None:
        """Wait until they are held; without a supervisor we hold them until it comes."""
        answer = asyncio.get_running_loop().create_future()
        self._answers[sandbox_id] = answer
        try:
            if self._send(Hold(sandbox_id=sandbox_id, held_at=self._clock()), self._ours[sandbox_id]):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(answer, _HELD_WITHIN)
        finally:
            del self._answers[sandbox_id]
