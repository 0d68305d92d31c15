"""The OCI runtime's program as a sealed copy in memory."""

import errno
import fcntl
import os
import threading

from sandpost.kernel.descriptors import close_all

_MFD_EXEC = 0x10
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_HIGH = 64
"""A child's own descriptors have lower numbers (`engines.launch`): the copy must still be there when it is run."""


class Sealed:
    """Keeps a copy of a program that nobody can write to.

    runc protects its program from what runs in a sandbox (CVE-2019-5736): in every start it binds it read-only
    over a file, runs that a second time and unmounts it, which costs 2 ms of CPU and tells every watcher of
    the host's mounts (systemd) twice. It leaves that out for a program that is such a copy already.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._copies: dict[tuple[int, int, int], int] = {}

    def program(self) -> str:
        """Return what to run: the copy, a new one if the file has changed; the file itself where none can be had."""
        try:
            info = os.stat(self._path)
            version = (info.st_dev, info.st_ino, info.st_mtime_ns)
            with self._lock:
                if version not in self._copies:
                    # An older copy stays until `close`: another thread may be about to run it.
                    self._copies[version] = _seal(self._path)
                return f"/proc/self/fd/{self._copies[version]}"
        except OSError:
            return self._path

    def close(self) -> None:
        """Let go of the copies; what runs one keeps it."""
        with self._lock:
            close_all(self._copies.values())
            self._copies.clear()


def _seal(path: str) -> int:
    """Return a descriptor of a sealed copy that is open for reading alone, since a file open for writing cannot run."""
    try:
        writing = os.memfd_create("oci-runtime", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | _MFD_EXEC)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        # Before Linux 6.3 every copy may be run, and nothing asks for it.
        writing = os.memfd_create("oci-runtime", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(path, "rb", buffering=0) as file:
            if file.read(4) != b"\x7fELF":
                # A script is read by its interpreter, under a name that then is gone.
                raise OSError(errno.ENOEXEC, os.strerror(errno.ENOEXEC), path)
            file.seek(0)
            size = os.fstat(file.fileno()).st_size
            while size > 0:
                sent = os.sendfile(writing, file.fileno(), None, size)
                if sent == 0:
                    raise OSError(errno.EIO, os.strerror(errno.EIO), path)
                size -= sent
        fcntl.fcntl(writing, fcntl.F_ADD_SEALS, _SEALS)
        reading = os.open(f"/proc/self/fd/{writing}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(writing)
    try:
        return fcntl.fcntl(reading, fcntl.F_DUPFD_CLOEXEC, _HIGH)
    finally:
        os.close(reading)
