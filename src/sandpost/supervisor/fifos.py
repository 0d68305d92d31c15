"""The read ends of sandboxes' output, held so that no other reader's death reaches a writer."""

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence

from sandpost.kernel.descriptors import close_all
from sandpost.model.host import FIFOS
from sandpost.model.names import is_sandbox_id


class Fifos:
    """Held read ends, three a sandbox."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[int, ...]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        return iter(self._held.items())

    def hold(self, sandbox_id: str, fds: Sequence[int]) -> bool:
        """Take `fds` over; False, and they are closed, if they are not three or the sandbox's are held already."""
        if len(fds) != len(FIFOS) or sandbox_id in self._held or not is_sandbox_id(sandbox_id):
            close_all(fds)
            return False
        self._held[sandbox_id] = tuple(fds)
        return True

    def of(self, sandbox_id: str) -> tuple[int, ...]:
        """Return a sandbox's three, which stay ours; empty if they are not held."""
        return self._held.get(sandbox_id, ())

    def release(self, sandbox_id: str) -> None:
        """Close a sandbox's, if they are held."""
        close_all(self._held.pop(sandbox_id, ()))

    def reopen(self, folder: str) -> None:
        """Hold what an earlier supervisor held: every whole set of FIFOs below `folder`."""
        for sandbox_id in os.listdir(folder):
            if is_sandbox_id(sandbox_id) and sandbox_id not in self._held:
                fds = _open_set(os.path.join(folder, sandbox_id))
                if fds:
                    self._held[sandbox_id] = fds

    def close(self) -> None:
        """Close all."""
        for sandbox_id in list(self._held):
            self.release(sandbox_id)


def _open_set(folder: str) -> tuple[int, ...]:
    fds: list[int] = []
    with contextlib.suppress(OSError):
        # For reading and writing: never end of file, whether or not a writer is there now.
        flags = os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
        fds.extend(os.open(os.path.join(folder, name), flags) for name in FIFOS)
    if len(fds) == len(FIFOS) and all(stat.S_ISFIFO(os.fstat(fd).st_mode) for fd in fds):
        return tuple(fds)
    close_all(fds)
    return ()
