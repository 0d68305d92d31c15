"""A file is replaced whole or not at all."""

import errno
import os
import stat
import subprocess
import threading
from pathlib import Path

import pytest

from sandpost.kernel import files


def test_readers_get_all_of_the_old_or_all_of_the_new(tmp_path: Path) -> None:
    path = tmp_path / "file"
    texts = {b"a" * 100_000, b"b" * 70_000}
    files.replace(str(path), max(texts), 0o644)
    done = threading.Event()

    def write() -> None:
        for _ in range(200):
            for text in sorted(texts):
                files.replace(str(path), text, 0o644)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        assert path.read_bytes() in texts
    writer.join()
    assert os.listdir(tmp_path) == ["file"]


def test_mode_and_owner_are_as_told_whatever_the_umask(tmp_path: Path) -> None:
    path = str(tmp_path / "file")
    before = os.umask(0o077)
    try:
        files.replace(path, b"x", 0o444, (12, 34))
    finally:
        os.umask(before)
    found = os.stat(path)
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o444, 12, 34)


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], check=True, timeout=10)
    try:
        path = tmp_path / "file"
        files.replace(str(path), b"old", 0o600)
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            files.replace(str(path), bytes(1 << 20), 0o600)
        assert path.read_bytes() == b"old"
        assert os.listdir(tmp_path) == ["file"]
    finally:
        subprocess.run(["umount", tmp_path], check=True, timeout=10)
