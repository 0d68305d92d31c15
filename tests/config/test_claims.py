"""Sixteen places on a machine: claimed once, found again, given back, never taken from anybody who is there."""

import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sandpost.config import claims
from sandpost.model.errors import HostUnfit


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path / "run")


def state(tmp_path: Path, name: str) -> str:
    path = tmp_path / name
    path.mkdir(exist_ok=True)
    return str(path)


def free(_k: int) -> bool:
    return False


def test_the_same_state_folder_gets_its_place_again(root: str, tmp_path: Path) -> None:
    one, two = state(tmp_path, "one"), state(tmp_path, "two")
    assert [claims.claim(root, name, None, free) for name in (one, two, one, two)] == [0, 1, 0, 1]
    assert claims.find(root, one) == 0
    assert claims.find(root, state(tmp_path, "three")) is None


def test_a_link_to_the_state_folder_is_the_same_folder(root: str, tmp_path: Path) -> None:
    one = state(tmp_path, "one")
    link = tmp_path / "link"
    link.symlink_to(one)
    assert claims.claim(root, one, None, free) == claims.claim(root, str(link), None, free)


def test_places_are_private_to_whoever_starts_at_the_same_instant(root: str, tmp_path: Path) -> None:
    folders = [state(tmp_path, f"s{n}") for n in range(16)]
    barrier = threading.Barrier(16)

    def start(folder: str) -> int:
        barrier.wait(10)
        return claims.claim(root, folder, None, free)

    with ThreadPoolExecutor(16) as threads:
        places = list(threads.map(start, folders))
    assert sorted(places) == list(range(16))
    assert [claims.find(root, folder) for folder in folders] == places


def test_two_processes_at_the_same_instant_get_two_places(root: str, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    go_reader, go_writer = os.pipe()
    pids = []
    for n in range(8):
        folder = state(tmp_path, f"s{n}")
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.read(go_reader, 1)
                os.write(writer, bytes([claims.claim(root, folder, None, free)]))
                status = 0
            finally:
                os._exit(status)
        pids.append(pid)
    os.write(go_writer, b"x" * 8)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * 8
    assert sorted(os.read(reader, 100)) == list(range(8))
    for fd in (reader, writer, go_reader, go_writer):
        os.close(fd)


def test_a_place_that_carries_anything_is_left_alone(root: str, tmp_path: Path) -> None:
    assert claims.claim(root, state(tmp_path, "one"), None, lambda k: k in {0, 1, 2}) == 3


def test_a_gone_state_folder_gives_its_place_up_only_when_nothing_of_it_lives(root: str, tmp_path: Path) -> None:
    folders = [state(tmp_path, f"s{n}") for n in range(16)]
    for folder in folders:
        claims.claim(root, folder, None, free)
    newcomer = state(tmp_path, "newcomer")
    with pytest.raises(HostUnfit, match="all 16 places"):
        claims.claim(root, newcomer, None, free)
    shutil.rmtree(folders[5])
    with pytest.raises(HostUnfit, match="all 16 places"):
        claims.claim(root, newcomer, None, lambda k: k == 5)
    assert claims.claim(root, newcomer, None, free) == 5


def test_what_a_killed_start_left_half_made_is_free(root: str, tmp_path: Path) -> None:
    os.makedirs(claims.folder(root, 0))
    assert claims.claim(root, state(tmp_path, "one"), None, free) == 0


def test_a_place_can_be_chosen(root: str, tmp_path: Path) -> None:
    one, two = state(tmp_path, "one"), state(tmp_path, "two")
    assert claims.claim(root, one, 13, free) == 13
    with pytest.raises(HostUnfit, match=one):
        claims.claim(root, two, 13, free)
    with pytest.raises(HostUnfit, match="holds instance 13"):
        claims.claim(root, one, 12, free)
    with pytest.raises(HostUnfit, match="sandpost-c"):
        claims.claim(root, two, 12, lambda k: k == 12)


def test_a_place_is_given_back_by_its_owner_alone(root: str, tmp_path: Path) -> None:
    one, two = state(tmp_path, "one"), state(tmp_path, "two")
    claims.claim(root, one, None, free)
    claims.release(root, 0, two, shutil.rmtree)
    assert claims.find(root, one) == 0
    claims.release(root, 0, one, shutil.rmtree)
    assert claims.find(root, one) is None
    assert not os.path.exists(claims.folder(root, 0))


def test_a_run_folder_that_others_can_write_is_refused(root: str, tmp_path: Path) -> None:
    os.mkdir(root)
    os.chmod(root, 0o777)
    with pytest.raises(HostUnfit, match="others cannot write"):
        claims.claim(root, state(tmp_path, "one"), None, free)
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(HostUnfit, match="cannot make"):
        claims.claim(str(blocked / "run"), state(tmp_path, "one"), None, free)


def test_a_start_that_holds_the_lock_too_long_is_told(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "_WAIT", 0.1)
    one = state(tmp_path, "one")
    claims.claim(root, one, None, free)
    with claims._locked(root), pytest.raises(HostUnfit, match="another start holds"):
        claims.claim(root, one, None, free)
