"""The folder of one sandbox on the host: `<run_dir>/bundles/<id>`.

It is the first thing of a sandbox and the last that goes, so that whatever was half made is found by it. While
the OCI runtime is at work in it the folder is locked by a descriptor that the runtime inherits: also when we are
killed meanwhile, nobody removes what is still being made.
"""

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from sandpost.model.errors import EngineError
from sandpost.model.limits import EngineName
from sandpost.model.names import is_sandbox_id

_FRESH = ".new-"


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """What a bundle belongs to."""

    group_id: str
    slot: int
    engine: EngineName = "runc"


class Bundles:
    """The bundles of one installation."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def open(self) -> None:
        """Make the folder; remove what was never complete enough to be a bundle."""
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        for name in os.listdir(self._folder):
            if name.startswith(_FRESH):
                shutil.rmtree(os.path.join(self._folder, name))

    def path(self, sandbox_id: str, *parts: str) -> str:
        """Return the path of a bundle or of something in it."""
        return os.path.join(self._folder, sandbox_id, *parts)

    def make(self, sandbox_id: str, owner: Owner) -> int:
        """Make a bundle that says what it belongs to; return the descriptor that holds its lock."""
        fresh = os.path.join(self._folder, f"{_FRESH}{sandbox_id}")
        os.mkdir(fresh, 0o700)
        _write(os.path.join(fresh, "owner.json"), msgspec.json.encode(owner))
        try:
            os.rename(fresh, self.path(sandbox_id))
        except OSError as error:
            shutil.rmtree(fresh)
            raise EngineError(f"there is a sandbox {sandbox_id} already: remove it first") from error
        lock = os.open(self.path(sandbox_id), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(lock, fcntl.LOCK_EX)
        return lock

    def configure(self, sandbox_id: str, config: Mapping[str, Any]) -> None:
        """Write the bundle's OCI configuration."""
        _write(self.path(sandbox_id, "config.json"), msgspec.json.encode(config))

    def owner(self, sandbox_id: str) -> Owner | None:
        """Return what a bundle belongs to; None if there is no such bundle."""
        try:
            with open(self.path(sandbox_id, "owner.json"), "rb") as file:
                return msgspec.json.decode(file.read(), type=Owner)
        except FileNotFoundError:
            return None

    def pid(self, sandbox_id: str) -> int | None:
        """Return the host pid of the sandbox's first process, as the OCI runtime wrote it; None if it did not."""
        try:
            with open(self.path(sandbox_id, "pid"), encoding="ascii") as file:
                return int(file.read())
        except (FileNotFoundError, ValueError):
            return None

    def find(self) -> dict[str, Owner]:
        """Map the ids of all bundles to what they belong to."""
        found = {}
        for name in os.listdir(self._folder):
            if is_sandbox_id(name) and (owner := self.owner(name)) is not None:
                found[name] = owner
        return found

    def wait_unlocked(self, sandbox_id: str, patience: float) -> bool:
        """Wait until no OCI runtime works in the bundle any more; False if that takes too long."""
        try:
            fd = os.open(self.path(sandbox_id), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        end = time.monotonic() + patience
        try:
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if time.monotonic() > end:
                        return False
                    time.sleep(0.01)
                else:
                    return True
        finally:
            os.close(fd)

    def remove(self, sandbox_id: str) -> None:
        """Remove a bundle: by one rename, whose rest `open` removes if we are killed before it is gone."""
        doomed = os.path.join(self._folder, f"{_FRESH}{sandbox_id}")
        with contextlib.suppress(FileNotFoundError):
            os.rename(self.path(sandbox_id), doomed)
            shutil.rmtree(doomed)

    def purge(self) -> None:
        """Remove the folder, which must have no bundle left."""
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(self._folder)


def _write(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
