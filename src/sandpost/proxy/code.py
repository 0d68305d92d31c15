"""Programs kept by hash, on disk for a day after their last use and in memory within a bound.

One file a program under `<code_dir>/<tenant>/`, named by its hash and, but for JavaScript, its language. It is
replaced atomically, so that workers share the folder without speaking. Beside it, as `.made`, lies what the tenant's
sandboxes have made of it, to which workers append. All disk work runs in one thread; the event loop only looks things
up in memory.
"""

import asyncio
import contextlib
import os
import shutil
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import TypeVar

from sandpost.kernel import files, threads
from sandpost.logs.setup import get_logger
from sandpost.model.languages import JAVASCRIPT, LANGUAGES, Language
from sandpost.model.names import is_code_hash, tenant_name
from sandpost.proxy.program import Program, kept

log = get_logger()

Result = TypeVar("Result")

KEPT_FOR = 86400.0
"""Seconds after its last use that a program is kept."""
MADE = 4 << 20
"""Bytes that are kept of what sandboxes have made of a program (docs/runtime.md, `made`)."""
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
        self._kept: OrderedDict[tuple[str, str], Program] = OrderedDict()
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

    def look(self, tenant: str, code_hash: str) -> Program | None:
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

    def put(self, tenant: str, program: Program, bound: int, done: Callable[[], None]) -> None:
        """Keep a program; `done` runs when other workers can find it, or when that failed and was logged.

        `bound`: bytes that this tenant's programs may take on disk; the least recently used ones go first.
        """
        self._keep(tenant, program)
        self._unwritten += len(program.code)

        def written(_: Program | None) -> None:
            self._unwritten -= len(program.code)
            self._mark(tenant, program.id)
            done()

        self._run(self._write, written, tenant, program, bound)

    def put_made(self, tenant: str, code_hash: str, made: bytes, bound: int) -> None:
        """Keep what a sandbox has made of a kept program, up to `MADE` bytes of each. `bound` is that of `put`."""
        name = (tenant, code_hash)
        program = self._kept.get(name)
        if program is not None and len(program.made) + len(made) <= MADE:
            self._kept[name] = replace(program, made=program.made + made)
            self._size += len(made)
            self._shrink()
        self._unwritten += len(made)

        def written(_: None) -> None:
            self._unwritten -= len(made)

        self._run(self._append, written, tenant, code_hash, made, bound)

    def add_made(self, tenant: str, program: Program, done: Callable[[Program], None]) -> None:
        """Look on disk for what other workers have put of a program; `done` gets it with that."""
        name = (tenant, program.id)

        def take(made: bytes | None) -> None:
            found = replace(program, made=made) if made else program
            kept = self._kept.get(name)
            if kept is not None and not kept.made:
                self._kept[name] = found
                self._size += len(found.made)
                self._shrink()
            done(found)

        self._run(self._read_made, take, tenant, program.id)

    def fetch(self, tenant: str, code_hash: str, done: Callable[[Program | None], None]) -> None:
        """Find a program on disk; `done` gets it, or None if there is none."""

        def take(program: Program | None) -> None:
            if program is not None:
                self._keep(tenant, program)
                self._mark(tenant, code_hash)
            done(program)

        self._run(self._read, take, tenant, code_hash)

    def renew(self, tenant: str, code_hash: str) -> None:
        """Note a use of a program that need not be read, so that it is kept for another day."""
        name = (tenant, code_hash)
        now = self._loop.time()
        if now - self._touched.get(name, -_TOUCH_EVERY) < _TOUCH_EVERY:
            return
        if now - self._missed.get(name, -_MISSED_FOR) < _MISSED_FOR:
            return

        def note(found: bool | None) -> None:
            if found:
                self._mark(tenant, code_hash)

        # Whether it is there still is known later; until then it is not asked again.
        self._missed[name] = now
        if len(self._missed) > _MAX_NOTES:
            self._missed.popitem(last=False)
        self._run(self._touch, note, tenant, code_hash)

    def forget(self, tenant: str) -> None:
        """Forget a tenant's programs, in memory and on disk."""
        for name in [name for name in self._kept if name[0] == tenant]:
            self._size -= _bytes_of(self._kept.pop(name))
        for notes in (self._touched, self._missed):
            for name in [name for name in notes if name[0] == tenant]:
                del notes[name]
        self._run(self._remove, lambda _: None, tenant)

    # --- in the event loop --------------------------------------------------------------------------------

    def _run(self, work: Callable[..., Result | None], done: Callable[[Result | None], None], *args: object) -> None:
        if self._closed:
            done(None)
            return

        def finish(future: Future[Result | None]) -> None:
            error = future.exception()
            if error is not None:
                log.error("programs cannot be kept", error=str(error))
            result = None if error is not None else future.result()
            # The loop may have closed while the thread worked; then nobody waits.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(done, result)

        self._thread.submit(work, *args).add_done_callback(finish)

    def _keep(self, tenant: str, program: Program) -> None:
        name = (tenant, program.id)
        if name in self._kept:
            self._kept.move_to_end(name)
            return
        self._kept[name] = program
        self._size += _bytes_of(program)
        self._shrink()

    def _shrink(self) -> None:
        while self._size > MEMORY and self._kept:
            _, dropped = self._kept.popitem(last=False)
            self._size -= _bytes_of(dropped)

    def _mark(self, tenant: str, code_hash: str) -> None:
        self._touched[(tenant, code_hash)] = self._loop.time()
        if len(self._touched) > _MAX_NOTES:
            self._touched.popitem(last=False)

    def _sweep(self) -> None:
        self._sweeper = self._loop.call_later(_SWEEP_EVERY, self._sweep)
        self._run(self._sweep_disk, lambda _: None)

    # --- in the thread ------------------------------------------------------------------------------------

    def _path(self, tenant: str, code_hash: str, language: Language) -> str:
        assert is_code_hash(code_hash)
        name = code_hash if language is JAVASCRIPT else f"{code_hash}.{language.name}"
        return os.path.join(self._folder, tenant_name(tenant), name)

    def _remove(self, tenant: str) -> None:
        self._counted.pop(tenant, None)
        # Every worker does; whoever comes later finds less or nothing.
        shutil.rmtree(os.path.join(self._folder, tenant_name(tenant)), ignore_errors=True)

    def _write(self, tenant: str, program: Program, bound: int) -> None:
        path, code = self._path(tenant, program.id, program.language), program.code
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

    def _made(self, tenant: str, code_hash: str) -> str:
        assert is_code_hash(code_hash)
        return os.path.join(self._folder, tenant_name(tenant), f"{code_hash}.made")

    def _append(self, tenant: str, code_hash: str, made: bytes, bound: int) -> None:
        # Other workers append, too: each does so whole. What is cut short by a crash the runtime leaves out.
        try:
            fd = os.open(self._made(tenant, code_hash), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            return
        try:
            if os.fstat(fd).st_size + len(made) > MADE:
                return
            os.write(fd, made)
        finally:
            os.close(fd)
        self._bound(tenant, max(len(made), _BLOCK), bound)

    def _read_made(self, tenant: str, code_hash: str) -> bytes:
        try:
            with open(self._made(tenant, code_hash), "rb") as file:
                os.utime(file.fileno())
                return file.read(MADE)
        except FileNotFoundError:
            return b""

    def _read(self, tenant: str, code_hash: str) -> Program | None:
        for language in LANGUAGES:
            path = self._path(tenant, code_hash, language)
            try:
                with open(path, "rb") as file:
                    code = file.read()
            except FileNotFoundError:
                continue
            program = kept(code_hash, language, code)
            if program is not None:
                # Another worker may have let it go just now.
                with contextlib.suppress(FileNotFoundError):
                    os.utime(path)
                return replace(program, made=self._read_made(tenant, code_hash))
            # Cut short by a crash of the machine: not a program that anybody sent.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        return None

    def _touch(self, tenant: str, code_hash: str) -> bool:
        """Note a use on disk; says whether the program is there. Whoever calls by hash does not know its language."""
        for language in LANGUAGES:
            with contextlib.suppress(FileNotFoundError):
                os.utime(self._path(tenant, code_hash, language))
                return True
        return False

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


def _bytes_of(program: Program) -> int:
    return len(program.code) + len(program.made)


def _entries(folder: str) -> list[tuple[float, int, str]]:
    """List a tenant's files as time of last use, bytes, path."""
    found = []
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                stat = entry.stat(follow_symlinks=False)
                found.append((stat.st_mtime, max(stat.st_size, _BLOCK), entry.path))
    return found
