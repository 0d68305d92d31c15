"""Whoever watches is called, and called when there is nothing to watch any more."""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

from sandpost.kernel import inotify


def run(body: Callable[[inotify.Watcher], Awaitable[None]]) -> None:
    async def main() -> None:
        watcher = inotify.Watcher(asyncio.get_running_loop())
        try:
            await body(watcher)
        finally:
            watcher.close()

    asyncio.run(main())


class Calls:
    """What was called, and a wait for it."""

    def __init__(self) -> None:
        self.changes = self.ends = 0

    def changed(self) -> None:
        self.changes += 1

    def ended(self) -> None:
        self.ends += 1


async def settle() -> None:
    await asyncio.sleep(0.05)


def test_a_folder_tells_what_comes_and_changes_in_it_until_it_is_undone(tmp_path: Path) -> None:
    async def body(watcher: inotify.Watcher) -> None:
        one, two = Calls(), Calls()
        events = inotify.MODIFIED | inotify.ARRIVED | inotify.ENDED
        undo = watcher.watch(str(tmp_path), one.changed, events=events, on_end=one.ended)
        watcher.watch(str(tmp_path), two.changed, events=events, on_end=two.ended)
        (tmp_path / "file").touch()
        await settle()
        assert (one.changes, two.changes) == (1, 1)
        (tmp_path / "file").write_text("x")
        await settle()
        assert (one.changes, two.changes) == (2, 2)
        undo()
        undo()
        (tmp_path / "file").write_text("y")
        await settle()
        assert (one.changes, two.changes, one.ends, two.ends) == (2, 3, 0, 0)

    run(body)


def test_the_end_of_what_is_watched_is_told(tmp_path: Path) -> None:
    async def body(watcher: inotify.Watcher) -> None:
        def move(path: Path) -> None:
            path.rename(tmp_path / "away")

        for name, end in (("removed", Path.rmdir), ("moved", move)):
            calls = Calls()
            (tmp_path / name).mkdir()
            undo = watcher.watch(str(tmp_path / name), calls.changed, events=inotify.ENDED, on_end=calls.ended)
            end(tmp_path / name)
            await settle()
            assert (calls.changes, calls.ends) == (0, 1), name
            undo()

    run(body)


def test_after_more_events_than_the_kernel_keeps_all_are_to_look_again(tmp_path: Path) -> None:
    async def body(watcher: inotify.Watcher) -> None:
        busy, quiet, plain = Calls(), Calls(), Calls()
        for name in ("busy", "quiet", "plain"):
            (tmp_path / name).mkdir()
        watcher.watch(str(tmp_path / "busy"), busy.changed, events=inotify.ARRIVED, on_end=busy.ended)
        watcher.watch(str(tmp_path / "quiet"), quiet.changed, events=inotify.ARRIVED, on_end=quiet.ended)
        watcher.watch(str(tmp_path / "plain"), plain.changed, events=inotify.ARRIVED)
        most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
        for _ in range(most // 2 + 10):
            # Made and removed: names in turns, so that no event is merged with the one before.
            for name in ("a", "b"):
                os.close(os.open(tmp_path / "busy" / name, os.O_CREAT | os.O_WRONLY))
                os.unlink(tmp_path / "busy" / name)
        await settle()
        assert (busy.ends, quiet.ends, plain.changes) == (1, 1, 1)

    run(body)


def test_it_may_be_closed_from_another_thread_while_things_come(tmp_path: Path) -> None:
    file = tmp_path / "busy"
    file.touch()
    failed: list[str] = []

    async def body() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: failed.append(str(context)))
        over = threading.Event()

        def write() -> None:
            while not over.is_set():
                file.write_bytes(b"x")

        writing = asyncio.create_task(asyncio.to_thread(write))
        for _ in range(300):
            watcher = inotify.Watcher(loop)
            watcher.watch(str(file), lambda: None)
            await asyncio.sleep(0.001)
            await asyncio.to_thread(watcher.close)
        over.set()
        await writing
        await asyncio.sleep(0.01)

    before = len(os.listdir("/proc/self/fd"))
    asyncio.run(body())
    assert failed == []
    assert len(os.listdir("/proc/self/fd")) <= before
