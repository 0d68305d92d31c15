"""Reader of the local bus: follows any number of streams in one event loop, woken by the kernel.

Of a stream its folder is watched, and the folder of all in which it comes and goes. Who is at the same place gets the
same piece, so that a thousand who follow one stream cost one read. What is in memory is read at once, what is not
in a thread.
"""

import asyncio
import contextlib
import errno
import os
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Sequence

from sandpost.bus.contract import Missing, Record, Start
from sandpost.bus.local_pieces import Piece, Place, Stream, at_once, patiently, read, stream_at
from sandpost.bus.local_places import begin, end, first
from sandpost.kernel import inotify
from sandpost.model.errors import BusError

MAX_PIECES = 32
"""Pieces that are kept for others who come to the same place: 8 MiB of lines, but for larger records."""
_STREAM_EVENTS = inotify.MODIFIED | inotify.ARRIVED | inotify.ENDED
_PARENT_EVENTS = inotify.ARRIVED | inotify.ENDED


class LocalReader:
    """Reads the streams below a folder (`contract.Reader`)."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._watcher: inotify.Watcher | None = None
        self._followed: dict[str, _Followed] = {}
        # Least recently used first.
        self._pieces: OrderedDict[tuple[_Followed, int, Place], Piece] = OrderedDict()
        self._closed = False

    def follow(self, stream: str, start: Start) -> AsyncGenerator[Sequence[Record | Missing], None]:
        return self._follow(stream, stream_at(self._folder, stream), start)

    async def end(self, stream: str) -> int:
        """See `contract.Reader.end`."""
        at = stream_at(self._folder, stream)
        try:
            await asyncio.to_thread(os.stat, self._folder)
            return await asyncio.to_thread(end, at)
        except OSError as error:
            raise BusError(_words(self._folder, error)) from error

    async def close(self) -> None:
        self._closed = True
        for followed in list(self._followed.values()):
            followed.wake()
        if self._watcher is not None:
            self._watcher.close()

    async def _follow(
        self, name: str, stream: Stream, start: Start
    ) -> AsyncGenerator[Sequence[Record | Missing], None]:
        if self._closed:
            return
        try:
            # Watched before it is read: what comes after either is told.
            followed = self._hold(name, stream)
            try:
                known: int | None
                known, (items, place) = await asyncio.to_thread(lambda: (end(stream), begin(stream, start)))
                if items:
                    yield items
                while not self._closed:
                    if known is not None and (place is None or place.wanted >= known):
                        known = None
                        yield ()
                        continue
                    changes, before = followed.changes, place
                    items, place = await self._read(followed, place)
                    if items:
                        yield items
                        # Others have their turn, also if all of a long history is in memory.
                        await asyncio.sleep(0)
                    elif place == before and changes == followed.changes:
                        if known is None:
                            await followed.changed.wait()
                        else:
                            # The rest of what was there is damaged, or has gone.
                            known = 0
            finally:
                self._release(name, followed)
        except OSError as error:
            raise BusError(_words(self._folder, error)) from error

    async def _read(self, followed: "_Followed", place: Place | None) -> Piece:
        followed.check()
        if place is None:
            place = first(followed.stream)
            if place is None:
                return Piece((), None)
        key = (followed, followed.life, place)
        known = self._pieces.get(key)
        if known is not None:
            self._pieces.move_to_end(key)
            return known
        changes = followed.changes
        if followed.idle == (place, changes):
            return Piece((), place)
        try:
            piece = read(followed.stream, place, at_once)
        except BlockingIOError:
            piece = await asyncio.to_thread(read, followed.stream, place, patiently)
        if piece.items and followed.followers > 1:
            self._pieces[key] = piece
            if len(self._pieces) > MAX_PIECES:
                self._pieces.popitem(last=False)
        if not piece.items and piece.place == place:
            followed.idle = (place, changes)
        return piece

    def _hold(self, name: str, stream: Stream) -> "_Followed":
        followed = self._followed.get(name)
        if followed is None:
            if self._watcher is None:
                self._watcher = inotify.Watcher(asyncio.get_running_loop())
            followed = self._followed[name] = _Followed(stream, self._folder, self._watcher)
        followed.followers += 1
        return followed

    def _release(self, name: str, followed: "_Followed") -> None:
        followed.followers -= 1
        if not followed.followers:
            followed.end()
            del self._followed[name]


class _Followed:
    """A stream that somebody follows."""

    def __init__(self, stream: Stream, parent: str, watcher: inotify.Watcher) -> None:
        self.stream = stream
        self.followers = 0
        self.changes = 0
        """How often something came."""
        self.life = 0
        """How often its folder came; what was read in another life is not here any more."""
        self.changed = asyncio.Event()
        self.idle: tuple[Place, int] | None = None
        """Where nothing was, after how many changes."""
        self._parent = parent
        self._watcher = watcher
        self._failed: OSError | None = None
        self._undo: list[Callable[[], None]] = []
        self._inode = 0
        try:
            self._watch()
        except OSError:
            self.end()
            raise

    def wake(self) -> None:
        """Let all look again."""
        self.changes += 1
        self.changed.set()
        self.changed.clear()

    def check(self) -> None:
        """Raise what keeps it from being watched."""
        if self._failed is not None:
            raise self._failed

    def end(self) -> None:
        """Watch no longer."""
        for undo in self._undo:
            undo()
        self._undo = []

    def _watch(self) -> None:
        """Watch the folder of all streams, and this one's if it is there."""
        self._undo.append(
            self._watcher.watch(self._parent, self._arrived, events=_PARENT_EVENTS, on_end=self._watch_again)
        )
        # In this order: another folder that comes in between is seen as another one.
        self._inode = _inode(self.stream.folder)
        if self._inode:
            with contextlib.suppress(FileNotFoundError):
                self._undo.append(
                    self._watcher.watch(self.stream.folder, self.wake, events=_STREAM_EVENTS, on_end=self._watch_again)
                )

    def _arrived(self) -> None:
        if self._inode != _inode(self.stream.folder):
            self._watch_again()

    def _watch_again(self) -> None:
        self.end()
        self.life += 1
        try:
            self._watch()
        except OSError as error:
            self._failed = error
        self.wake()


def _inode(path: str) -> int:
    """Return a folder's number; 0 if it is not there."""
    try:
        return os.stat(path).st_ino
    except (FileNotFoundError, NotADirectoryError):
        return 0


def _words(folder: str, error: OSError) -> str:
    said = {
        errno.ENOENT: "the folder is not there: is the collector running?",
        errno.ENOSPC: "more folders would be watched than fs.inotify.max_user_watches: raise it",
        errno.EMFILE: "more files are open than this process may have, or more than fs.inotify.max_user_instances",
    }.get(error.errno or 0, error.strerror or str(error))
    return f"logs cannot be read below {error.filename or folder}: {said}"
