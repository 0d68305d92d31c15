"""Programs kept by hash, on disk for a day after their last use and in memory within a bound.

One file a program under `<code_dir>/<tenant>/`, replaced atomically, so that workers share the folder without
speaking. All disk work runs in one thread; the event loop only looks things up in memory.
"""

import asyncio
import contextlib
import hashlib
import os
import shutil
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future

from sandpost.kernel import files, threads
from sandpost.logs.setup import get_logger
from sandpost.model.names import is_code_hash, tenant_name

log = get_logger()

KEPT_FOR = 86400.0
"""Seconds after its last use that a program is kept."""
MEMORY = 64 << 20
"""Bytes of programs that a worker holds in memory."""
_TOUCH_EVERY = 5.0
"""Seconds for which a use need not be noted on disk: another worker may remove what seems the least recently used."""
_SWEEP_EVERY = 1800.0
_SCAN_AGAIN = 60.0
_MISSED_FOR = 60.0
_MAX_NOTES = 65536
_BLOCK = 4096
"""A file counts at least a block, so that many small ones are bounded as well."""


class CodeStore:
    """Programs of all tenants, as one worker sees them. Callbacks run in the event loop that made it."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._loop = asyncio.get_running_loop()
        self._thread = threads.started(1, "code")
        # In memory, least recently used first.
        self._kept: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._size = 0
        # Bytes that wait for the disk.
        self._unwritten = 0
        # When the file's time was last renewed (monotonic), for programs that are surely on disk.
        self._touched: OrderedDict[tuple[str, str], float] = OrderedDict()
        # When a program that a sandbox has was looked for on disk.
        self._missed: OrderedDict[tuple[str, str], float] = OrderedDict()
        # The disk thread's own: bytes of a tenant's folder as last counted, and when.
        self._counted: dict[str, tuple[int, float]] = {}
        self._closed = False
        self._sweeper = self._loop.call_later(_SWEEP_EVERY / 2 + hash(os.getpid()) % 600, self._sweep)

    def close(self) -> None:
        """Finish what is being written, and stop."""
        self._closed = True
        self._sweeper.cancel()
        self._thread.shutdown(wait=True)

    def look(self, tenant: str, code_hash: str) -> bytes | None:
        """Return a program from memory."""
        found = self._kept.get((tenant, code_hash))
        if found is not None:
            self._kept.move_to_end((tenant, code_hash))
        return found

    @property
    def behind(self) -> bool:
        """Whether more than `MEMORY` bytes wait for the disk: nothing should be put now."""
        return self._unwritten > MEMORY

    def stored(self, tenant: str, code_hash: str) -> bool:
        """Whether the program is known to be on disk with a recent time, so that nothing need be done."""
        touched = self._touched.get((tenant, code_hash))
        return touched is not None and self._loop.time() - touched < _TOUCH_EVERY

    def put(self, tenant: str, code_hash: str, code: bytes, bound: int, done: Callable[[], None]) -> None:
        """Keep a program; `done` runs when other workers can find it, or when that failed and was logged.

        `bound`: bytes that this tenant's programs may take on disk; the least recently used ones go first.
        """
        self._keep(tenant, code_hash, code)
        self._unwritten += len(code)

        def written(_: bytes | None) -> None:
            self._unwritten -= len(code)
            self._mark(tenant, code_hash)
            done()

        self._run(self._write, written, tenant, code_hash, code, bound)

    def fetch(self, tenant: str, code_hash: str, done: Callable[[bytes | None], None]) -> None:
        """Find a program on disk; `done` gets it, or None if there is none."""

        def take(code: bytes | None) -> None:
            if code is not None:
                self._keep(tenant, code_hash, code)
                self._mark(tenant, code_hash)
            done(code)

        self._run(self._read, take, tenant, code_hash)

    def renew(self, tenant: str, code_hash: str) -> None:
        """Note a use of a program that need not be read, so that it is kept for another day."""
        name = (tenant, code_hash)
        now = self._loop.time()
        if now - self._touched.get(name, -_TOUCH_EVERY) < _TOUCH_EVERY:
            return
        if now - self._missed.get(name, -_MISSED_FOR) < _MISSED_FOR:
            return

        def note(found: bytes | None) -> None:
            if found is not None:
                self._mark(tenant, code_hash)

        # Whether it is there still is known later; until then it is not asked again.
        self._missed[name] = now
        if len(self._missed) > _MAX_NOTES:
            self._missed.popitem(last=False)
        self._run(self._touch, note, tenant, code_hash)

    def forget(self, tenant: str) -> None:
        """Forget a tenant's programs, in memory and on disk."""
        for name in [name for name in self._kept if name[0] == tenant]:
            self._size -= len(self._kept.pop(name))
        for notes in (self._touched, self._missed):
            for name in [name for name in notes if name[0] == tenant]:
                del notes[name]
        self._run(self._remove, lambda _: None, tenant)

    # --- in the event loop --------------------------------------------------------------------------------

    def _run(self, work: Callable[..., bytes | None], done: Callable[[bytes | None], None], *args: object) -> None:
        if self._closed:
            done(None)
            return

        def finish(future: Future[bytes | None]) -> None:
            error = future.exception()
            if error is not None:
                log.error("programs cannot be kept", error=str(error))
            result = None if error is not None else future.result()
            # The loop may have closed while the thread worked; then nobody waits.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(done, result)

        self._thread.submit(work, *args).add_done_callback(finish)

    def _keep(self, tenant: str, code_hash: str, code: bytes) -> None:
        name = (tenant, code_hash)
        if name in self._kept:
            self._kept.move_to_end(name)
            return
        self._kept[name] = code
        self._size += len(code)
        while self._size > MEMORY and self._kept:
            _, dropped = self._kept.popitem(last=False)
            self._size -= len(dropped)

    def _mark(self, tenant: str, code_hash: str) -> None:
        self._touched[(tenant, code_hash)] = self._loop.time()
        if len(self._touched) > _MAX_NOTES:
            self._touched.popitem(last=False)

    def _sweep(self) -> None:
        self._sweeper = self._loop.call_later(_SWEEP_EVERY, self._sweep)
        self._run(self._sweep_disk, lambda _: None)

    # --- in the thread ------------------------------------------------------------------------------------

    def _path(self, tenant: str, code_hash: str) -> str:
        assert is_code_hash(code_hash)
        return os.path.join(self._folder, tenant_name(tenant), code_hash)

    def _remove(self, tenant: str) -> None:
        self._counted.pop(tenant, None)
        # Every worker does; whoever comes later finds less or nothing.
        shutil.rmtree(os.path.join(self._folder, tenant_name(tenant)), ignore_errors=True)

    def _write(self, tenant: str, code_hash: str, code: bytes, bound: int) -> None:
        path = self._path(tenant, code_hash)
        try:
            os.utime(path)
        except FileNotFoundError:
            pass
        else:
            return
        try:
            files.replace(path, code, 0o600)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            files.replace(path, code, 0o600)
        self._bound(tenant, max(len(code), _BLOCK), bound)

    def _read(self, tenant: str, code_hash: str) -> bytes | None:
        path = self._path(tenant, code_hash)
        try:
            with open(path, "rb") as file:
                code = file.read()
        except FileNotFoundError:
            return None
        if hashlib.sha256(code).hexdigest() != code_hash:
            # Cut short by a crash of the machine: not a program that anybody sent.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            return None
        os.utime(path)
        return code

    def _touch(self, tenant: str, code_hash: str) -> bytes | None:
        try:
            os.utime(self._path(tenant, code_hash))
        except FileNotFoundError:
            return None
        return b""

    def _bound(self, tenant: str, added: int, bound: int) -> None:
        """Count a tenant's folder, and remove the least recently used programs beyond `bound`.

        Other workers write there too, so the folder is counted anew when it may be full and once a minute.
        """
        size, counted_at = self._counted.get(tenant, (0, 0.0))
        size += added
        now = time.monotonic()
        if counted_at and size <= bound and now - counted_at < _SCAN_AGAIN:
            self._counted[tenant] = (size, counted_at)
            return
        entries = _entries(os.path.join(self._folder, tenant))
        size = sum(entry[1] for entry in entries)
        if size > bound:
            entries.sort()
            # Well below the bound, so that the next count is not the next write.
            for _, length, path in entries:
                if size <= bound * 0.9:
                    break
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
                size -= length
        if len(self._counted) > 4096:
            self._counted.clear()
        self._counted[tenant] = (size, now)

    def _sweep_disk(self) -> None:
        """Remove what was not used for a day, and folders of tenants that have nothing left."""
        oldest = time.time() - KEPT_FOR
        with contextlib.suppress(FileNotFoundError), os.scandir(self._folder) as tenants:
            for tenant in tenants:
                if not tenant.is_dir(follow_symlinks=False):
                    continue
                for used, _, path in _entries(tenant.path):
                    if used < oldest:
                        with contextlib.suppress(FileNotFoundError):
                            os.unlink(path)
                with contextlib.suppress(OSError):
                    os.rmdir(tenant.path)


def _entries(folder: str) -> list[tuple[float, int, str]]:
    """List a tenant's files as time of last use, bytes, path."""
    found = []
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                stat = entry.stat(follow_symlinks=False)
                found.append((stat.st_mtime, max(stat.st_size, _BLOCK), entry.path))
    return found
