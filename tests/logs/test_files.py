import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandpost.logs.files import TenantFiles


def line(number: int, size: int = 100) -> bytes:
    return json.dumps({"n": number, "pad": "x" * size}).encode() + b"\n"


def numbers(folder: Path, tenant: str) -> list[int]:
    """Every record of a tenant, oldest first; fails on a line that is no record."""
    found = []
    for name in (f"{tenant}.log.1", f"{tenant}.log"):
        if (folder / name).exists():
            found += [json.loads(text)["n"] for text in (folder / name).read_bytes().splitlines()]
    return found


def test_records_are_appended_in_order_to_each_tenants_file(tmp_path: Path) -> None:
    files = TenantFiles(str(tmp_path))
    files.append("a", line(1) + line(2), 2)
    files.append("b", line(7), 1)
    files.append("a", line(3), 1)
    assert files.flush() == {}
    files.close()
    files = TenantFiles(str(tmp_path))
    files.append("a", line(4), 1)
    assert files.flush() == {}
    files.close()
    assert numbers(tmp_path, "a") == [1, 2, 3, 4]
    assert numbers(tmp_path, "b") == [7]
    assert (tmp_path / "a.log").stat().st_mode & 0o777 == 0o640


def test_file_is_rotated_and_two_are_kept(tmp_path: Path) -> None:
    files = TenantFiles(str(tmp_path), max_file=1000)
    for number in range(100):
        files.append("a", line(number), 1)
        assert files.flush() == {}
    files.close()
    kept = numbers(tmp_path, "a")
    assert kept == list(range(100 - len(kept), 100))
    assert 8 <= len(kept) <= 18
    assert sorted(os.listdir(tmp_path)) == ["a.log", "a.log.1"]
    assert all((tmp_path / name).stat().st_size <= 1000 for name in os.listdir(tmp_path))
    assert files.total == sum((tmp_path / name).stat().st_size for name in os.listdir(tmp_path))


def test_files_unwritten_for_longest_go_first_when_all_are_too_much(tmp_path: Path) -> None:
    for name, age in (("old.log", 300), ("older.log.1", 400), ("new.log", 100)):
        (tmp_path / name).write_bytes(line(0, 300))
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    (tmp_path / "other.txt").write_bytes(b"x" * 5000)
    files = TenantFiles(str(tmp_path), max_total=900)
    files.append("a", line(1, 300), 1)
    files.flush()
    assert sorted(os.listdir(tmp_path)) == ["a.log", "new.log", "other.txt"]
    files.append("new", line(2, 10), 1)
    files.append("b", line(2, 300), 1)
    files.flush()
    files.close()
    assert sorted(os.listdir(tmp_path)) == ["b.log", "new.log", "other.txt"]
    assert files.total == (tmp_path / "b.log").stat().st_size + (tmp_path / "new.log").stat().st_size


def test_few_files_are_open_at_once(tmp_path: Path) -> None:
    files = TenantFiles(str(tmp_path), max_open=4)
    before = len(os.listdir("/proc/self/fd"))
    for turn in range(3):
        for number in range(20):
            files.append(f"t{number}", line(turn), 1)
        assert files.flush() == {}
        assert len(os.listdir("/proc/self/fd")) == before + 4
    files.close()
    assert len(os.listdir("/proc/self/fd")) == before
    assert all(numbers(tmp_path, f"t{number}") == [0, 1, 2] for number in range(20))


@given(torn=st.integers(0, 120), before=st.integers(0, 3))
@settings(max_examples=30)
def test_torn_end_of_a_killed_writer_is_cut_off(
    tmp_path_factory: pytest.TempPathFactory, torn: int, before: int
) -> None:
    folder = tmp_path_factory.mktemp("torn")
    whole = b"".join(line(number) for number in range(before))
    (folder / "a.log").write_bytes(whole + line(99)[:torn].rstrip(b"\n"))
    files = TenantFiles(str(folder))
    files.append("a", line(50), 1)
    assert files.flush() == {}
    files.close()
    assert numbers(folder, "a") == [*range(before), 50]


def test_torn_end_longer_than_a_look_is_cut_off(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_bytes(line(1) + b"x" * 200_000)
    files = TenantFiles(str(tmp_path))
    files.append("a", line(2), 1)
    files.flush()
    files.close()
    assert numbers(tmp_path, "a") == [1, 2]


def test_removed_file_is_begun_anew(tmp_path: Path) -> None:
    files = TenantFiles(str(tmp_path))
    files.append("a", line(1), 1)
    files.flush()
    os.unlink(tmp_path / "a.log")
    files.append("a", line(2), 1)
    assert files.flush() == {}
    files.close()
    assert numbers(tmp_path, "a") == [2]


def test_link_in_the_place_of_a_file_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"")
    os.symlink(target, tmp_path / "a.log")
    files = TenantFiles(str(tmp_path))
    files.append("a", line(1), 1)
    assert files.flush() == {"a": 1}
    files.close()
    assert target.read_bytes() == b""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_full_disk_loses_whole_records_and_counts_them(small_disk: Path) -> None:
    files = TenantFiles(str(small_disk))
    lost = 0
    for number in range(200):
        files.append("a", b"".join(line(number * 10 + i, 200) for i in range(10)), 10)
        lost += files.flush().get("a", 0)
    kept = numbers(small_disk, "a")
    assert lost > 0
    assert len(kept) + lost == 2000
    assert kept == sorted(kept)
    # Room again: it goes on by itself.
    (small_disk / "a.log").unlink()
    files.append("a", line(5000), 1)
    assert files.flush() == {}
    files.close()
    assert numbers(small_disk, "a") == [5000]
