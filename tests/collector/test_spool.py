"""Spool files on a real file system, with real FIFOs."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from sandpost.collector import spool as spools
from sandpost.collector.spool import Spool, SpoolFullError

ID = "0123456789ab"


@contextlib.contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    os.set_blocking(read, False)
    try:
        yield read, write
    finally:
        os.close(read)
        os.close(write)


def test_bytes_stand_at_their_positions_and_holes_take_nothing(tmp_path: Path) -> None:
    spool = Spool.make(str(tmp_path / "s"), "acme")
    with pipe() as (read, write):
        assert spool.take(read, 100) is None
        for number in range(100):
            os.write(write, b"%010d" % number * 1000)
            assert spool.take(read, 1 << 16) == 10_000
        assert spool.length == 1_000_000
        assert spool.read(10_000 * 7 + 5, 10) == b"0000700000"
        used = spool.used
        assert spool.free(0, 500_000) == 500_000 // 4096 * 4096
        assert spool.used <= used - 480_000
        assert (spool.read(0, 4), spool.read(500_000, 4)) == (b"\0\0\0\0", b"0000")
        assert spool.free(499_712, 500_001) == 499_712
    spool.mark.kept = 500_000
    spool.save()
    spool.close()
    found = Spool.find(str(tmp_path / "s"))
    assert found is not None
    assert (found.length, found.mark.kept, found.mark.tenant) == (1_000_000, 500_000, "acme")
    found.remove()
    assert os.listdir(tmp_path) == []


def test_an_ended_fifo_says_so(tmp_path: Path) -> None:
    spool = Spool.make(str(tmp_path / "s"), "acme")
    read, write = os.pipe()
    os.write(write, b"last")
    os.close(write)
    assert (spool.take(read, 100), spool.take(read, 100)) == (4, 0)
    os.close(read)
    spool.remove()


def test_a_file_without_a_mark_was_never_used(tmp_path: Path) -> None:
    (tmp_path / "s").write_bytes(b"")
    assert Spool.find(str(tmp_path / "s")) is None
    assert not (tmp_path / "s").exists()


def test_streams_are_found_by_their_files(tmp_path: Path) -> None:
    for number in (0, 2):
        Spool.make(spools.path_of(str(tmp_path), ID, number), "acme").close()
    (tmp_path / "other").write_bytes(b"")
    assert sorted(spools.left(str(tmp_path))) == [(ID, 0), (ID, 2)]
    assert spools.source_of(ID, 2) == f"{ID}.log"


def test_what_a_full_file_system_does_not_take_stays_in_the_fifo(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], check=True)
    try:
        spool = Spool.make(str(tmp_path / "s"), "acme")
        with pipe() as (read, write):
            os.write(write, b"x" * 60_000)
            moved = spool.take(read, 1 << 16) or 0
            os.write(write, b"y" * (1 << 14))
            with contextlib.suppress(SpoolFullError):
                while True:
                    moved += spool.take(read, 1 << 16) or 0
            assert moved < 65_536
            spool.free(0, moved)
            while taken := spool.take(read, 1 << 16):
                moved += taken
            assert moved == spool.length == 60_000 + (1 << 14)
            # Its mark needs no new page.
            spool.save()
        spool.close()
    finally:
        subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


KILLED = """
import os, sys
from sandpost.collector.spool import Spool
path, fifo = sys.argv[1:]
spool = Spool.find(path) if os.path.exists(path) else Spool.make(path, "acme")
read = os.open(fifo, os.O_RDONLY)
print("here", flush=True)
while True:
    if spool.take(read, 65536) == 0:
        break
    spool.mark.kept = spool.length
    spool.save()
    spool.free(0, spool.length // 2)
"""


def test_no_byte_is_lost_or_doubled_by_kills_while_bytes_are_moved(tmp_path: Path) -> None:
    fifo, path = tmp_path / "fifo", tmp_path / "spool"
    os.mkfifo(fifo)
    holder = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    end = os.open(fifo, os.O_WRONLY)
    # The number of each line is its place: whatever is lost or doubled shows in all that follow.
    writer = subprocess.Popen(
        [sys.executable, "-c", "import sys\nfor n in range(3_000_000): sys.stdout.write('%09d\\n' % n)"],
        stdout=end,
    )
    os.close(end)
    kills = 0
    try:
        while writer.poll() is None and kills < 30:
            mover = subprocess.Popen([sys.executable, "-c", KILLED, str(path), str(fifo)], stdout=subprocess.PIPE)
            assert mover.stdout is not None
            mover.stdout.readline()
            with contextlib.suppress(subprocess.TimeoutExpired):
                mover.wait(0.01 + kills % 7 / 100)
            mover.kill()
            mover.wait()
            mover.stdout.close()
            kills += 1
            found = Spool.find(str(path))
            assert found is not None
            assert found.mark.kept <= found.length
            whole = found.length // 10 * 10
            for place in range(max(found.length // 2 + 10, whole - 100_000) // 10 * 10, whole, 10):
                assert found.read(place, 10) == b"%09d\n" % (place // 10)
            found.close()
    finally:
        writer.kill()
        writer.wait()
        os.close(holder)
    assert kills > 5
